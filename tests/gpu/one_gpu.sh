#!/bin/bash
# One GPU: golden models, 50 steps against the CPU, an exported folder in transformers, event files in TensorBoard, the
# refusal of a model that does not fit, and speed. Needs verne, test_train_mpi and test_comm_mpi in $BIN, a folder of cases
# in $CASES (tokenizers/qwen3, data/gsm8k_train.jsonl, golden/), and a Python with torch, transformers and tensorboard.
# RUN is what starts a program (mpirun with its library paths).
set -u
here=$(dirname "$(readlink -f "$0")")
run=${RUN:-}; bin=$(readlink -f "${BIN:?}"); cases=$(readlink -f "${CASES:?}")
work=${WORK:-/tmp/verne_gpu}; rm -rf "$work"; mkdir -p "$work"; cd "$work"
export VERNE_SHARED_DIR=$cases
section() { echo; echo "=== $* ($(date +%H:%M:%S))"; }

section golden models on the GPU
$run mpirun -n 1 "$bin/test_train_mpi" --gtest_filter='*Golden*' 2>&1 | grep -E 'FAILED|PASSED|Failure|GPU|Expected|actual|difference|error' | head -40

section golden models through the program
python3 "$here/../golden/check_program.py" "$bin/verne" "$cases"/golden/* --device cuda --ranks 1 --mpirun "$run mpirun --bind-to none" 2>&1 | tail -8

section 50 steps, GPU against CPU
mkdir -p model; cp "$cases"/tokenizers/qwen3/tokenizer*.json model/
cat > model/config.json <<'C'
{"architectures":["Qwen3ForCausalLM"],"model_type":"qwen3","vocab_size":151936,"hidden_size":256,"intermediate_size":768,"num_hidden_layers":4,"num_attention_heads":4,"num_key_value_heads":2,"head_dim":64,"hidden_act":"silu","max_position_embeddings":4096,"rms_norm_eps":1e-06,"tie_word_embeddings":true,"rope_parameters":{"rope_theta":1000000.0,"rope_type":"default"},"attention_bias":false,"attention_dropout":0.0,"initializer_range":0.02,"dtype":"float32","transformers_version":"5.17.0","eos_token_id":151645,"use_sliding_window":false,"sliding_window":null}
C
common="--model.config=model/config.json --model.init=random --data.train=$cases/data/gsm8k_train.jsonl --prepare.template=qwen3
 --prepare.input_key=question --prepare.output_key=answer --data.seq_length=512 --data.overlong=truncate --train.max_steps=50
 --train.global_batch=4 --train.micro_batch=2 --train.val_interval=25 --train.val_batches=2 --optimizer.lr=1e-3 --optimizer.warmup_steps=5
 --checkpoint.interval=0"
$run "$bin/verne" train $common --run.device=cpu --run.threads=14 --model.dtype=fp32 --run.dir=cpu32 2>&1 | tail -2
$run "$bin/verne" train $common --run.device=cuda --model.dtype=fp32 --run.dir=gpu32 --train.export=hf 2>&1 | tail -3
$run "$bin/verne" train $common --run.device=cuda --model.dtype=bf16 --run.dir=gpu16 --train.export=hf 2>&1 | tail -3
python3 "$here/compare_losses.py" gpu32 cpu32 1e-4
python3 "$here/compare_losses.py" gpu16 cpu32 2e-2
$run "$bin/verne" train $common --run.device=cuda --model.dtype=bf16 --run.deterministic=true --run.dir=det1 2>&1 | tail -1
$run "$bin/verne" train $common --run.device=cuda --model.dtype=bf16 --run.deterministic=true --run.dir=det2 --train.stop_step=20 >/dev/null 2>&1
$run "$bin/verne" train $common --run.device=cuda --model.dtype=bf16 --run.deterministic=true --run.dir=det2 2>&1 | tail -1
python3 "$here/compare_losses.py" det2 det1 0
for recompute in selective full; do
  $run "$bin/verne" train $common --run.device=cuda --model.dtype=bf16 --run.deterministic=true --train.recompute=$recompute --run.dir=$recompute 2>&1 | tail -1
  python3 "$here/compare_losses.py" $recompute det1 0
done

section exported folders in transformers
head -8 "$cases/data/gsm8k_train.jsonl" > some.jsonl
for dir in gpu32 gpu16; do
  $run "$bin/verne" score --model.path=$dir/hf --model.dtype=fp32 --score.input=some.jsonl --score.output=$dir.scores.jsonl --prepare.template=qwen3 --prepare.input_key=question --prepare.output_key=answer 2>&1 | tail -1
  python3 "$here/check_export.py" $dir/hf $dir.scores.jsonl
done

section event files
python3 "$here/check_events.py" gpu16

section Llama-3.1-8B on one GPU
python3 "$here/make_tokens.py" tokens.jsonl 64 4096 128000
$run "$bin/verne" train --recipe llama31_8b/pretrain --parallel.tensor=1 --data.train=tokens.jsonl --prepare.split=1,0,0 --data.packing=false --data.seq_length=4096 --train.global_batch=2 --train.micro_batch=2 --train.max_steps=20 --run.dir=llama8b 2>&1 | tail -14; echo "exit ${PIPESTATUS[0]}"

section Llama-3.1-8B on one GPU, all layers recomputed
timeout 150 $run "$bin/verne" train --recipe llama31_8b/pretrain --parallel.tensor=1 --data.train=tokens.jsonl --prepare.split=1,0,0 --data.packing=false --data.seq_length=4096 --train.global_batch=1 --train.micro_batch=1 --train.recompute=full --train.max_steps=1000 --train.log_interval=1 --checkpoint.interval=0 --train.val_interval=0 --run.dir=llama8b_full > llama8b_full.log 2>&1 &
child=$!
while kill -0 $child 2>/dev/null; do
  if grep -q "^20," llama8b_full/metrics.csv 2>/dev/null; then
    nvidia-smi --query-gpu=memory.used --format=csv,noheader | sed 's/^/memory used: /'; pkill -9 -x verne; break
  fi
  sleep 0.5
done
grep -E 'error|out of memory|needs' llama8b_full.log | head -5; tail -n 1 llama8b_full/metrics.csv

section speed: Qwen3-0.6B
python3 "$here/make_tokens.py" tokens.jsonl 64 4096 151000
$run "$bin/verne" train --recipe qwen3_0p6b/pretrain --data.train=tokens.jsonl --prepare.split=1,0,0 --data.packing=false --data.seq_length=4096 --train.global_batch=2 --train.micro_batch=2 --train.max_steps=20 --train.val_interval=0 --checkpoint.interval=0 --run.dir=speed 2>&1 | tail -4
[ -n "${PEER:-}" ] && timeout 150 python3 "$PEER" --model qwen3_0p6b --seq 4096 --mbs 2 2>&1 | tail -1
cp -r cpu32/metrics.csv "$work/cpu32.csv" 2>/dev/null
section done

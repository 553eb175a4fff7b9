#!/bin/bash
# N GPUs of one host: NCCL collectives, golden models under every layout, small-model losses of layouts against one GPU, and
# Llama-3.1-8B from random weights as DP-N and TP-N, 20 steps each, beside a peer where PEER names a Python script of one.
# Environment as in one_gpu.sh; GPUS = N.
set -u
here=$(dirname "$(readlink -f "$0")")
run=${RUN:-}; bin=$(readlink -f "${BIN:?}"); cases=$(readlink -f "${CASES:?}"); gpus=${GPUS:-4}
work=${WORK:-/tmp/verne_gpus}; rm -rf "$work"; mkdir -p "$work"; cd "$work"
export VERNE_SHARED_DIR=$cases
mpi="mpirun --bind-to none"
section() { echo; echo "=== $* ($(date +%H:%M:%S))"; }

# until_step RUN_DIR STEP COMMAND...: starts the command, and kills it once metrics.csv has that step.
until_step() {
  local dir=$1 step=$2; shift 2
  "$@" > "$dir.log" 2>&1 &
  local child=$!
  while kill -0 $child 2>/dev/null; do
    if grep -q "^$step," "$dir/metrics.csv" 2>/dev/null; then
      nvidia-smi --query-gpu=memory.used --format=csv,noheader | head -1 | sed 's/^/memory used on GPU 0: /'
      pkill -9 -x verne; break
    fi
    sleep 0.5
  done
  wait $child 2>/dev/null
  grep -E 'error' "$dir.log" | head -5
  tail -n 1 "$dir/metrics.csv"
  awk -F, -v from=$((step / 2)) 'NR > 1 && $1 > from && $9 != "" { n++; t += $9 } END { if (n) printf "mean tokens/s of steps after %d: %.0f in all\n", from, t / n }' "$dir/metrics.csv"
}

if [ -z "${SKIP_TESTS:-}" ]; then
section NCCL collectives
for n in 2 "$gpus"; do
  $run $mpi -n $n "$bin/test_comm_mpi" --gtest_filter='Nccl*' 2>&1 | grep -E 'FAILED|PASSED|Failure|SKIPPED' | head -8
done
section golden models
for n in 2 "$gpus"; do
  $run $mpi -n $n "$bin/test_train_mpi" --gtest_filter='*Golden*' 2>&1 | grep -E 'FAILED|PASSED|Failure|GPU|difference' | head -20
done
section layouts against one GPU
mkdir -p model; cp "$cases"/tokenizers/qwen3/tokenizer*.json model/
cat > model/config.json <<'C'
{"architectures":["Qwen3ForCausalLM"],"model_type":"qwen3","vocab_size":151936,"hidden_size":256,"intermediate_size":768,"num_hidden_layers":4,"num_attention_heads":4,"num_key_value_heads":2,"head_dim":64,"hidden_act":"silu","max_position_embeddings":4096,"rms_norm_eps":1e-06,"tie_word_embeddings":true,"rope_parameters":{"rope_theta":1000000.0,"rope_type":"default"},"attention_bias":false,"attention_dropout":0.0,"initializer_range":0.02,"dtype":"float32","transformers_version":"5.17.0","eos_token_id":151645}
C
common="--model.config=model/config.json --model.init=random --data.train=$cases/data/gsm8k_train.jsonl --prepare.template=qwen3
 --prepare.input_key=question --prepare.output_key=answer --data.seq_length=512 --data.overlong=truncate --train.max_steps=20
 --train.global_batch=8 --train.val_interval=0 --optimizer.lr=1e-3 --optimizer.warmup_steps=5 --checkpoint.interval=0 --run.device=cuda"
$run $mpi -n 1 "$bin/verne" train $common --model.dtype=fp32 --run.dir=one32 2>&1 | tail -1
$run $mpi -n 1 "$bin/verne" train $common --model.dtype=bf16 --run.dir=one16 2>&1 | tail -1
for tensor in 1 2 4; do
  [ $tensor -le $gpus ] || continue
  for dtype in fp32 bf16; do
    dir=tp$tensor.$dtype
    $run $mpi -n $gpus "$bin/verne" train $common --parallel.tensor=$tensor --model.dtype=$dtype --run.dir=$dir 2>&1 | grep -E 'error|tensor' | head -4
    if [ $dtype = fp32 ]; then python3 "$here/compare_losses.py" $dir one32 1e-5; else python3 "$here/compare_losses.py" $dir one16 2e-2; fi
  done
done
fi

section Llama-3.1-8B, DP$gpus
python3 "$here/make_tokens.py" tokens.jsonl 256 4096 128000
llama="--recipe llama31_8b/pretrain --data.train=tokens.jsonl --prepare.split=1,0,0 --data.packing=false --data.seq_length=4096
 --train.micro_batch=2 --train.max_steps=1000 --train.log_interval=1 --checkpoint.interval=0"
until_step dp 20 $run $mpi -n $gpus "$bin/verne" train $llama --parallel.tensor=1 --train.global_batch=$((2 * gpus)) --run.dir=dp
section Llama-3.1-8B, TP$gpus
until_step tp 20 $run $mpi -n $gpus "$bin/verne" train $llama --parallel.tensor=$gpus --train.global_batch=2 --run.dir=tp
if [ -n "${PEER:-}" ]; then
  section peer
  timeout 200 python3 -m torch.distributed.run --nproc_per_node=$gpus "$PEER" --model llama31_8b --seq 4096 --mbs 2 2>&1 | tail -1
fi
section done

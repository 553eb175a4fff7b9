#!/bin/bash
# Speed of two builds of the program on one GPU, in turns: Llama-3.1-8B's layers x12, bf16, random weights. $OLD and $NEW are
# the programs, RUN what starts one, $TRACE a kernel_trace.so (then the gaps between kernels, and which took longest), TURNS how often.
set -u
here=$(dirname "$(readlink -f "$0")")
run=${RUN:-}; old=$(readlink -f "${OLD:?}"); new=$(readlink -f "${NEW:?}"); turns=${TURNS:-2}
work=${WORK:-/tmp/verne_two}; rm -rf "$work"; mkdir -p "$work"; cd "$work"
section() { echo; echo "=== $* ($(date +%H:%M:%S))"; }
sed 's/"num_hidden_layers": *[0-9]*/"num_hidden_layers": 12/' "$here/../../inputs/recipes/llama31_8b/config.json" > config.json
python3 "$here/make_tokens.py" short.jsonl 64 4096 128000
python3 "$here/make_tokens.py" long.jsonl 8 32768 128000
export VERNE_RECIPES=$(readlink -f "$here/../../inputs/recipes")
common="--recipe llama31_8b/pretrain --model.config=config.json --parallel.tensor=1 --prepare.split=1,0,0 --data.packing=false
 --train.log_interval=1 --checkpoint.interval=0 --train.val_interval=0 --run.device=cuda"

title() { [ "$1" = long ] && echo "a sequence of 32768" || echo "accumulation $1"; }
settings() {
  if [ "$1" = long ]; then
    echo --data.train=long.jsonl --data.seq_length=32768 --train.micro_batch=1 --train.global_batch=1
  else
    echo --data.train=short.jsonl --data.seq_length=4096 --train.micro_batch=2 --train.global_batch=$((2 * $1))
  fi
}

# measure NAME PROGRAM STEPS SETTINGS...: runs that many steps and ends the program; tokens/s over the second half of the
# steps, by the rows' step times.
measure() {
  local name=$1 program=$2 last=$3; shift 3
  rm -rf run
  $run "$program" train $common "$@" --train.max_steps=1000000 --run.dir=run > run.log 2>&1 &
  local child=$!
  for _ in $(seq 300); do
    grep -q "^$last," run/metrics.csv 2>/dev/null && break
    kill -0 $child 2>/dev/null || break
    sleep 0.3
  done
  pkill -9 -x "$(basename "$program")"; wait $child 2>/dev/null
  if ! grep -q "^$last," run/metrics.csv 2>/dev/null; then echo "$name: nothing measured"; tail -5 run.log; return; fi
  awk -F, -v name="$name" -v last="$last" '
    NR > 1 && $8 != "" && $1 > last / 2 && $1 <= last { tokens += $8 * $9; seconds += $8; rows++; loss = $4; memory = $12 }
    END { printf "%-34s %8.0f tokens/s over %d steps, loss %s, %s GB\n", name, tokens / seconds, rows, loss, memory }' run/metrics.csv
}
cases() {  # PROGRAM NAME
  for case in "1 ${SHORT:-24}" "8 ${MEDIUM:-8}" "long ${LONG:-10}"; do
    set -- "$1" "$2" $case
    measure "$2, $(title "$3")" "$1" "$4" $(settings "$3")
  done
}
for turn in $(seq "$turns"); do
  section "turn $turn"
  cases "$old" first
  cases "$new" this
done
if [ -n "${TRACE:-}" ]; then
  section gaps between kernels
  for case in "1 13" "8 6" "long 6"; do for program in "$new" "$old"; do
    set -- $case
    export CUDA_INJECTION64_PATH=$TRACE VERNE_KERNEL_TRACE=$work/trace.csv
    measure "$(basename "$program") traced, $(title "$1")" "$program" "$2" $(settings "$1")
    unset CUDA_INJECTION64_PATH
    python3 "$here/kernel_gaps.py" "$VERNE_KERNEL_TRACE" --steps 4
  done; done
fi
section done

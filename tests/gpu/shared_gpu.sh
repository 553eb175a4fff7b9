#!/bin/bash
# One GPU, shared by up to four ranks: kernels against the CPU's, staged and NCCL collectives, golden models for one rank and
# under every layout of ranks that share the card, in the tests and through the program. Needs test_ops, test_comm_mpi,
# test_train_mpi and verne in $BIN, a folder of cases in $CASES (golden/), and the project's own in $VERNE_GOLDEN_DIR.
# RUN is what starts a program (mpirun with its library paths).
set -u
here=$(dirname "$(readlink -f "$0")")
run=${RUN:-}; bin=${BIN:?}; cases=${CASES:?}
export VERNE_SHARED_DIR=$cases VERNE_TEST_DEVICE=cuda
mpi="mpirun --bind-to none --oversubscribe"
section() { echo; echo "=== $* ($(date +%H:%M:%S))"; }
kept='FAILED|PASSED|Failure|relative|difference|Expected|actual|what\(\)|error'

section kernels
$run "$bin/test_ops" --gtest_filter='*Cuda*' 2>&1 | grep -E "$kept" | head -60
for n in 1 2; do
  section "collectives, $n ranks"
  timeout 120 $run $mpi -n $n "$bin/test_comm_mpi" --gtest_filter='*Nccl*:*Staged*' 2>&1 | grep -E "$kept|SKIPPED" | head -30
done
for n in 1 2 4; do
  section "golden models, $n ranks"
  export VERNE_TEST_LAYOUTS=
  [ $n = 2 ] && VERNE_TEST_LAYOUTS=,tp2,pp2,pp2x2,cp2
  [ $n = 4 ] && VERNE_TEST_LAYOUTS=tp2pp2,cp2pp2
  timeout ${LIMIT:-150} $run $mpi -n $n "$bin/test_train_mpi" --gtest_filter='*Golden.L*shared*:*Golden.T*shared*' 2>&1 | grep -E "$kept" | head -60
done
unset VERNE_TEST_LAYOUTS
section golden models through the program
timeout ${LIMIT:-150} python3 "$here/../golden/check_program.py" "$bin/verne" "$cases"/golden/{llama,long} --device cuda --ranks 4 --only ,tp2,pp2,pp2x2,cp2,tp2pp2,cp2pp2 --mpirun "$run $mpi" 2>&1 | tail -40
section done

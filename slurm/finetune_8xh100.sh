#!/bin/bash
# Fine-tunes a model on one node of 8 GPUs. Submit it from the directory that the deck's paths are relative to:
#
#   sbatch finetune_8xh100.sh my_deck.ini
#   sbatch finetune_8xh100.sh --recipe llama31_8b --data.train=train.jsonl --run.dir=runs/first
#
# What follows the script's name goes to `verne train` as it stands. The run continues by itself after a time limit or a
# preemption: two minutes before the end Slurm sends USR1, the run saves a checkpoint and ends with exit code 75, and
# the job puts itself back into the queue. Exit code 2 (bad input) is never requeued.
#SBATCH --job-name=verne
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=12
#SBATCH --exclusive
#SBATCH --time=04:00:00
#SBATCH --signal=USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=verne_%j.txt
set -u

# The program, where it is not on PATH.
VERNE=${VERNE:-verne}

# One rank a GPU. Each rank sees all GPUs of its node and takes the one of its rank within the node, so that NCCL can use
# NVLink between them: do not bind GPUs to tasks.
srun --mpi=pmix --gpu-bind=none --kill-on-bad-exit=1 "$VERNE" train "$@"
code=$?

if [ "$code" -eq 75 ]; then
  echo "stopped in good order; back into the queue"
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"

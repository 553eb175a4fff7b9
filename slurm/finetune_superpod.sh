#!/bin/bash
# Fine-tunes a model on several nodes of 8 GPUs each (DGX SuperPOD and the like). Submit it from a directory on the shared
# file system, which all nodes see under the same path:
#
#   sbatch --nodes=4 finetune_superpod.sh my_deck.ini
#   sbatch --nodes=8 finetune_superpod.sh --recipe llama31_70b --data.train=train.jsonl --run.dir=runs/seventy
#
# Layout: ranks are numbered node by node, and tensor ranks are neighbours, so parallel.tensor up to 8 stays on a node's
# NVLink; then come context, data and pipeline ranks. train.global_batch must be a multiple of train.micro_batch · data
# ranks, which are 8 · nodes / (parallel.tensor · parallel.context · parallel.pipeline). `--run.dry_run` shows the
# arithmetic and the memory, and stops.
#
# Time limits, preemption and requeueing are those of finetune_8xh100.sh: exit code 75 goes back into the queue. A run
# may come back with another number of nodes: checkpoints have no layout.
#SBATCH --job-name=verne
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=14
#SBATCH --exclusive
#SBATCH --time=04:00:00
#SBATCH --signal=USR1@180
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=verne_%j.txt
set -u

VERNE=${VERNE:-verne}

# Checkpoints are one HDF5 file that all ranks write; on Lustre let it stripe over many targets, once, before the first
# run:   lfs setstripe -c -1 <run.dir>/checkpoints
#
# NCCL finds the InfiniBand adapters by itself. Where it picks the wrong ones, say which: NCCL_IB_HCA, NCCL_SOCKET_IFNAME.
# NCCL_DEBUG=INFO shows what it chose.
srun --mpi=pmix --gpu-bind=none --distribution=block:block --kill-on-bad-exit=1 "$VERNE" train "$@"
code=$?

if [ "$code" -eq 75 ]; then
  echo "stopped in good order; back into the queue"
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"

#!/bin/bash
# Two nodes with eight GPUs each: sbatch docs/examples/slurm.sh
# Seven jobs of a day, one after the other, each of which goes on with the run; those that are left
# over once it is done return at once. Jobs whose node failed are put back into the queue.
#SBATCH --job-name=hvae
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --array=1-7%1
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=TERM@300

set -euo pipefail

# A folder that all nodes see: every node reads checkpoints there.
RUNS=${RUNS:-$HOME/runs}
CONFIG=${CONFIG:-ffhq_256}
HEAD=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)

export OMP_NUM_THREADS=4
# Seconds that processes have to save after a signal.
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=240

# One torchrun a node; srun hands the signal, five minutes before the end, to each of them.
srun --kill-on-bad-exit=0 torchrun \
  --nnodes="$SLURM_NNODES" \
  --nproc-per-node=8 \
  --max-restarts=3 \
  --rdzv-backend=c10d \
  --rdzv-id="$SLURM_JOB_ID" \
  --rdzv-endpoint="$HEAD:29500" \
  -m hvae train "$CONFIG" runs_dir="$RUNS" "$@"

#!/bin/bash
# Train on the processors of one node.
#
#   sbatch install/slurm/cpu.sh mysettings.py --set batch_size=32
#
# What follows the script is for `train`. IMAGE is the image, by default tf2_addons.sif in the folder of submission;
# RUN_NAME the name of the run folder.
#SBATCH --job-name=train
#SBATCH --cpus-per-task=8
#SBATCH --mem=16G
#SBATCH --time=4:00:00
#SBATCH --output=%x-%j.out
# A job that is queued again writes on in the same file.
#SBATCH --open-mode=append
# After a preemption, or when its node fails, the cluster queues the job again; it goes on in the same run folder.
#SBATCH --requeue
# Two minutes before the time limit the run is told to stop where it can go on.
#SBATCH --signal=B:USR1@120

# SLURM runs a copy of this file: the common part lies beside the file that was submitted.
command=$(scontrol show job "${SLURM_JOB_ID:-none}" 2> /dev/null | sed -n 's/^ *Command=//p')
command=${command:-$0}
# shellcheck source=/dev/null
. "$(dirname "${command%" $*"}")/common.sh"

train_in_image apptainer exec -- "$@"

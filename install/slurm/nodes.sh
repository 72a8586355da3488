#!/bin/bash
# Train on several nodes, one process on each; the settings say strategy = "MultiWorkerMirroredStrategy".
#
#   sbatch --nodes 4 install/slurm/nodes.sh mysettings.py
#
# What follows the script is for `train`. IMAGE is the image, by default tf2_addons.sif in the folder of submission;
# RUN_NAME the name of the run folder.
# The image and the working folder must be on a disk that all nodes see.
#SBATCH --job-name=train-nodes
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
#SBATCH --time=8:00:00
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

train_in_image srun --kill-on-bad-exit=0 --wait=60 apptainer exec --nv -- "$@"

#!/bin/bash
# Train once for each line of a file, at most four at a time.
#
#   sbatch --array=1-$(wc -l < tasks.txt)%4 install/slurm/array.sh mysettings.py tasks.txt
#
# What follows the script is for `train`. IMAGE is the image, by default tf2_addons.sif in the folder of submission;
# RUN_NAME the name of the run folders, which the number of the line follows.
#SBATCH --job-name=train-array
#SBATCH --array=1-4%4
#SBATCH --cpus-per-task=4
#SBATCH --mem=8G
#SBATCH --time=2:00:00
#SBATCH --output=%x-%A_%a.out
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

# A line holds further options of `train`, e.g. --set learning_rate=0.1 --set hparams.units=32
settings=$1 tasks=$2
read -r -a options <<< "$(sed -n "${SLURM_ARRAY_TASK_ID}p" "$tasks")"
RUN_NAME="${RUN_NAME:-job-$SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"
train_in_image apptainer exec -- "$settings" "${options[@]}"

# shellcheck shell=bash
# What the job scripts of this folder share. They read it in, and call
#
#   train_in_image LAUNCHER… -- SETTINGS [OPTION…]
#
# which trains, and puts a job that was interrupted back into the queue. The launcher is e.g. `apptainer exec --nv`.

image="${IMAGE:-$PWD/tf2_addons.sif}"
[ -e "$image" ] || {
    echo "There is no image $image. Expected an Apptainer image. Name it: IMAGE=FILE sbatch …" >&2
    exit 2
}

train_in_image() {
    local child code warned='' launcher=()
    while [ "$1" != -- ]; do launcher+=("$1"); shift; done
    shift
    # Signals reach this shell, not the command: USR1 ahead of a time limit or a preemption, TERM at the end.
    trap 'warned=yes; kill -USR1 "$child" 2> /dev/null' USR1
    trap 'kill -TERM "$child" 2> /dev/null' TERM
    # Without PYTHONPATH, or Python in the image would import the packages of the machine.
    "${launcher[@]}" --env PYTHONPATH= --bind "$PWD" --pwd "$PWD" "$image" \
        experiments_manager train "$@" --run-name "${RUN_NAME:-job-$SLURM_JOB_ID}" --resume auto &
    child=$!
    # A signal ends `wait`, not the command.
    while wait "$child"; kill -0 "$child" 2> /dev/null; do :; done
    wait "$child"
    code=$?
    # srun passes the signals on to its tasks. 137: one of them was killed, and the others have stopped.
    if [ "$code" -eq 137 ] && [ "${SLURM_JOB_NUM_NODES:-1}" -gt 1 ]; then
        warned=yes
        code=75
    fi
    # 75: interrupted, and can go on. Without a warning, it was cancelled or the cluster queues it again by itself.
    if [ "$code" -eq 75 ] && [ -n "$warned" ] && [ "${SLURM_RESTART_COUNT:-0}" -lt 20 ]; then
        scontrol requeue "$SLURM_JOB_ID" && sleep 60 # until the cluster ends this script
    fi
    exit "$code"
}

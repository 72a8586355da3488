# shellcheck shell=bash
# supervise MOST COMMAND… runs a command in a job, passes signals on, and puts the job back into the queue where the
# command was interrupted and can go on: MOST times at most.
supervise() {
    local most=$1 child code warned=''
    shift
    # Signals reach this shell, not the command: USR1 ahead of a time limit or a preemption, TERM at the end.
    trap 'warned=yes; kill -USR1 "$child" 2> /dev/null' USR1
    trap 'kill -TERM "$child" 2> /dev/null' TERM
    "$@" &
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
    if [ "$code" -eq 75 ] && [ -n "$warned" ]; then
        if [ "${SLURM_RESTART_COUNT:-0}" -lt "$most" ]; then
            scontrol requeue "$SLURM_JOB_ID" && sleep 60 # until the cluster ends this script
        else
            echo "The job was queued again $most times (--max-requeues) and is not finished." >&2
        fi
    fi
    exit "$code"
}

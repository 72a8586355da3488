# shellcheck shell=bash
# What the job scripts of this folder share. They read it in, and call
#
#   train_in_image LAUNCHER… -- SETTINGS [OPTION…]
#
# which trains. The launcher is e.g. `apptainer exec --nv`. supervise.sh beside it, which `submit` writes into its
# scripts too, puts a job that was interrupted back into the queue.

image="${IMAGE:-$PWD/tf2_addons.sif}"
[ -e "$image" ] || {
    echo "There is no image $image. Expected an Apptainer image. Name it: IMAGE=FILE sbatch …" >&2
    exit 2
}
here=$(dirname "${BASH_SOURCE[0]}")
[ -e "$here/supervise.sh" ] || {
    echo "There is no $here/supervise.sh, a link. Copy the folder with what its links name: cp -rL install/slurm …" >&2
    exit 2
}
# shellcheck source=/dev/null
. "$here/supervise.sh"

train_in_image() {
    local launcher=()
    while [ "$1" != -- ]; do launcher+=("$1"); shift; done
    shift
    # Without PYTHONPATH, or Python in the image would import the packages of the machine.
    supervise 20 "${launcher[@]}" --env PYTHONPATH= --bind "$PWD" --pwd "$PWD" "$image" \
        experiments_manager train "$@" --run-name "${RUN_NAME:-job-$SLURM_JOB_ID}" --resume auto
}

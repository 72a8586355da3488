#!/bin/sh
# What the images run: every command of experiments_manager, the bare model server, and the earlier forms
#   experiments_manager.py --usersettings SETTINGS    and    -m RUN --predict_stream=-1 --model_dir=MODEL
# Nothing but /tmp and what was bound can be written, there may be no home folder, and any user may run it.
home=/opt/experiments_manager
unset PYTHONPATH PYTHONHOME # of the machine, whose packages are not ours
export PATH="$home/bin:$PATH" PYTHONDONTWRITEBYTECODE=1 PYTHONNOUSERSITE=1
[ -w "${HOME:-/nowhere}" ] || export HOME=/tmp
export MPLCONFIGDIR="${MPLCONFIGDIR:-/tmp/matplotlib}"
case "${1:-}" in
    python|python3|experiments-model-server) program=$1; shift; exec "$home/bin/$program" "$@" ;;
    *experiments_manager.py|experiments_manager|em) shift ;;
esac
exec "$home/bin/experiments_manager" "$@"

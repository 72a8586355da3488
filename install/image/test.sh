#!/bin/sh
# Try the image: train the regression example for two epochs, export, serve, and predict. An image without what trains
# serves a model that it makes or has; one without what serves only starts. Needs nothing but /tmp: no network, no root,
# no home folder.
set -eu
home=/opt/experiments_manager
run="sh $home/share/run.sh"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export TF_CPP_MIN_LOG_LEVEL=3
cd "$work"
has() { [ -n "$(find "$home"/lib/python3*/site-packages -maxdepth 1 -name "$1")" ]; }

$run --version
if ! has aiohttp; then
    $run predict --help > /dev/null
    $run python -c "import experiments_manager.client, grpc, numpy; print('The client starts')"
    exit
elif has matplotlib; then
    $run new "$work/mine" --example regression > /dev/null
    $run train "$work/mine/mysettings_curve_fitting.py" --quiet \
        --set epochs=2 --working-dir "$work/runs" --run-name tried
    model="$work/runs/tried/exported_models"
elif has tensorflow; then
    $run python "$home/share/make_model.py" "$work/model"
    model="$work/model"
else
    mkdir -p "$work/model/1"
    cp "$home/share/double.tflite" "$work/model/1/model.tflite"
    model="$work/model"
fi

$run experiments-model-server --version
$run python "$home/share/first_answer.py" "$model"

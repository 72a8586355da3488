#!/bin/sh
# Try the image: train the regression example for two epochs, export, serve, and predict. An image without what trains
# serves a model that it makes. Needs nothing but /tmp: no network, no root, no home folder.
set -eu
home=/opt/experiments_manager
run="sh $home/share/run.sh"
work=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" 2> /dev/null; rm -rf "$work"' EXIT
export TF_CPP_MIN_LOG_LEVEL=3
cd "$work"

$run --version
if [ -d "$home/share/examples" ]; then
    $run train "$home/share/examples/regression/mysettings_curve_fitting.py" --quiet \
        --set epochs=2 --working-dir "$work/runs" --run-name tried
    model="$work/runs/tried/exported_models"
else
    $run python "$home/share/make_model.py" "$work/model"
    model="$work/model"
fi

$run experiments-model-server --model_name=tried --model_base_path="$model" --port=8500 --rest_api_port=8501 &
server=$!
$run python - << 'END'
import json, time, urllib.request
url = "http://127.0.0.1:8501/v1/models/tried"
begin = time.monotonic()
while True:
    try:
        state = json.load(urllib.request.urlopen(url))["model_version_status"][0]["state"]
        if state == "AVAILABLE":
            break
    except OSError:
        pass
    if time.monotonic() - begin > 120:
        raise SystemExit("The model server did not become available within 120 s.")
    time.sleep(0.1)
print(f"First answer after {time.monotonic() - begin:.1f} s")
body = json.dumps({"instances": [[3.0]]}).encode()
answer = json.load(urllib.request.urlopen(f"{url}:predict", body))
print("Predicted", answer["predictions"])
END

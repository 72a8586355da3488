"""Several devices: two logical CPUs, which must be made before TensorFlow starts and so in a process of its own."""

import json
import subprocess
import sys

import pytest

MODEL = """
    def optimizer(learning_rate):
        return keras.optimizers.SGD(learning_rate, momentum=0.9)

    metrics = ["mae"]
    export = True
    epochs = 3
    strategy = "MirroredStrategy"
"""

PROGRAM = """
import json
import sys

import tensorflow as tf

[cpu] = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * int(sys.argv[1]))

from experiments_manager.settings import load_settings
from experiments_manager.training.checkpoints import read_latest
from experiments_manager.training.events import Watcher
from experiments_manager.training.runner import resume_run, start_run
from experiments_manager.runs import open_run

logs, messages, devices, norms = [], [], [], []

class Recorder(Watcher):
    def on_start(self, start):
        devices.append(start.devices)

    def on_epoch(self, report):
        logs.append(report.logs)
        norms.append(report.measures["gradient_norm"])

    def on_message(self, text):
        messages.append(text)

settings = load_settings(sys.argv[2], json.loads(sys.argv[4]))
watchers = lambda run, settings: [Recorder()]
result = start_run(settings, working_dir=sys.argv[3], make_watchers=watchers)
if "epochs" in settings.overrides:
    result = resume_run(open_run(result.run_dir), {"epochs": 3}, make_watchers=watchers)
tensors = read_latest(result.run_dir / "checkpoints")[1].tensors
weights = {name: value.numpy().tolist() for name, value in tensors.items() if name.startswith(("model", "averages"))}
served = tf.saved_model.load(str(result.exported_model)).signatures["serving_default"]
answer = served(position=tf.ones([2, 3]))["height"].numpy().tolist()
seen = {"logs": logs, "norms": norms, "messages": messages, "devices": devices[0]}
print(json.dumps(seen | {"weights": weights, "answer": answer}))
"""


@pytest.fixture(scope="module")
def trained_before():
    return {}


@pytest.fixture
def train_on(settings_file, tmp_path, trained_before):
    """Trains on so many logical CPUs, in a process of its own; once for all tests of this file."""

    def train(devices, **overrides):
        arguments = [str(devices), settings_file(MODEL), tmp_path / "runs", json.dumps(overrides)]
        key = (arguments[0], arguments[3])
        if key not in trained_before:
            command = [sys.executable, "-c", PROGRAM, *map(str, arguments)]
            answer = subprocess.run(command, capture_output=True, text=True)
            assert answer.returncode == 0, answer.stderr[-3000:]
            trained_before[key] = json.loads(answer.stdout.splitlines()[-1])
        return trained_before[key]

    return train


@pytest.mark.slow
def test_two_devices_give_the_losses_of_one_and_keep_equal_averages(train_on):
    one, two = train_on(1), train_on(2)
    assert (one["devices"], two["devices"]) == (["CPU"], ["CPU:0", "CPU:1"])
    assert (one["messages"], two["messages"]) == ([], [])
    for single, mirrored in zip(one["logs"], two["logs"], strict=True):
        assert mirrored == pytest.approx(single, abs=1e-5)
    assert two["norms"] == pytest.approx(one["norms"], rel=1e-4)
    for name, values in one["weights"].items():
        assert _flat(two["weights"][name]) == pytest.approx(_flat(values), abs=1e-5), name
    assert _flat(two["answer"]) == pytest.approx(_flat(one["answer"]), abs=1e-5)


@pytest.mark.slow
def test_a_run_on_two_devices_resumes_to_the_bit(train_on):
    whole, resumed = train_on(2), train_on(2, epochs=1)
    assert (resumed["logs"], resumed["norms"]) == (whole["logs"], whole["norms"])
    assert resumed["weights"] == whole["weights"]


def _flat(values):
    return [number for value in values for number in _flat(value)] if isinstance(values, list) else [values]

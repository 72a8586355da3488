"""Several devices: two logical CPUs, which must be made before TensorFlow starts and so in a process of its own."""

import json
import subprocess
import sys
import textwrap

import pytest

from tests.helpers.warm_processes import WarmPopen

MODEL = """
    def optimizer(learning_rate):
        return keras.optimizers.SGD(learning_rate, momentum=0.9)

    metrics = ["mae"]
    export = True
    tensorboard = True
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
from experiments_manager.training.state.checkpoints import read_latest
from experiments_manager.events import Watcher
from experiments_manager.training.engine.context import RunOptions
from experiments_manager.training.engine.runner import resume_run, start_run
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
result = start_run(settings, RunOptions(make_watchers=watchers), working_dir=sys.argv[3])
if "epochs" in settings.overrides:
    result = resume_run(open_run(result.run_dir), {"epochs": 3}, RunOptions(make_watchers=watchers))
tensors = read_latest(result.run_dir / "checkpoints")[1].tensors
weights = {name: value.numpy().tolist() for name, value in tensors.items() if name.startswith(("model", "averages"))}
served = tf.saved_model.load(str(result.exported_model)).signatures["serving_default"]
answer = served(position=tf.ones([2, 3]))["height"].numpy().tolist()
seen = {"logs": logs, "norms": norms, "messages": messages, "devices": devices[0]}
print(json.dumps(seen | {"weights": weights, "answer": answer}))
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory, curve):
    """What came of the same training on one logical CPU, on two, and on two with a resume; all at the same time."""
    folder = tmp_path_factory.mktemp("devices")
    settings = folder / "mysettings_curve.py"
    settings.write_text(curve + textwrap.dedent(MODEL), encoding="utf-8")
    processes = {}
    for name, devices, overrides in (("one", 1, {}), ("two", 2, {}), ("resumed", 2, {"epochs": 1})):
        arguments = map(str, (devices, settings, folder / name, json.dumps(overrides)))
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        processes[name] = WarmPopen([sys.executable, "-c", PROGRAM, *arguments], **pipes)
    results = {}
    for name, process in processes.items():
        printed, errors = process.communicate()
        assert process.returncode == 0, errors[-3000:]
        results[name] = json.loads(printed.splitlines()[-1])
    return results


@pytest.mark.slow
def test_two_devices_give_the_losses_of_one_and_keep_equal_averages(trained):
    one, two = trained["one"], trained["two"]
    assert (one["devices"], two["devices"]) == (["CPU"], ["CPU:0", "CPU:1"])
    assert (one["messages"], two["messages"]) == ([], [])
    for single, mirrored in zip(one["logs"], two["logs"], strict=True):
        assert mirrored == pytest.approx(single, abs=1e-5)
    assert two["norms"] == pytest.approx(one["norms"], rel=1e-4)
    for name, values in one["weights"].items():
        assert _flat(two["weights"][name]) == pytest.approx(_flat(values), abs=1e-5), name
    assert _flat(two["answer"]) == pytest.approx(_flat(one["answer"]), abs=1e-5)


@pytest.mark.slow
def test_a_run_on_two_devices_resumes_to_the_bit(trained):
    whole, resumed = trained["two"], trained["resumed"]
    assert (resumed["logs"], resumed["norms"]) == (whole["logs"], whole["norms"])
    assert resumed["weights"] == whole["weights"]


def _flat(values):
    return [number for value in values for number in _flat(value)] if isinstance(values, list) else [values]

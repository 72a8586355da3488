"""`sweep --serve` as a user runs it: a client asks for one model by name, and is answered by the best trial so far."""

import json
import re
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

from tests.helpers.waiting import wait_until

pytestmark = pytest.mark.slow
OFFSETS = [0, 2, 1, 3, -1]
"""What the model of each trial answers; 3 is right, so the third and the last one are no new best."""
SETTINGS = """
import time
from pathlib import Path

import keras
import numpy as np

session_name = "constant"
hparams = {{"offset": 0.0}}
epochs = 1
batch_size = 8
loss = "mse"
learning_rate = 1e-9
tensorboard = figures = False
grpc_port, rest_port = {ports}


def dataset(split, hparams):
    while not Path(__file__).with_name(f"go_{{hparams['offset']:g}}").exists():
        time.sleep(0.05)
    return np.zeros([8, 1], "float32"), np.full([8, 1], 3.0, "float32")


def model(hparams):
    inputs = keras.Input([1], name="x")
    start = keras.initializers.Constant(hparams["offset"])
    return keras.Model(inputs, keras.layers.Dense(1, kernel_initializer="zeros", bias_initializer=start)(inputs))
"""
SWEEP = f"""
from hyperopt import hp

settings_file = "mysettings_constant.py"
space = {{"offset": hp.choice("offset", {[float(offset) for offset in OFFSETS]})}}
algorithm = "grid"
max_trials = {len(OFFSETS)}
"""


@pytest.fixture
def sweep(tmp_path, free_port):
    """A sweep as a process, each of whose trials waits for a file, and the address of its model."""
    ports = free_port(), free_port()
    (tmp_path / "mysettings_constant.py").write_text(SETTINGS.format(ports=ports))
    (tmp_path / "mysweep_constant.py").write_text(SWEEP)
    command = [sys.executable, "-m", "experiments_manager", "sweep", "mysweep_constant.py", "--serve"]
    with (tmp_path / "output.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=subprocess.STDOUT)
    with process:
        try:
            told = wait_until(lambda: re.search(r"REST +(\S+)", (tmp_path / "output.log").read_text()), 120)
            yield process, told[1]
        finally:
            process.kill()


def answer(model, request=None):
    """Gives what the server answers, or `None` where it does not serve the model yet."""
    try:
        path, data = ("", None) if request is None else (":predict", json.dumps(request).encode())
        with urllib.request.urlopen(urllib.request.Request(model + path, data), timeout=60) as found:
            return json.load(found)
    except OSError:
        return None


def test_the_best_model_so_far_answers_under_one_name_while_the_sweep_goes_on(sweep, tmp_path):
    process, model = sweep
    seen = []

    def is_served(offset):
        assert process.poll() is None, (tmp_path / "output.log").read_text()
        found = answer(model, {"instances": [[0.0]]})
        if found is not None:
            seen.append(round(found["predictions"][0][0], 3))
        return seen[-1:] == [offset]

    for number, offset in enumerate(OFFSETS):
        (tmp_path / f"go_{offset}").touch()
        if offset == max(OFFSETS[: number + 1]):
            wait_until(lambda offset=offset: is_served(offset), 120)
    assert process.wait(120) == 0, (tmp_path / "output.log").read_text()
    assert list(dict.fromkeys(seen)) == [0, 2, 3]
    assert answer(model) is None  # it ends with the sweep
    published = (tmp_path / "sweeps" / "constant" / "best_model" / "trial.txt").read_text()
    assert published == "version 3 is trial_00003\n"

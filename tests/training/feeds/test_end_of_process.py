"""A process that has trained ends, although a pipeline of it read ahead in Python."""

import subprocess
import sys

import pytest

PIPELINE = """
import time
import keras
import numpy as np
import tensorflow as tf
session_name, epochs, batch_size, loss, learning_rate = "slow_reading", 2, 4, "mse", 0.1
export = figures = tensorboard = False
calls = []
def dataset(split):
    def read(number):
        calls.append(number)
        time.sleep(0.01 if len(calls) <= 24 else 1)  # what is read ahead after the last epoch goes on for long
        return np.ones([4, 2], np.float32), np.ones([4, 1], np.float32)
    def batch(number):
        x, y = tf.numpy_function(read, [number], [tf.float32, tf.float32], stateful=False)
        return tf.ensure_shape(x, [4, 2]), tf.ensure_shape(y, [4, 1])
    return tf.data.Dataset.range(12).map(batch).prefetch(2) if split == "train" else None
def model():
    x = keras.Input([2])
    return keras.Model(x, keras.layers.Dense(1)(x))
"""
SCRIPT = """
import experiments_manager as em
from experiments_manager.training.engine import runner
built, kept = runner.build_experiment, []
def build(*arguments, **options):  # an exception that a notebook shows, or a cycle, holds an experiment to the end
    kept.append(built(*arguments, **options))
    return kept[-1]
runner.build_experiment = build
em.train({file!r}, working_dir={folder!r})
print("trained", flush=True)
"""


@pytest.mark.slow
def test_a_script_ends_after_its_last_line(settings_file, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(file=str(settings_file(PIPELINE)), folder=str(tmp_path / "runs")))
    ended = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=90, check=False)
    assert (ended.returncode, ended.stdout[-8:]) == (0, "trained\n"), ended.stderr

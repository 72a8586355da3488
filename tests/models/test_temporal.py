"""Convolutions see the past alone, and as far back as they say; N-BEATS gives its shape."""

import keras
import numpy as np

from experiments_manager.models.temporal import last_step, nbeats, temporal_convolutions


def test_convolutions_see_just_the_steps_that_they_name():
    steps = keras.Input((16, 1))
    net = keras.Model(steps, temporal_convolutions(steps, 4, kernel_size=2, dilations=(1, 2)))
    x = np.random.default_rng(0).normal(size=(1, 16, 1)).astype("float32")
    before = net.predict(x, verbose=0)
    x[0, 5] += 1
    changed = np.flatnonzero(np.abs(net.predict(x, verbose=0) - before).max(axis=(0, 2)) > 1e-7)
    assert changed.min() == 5
    assert changed.max() <= 5 + 2 * (2 - 1) * (1 + 2)


def test_nbeats_gives_numbers_for_each_step():
    past = keras.Input((20,))
    assert nbeats(past, 6, outputs=3).shape == (None, 6, 3)


def test_the_last_step_is_taken():
    x = np.arange(12.0).reshape(1, 4, 3)
    assert np.array(last_step(x)).tolist() == [[9, 10, 11]]

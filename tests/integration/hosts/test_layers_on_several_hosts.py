"""Many kinds of layers, trained by two processes as by one."""

from pathlib import Path

import numpy as np
import pytest

from tests.helpers.training_hosts import assert_near, tensors_of, trained, weights_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

SETTINGS = Path(__file__).with_name("mysettings_layers.py")


def test_two_processes_train_layers_of_all_kinds_to_the_weights_of_one(tmp_path):
    one, two = (trained(tmp_path, str(workers), workers, settings=SETTINGS) for workers in (1, 2))
    assert_near(weights_of(one), weights_of(two))
    doubles = {name: value for name, value in weights_of(one).items() if value.dtype == "float64"}
    averages = [name for name in doubles if name.endswith("average_float64")]
    assert len(averages) >= 1, sorted(doubles)
    for name in averages:  # it is sent with all its digits
        np.testing.assert_allclose(weights_of(two)[name], doubles[name], rtol=0, atol=1e-14)


def test_layers_that_see_the_rows_of_their_process_or_draw_at_random_train_too(tmp_path):
    run = trained(tmp_path, "shares", 2, "--set", "hparams.kinds=shares", settings=SETTINGS)
    tensors = {name: value for name, value in tensors_of(run).items() if value.dtype.kind == "f"}
    assert [name for name, value in tensors.items() if not np.isfinite(value).all()] == []
    moved = [value for name, value in tensors.items() if name.endswith("moving_mean")]
    assert len(moved) >= 3
    assert all(np.abs(value).max() > 0 for value in moved)

"""What is done with gradients, weights and numbers of a step is done with those of the whole batch."""

from pathlib import Path

import pytest

from tests.helpers.training_hosts import assert_near, rows_of, trained, weights_of

pytestmark = pytest.mark.slow

SETTINGS = Path(__file__).with_name("mysettings_features.py")


def assert_same_numbers(rows, others):
    """Compares metrics, losses and learning rates of each epoch."""
    assert len(rows) == len(others)
    for row, other in zip(rows, others, strict=True):
        assert {name: float(value) for name, value in other.items()} == pytest.approx(
            {name: float(value) for name, value in row.items()}, abs=1e-5
        )


@pytest.mark.parametrize("data", ["pipeline", "indexed"])
def test_class_weights_clipping_and_averages_are_those_of_one_process(tmp_path, data):
    words = ("--set", f"data={data}")
    alone, two = (trained(tmp_path, f"{number}", number, *words, settings=SETTINGS) for number in (1, 2))
    assert_near(weights_of(alone), weights_of(two))
    assert_same_numbers(rows_of(alone), rows_of(two))

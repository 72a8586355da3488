"""Rate and remaining time."""

from pathlib import Path

import pytest

from experiments_manager.events import EpochReport, Progress, RunStart
from experiments_manager.monitoring.timing import EpochTiming


def pace(epochs=10, first_epoch=1, steps_per_epoch=100):
    return EpochTiming(
        RunStart(Path("/run"), "test", {}, epochs, first_epoch, steps_per_epoch, 1, ("CPU",), "val_loss")
    )


def at_step(pace, epoch, step, now, steps_per_epoch=100):
    pace.at_step(Progress(epoch, step, 100 * (epoch - 1) + step, steps_per_epoch, dict), now)


def at_epoch(pace, epoch, now, seconds):
    pace.at_epoch(EpochReport(epoch, 100 * epoch, {}, 0.1, seconds, False), now)


def test_nothing_is_claimed_before_something_was_measured():
    assert pace().text() == ""
    assert pace().remaining_seconds() is None


def test_the_first_epoch_is_foretold_from_its_steps():
    run = pace()
    at_step(run, 1, 10, now=0.0)
    at_step(run, 1, 30, now=1.0)
    assert run.steps_per_second == 20.0
    assert run.remaining_seconds() == pytest.approx(9.7 * 5)
    assert run.text() == "20 steps/s 48.5 s left"


def test_the_first_epoch_which_compiles_does_not_spoil_the_estimate():
    run = pace()
    at_epoch(run, 1, now=60.0, seconds=60.0)
    at_epoch(run, 2, now=61.0, seconds=1.0)
    assert run.remaining_seconds() == pytest.approx(8.0)


def test_the_estimate_follows_epochs_that_become_slower():
    run = pace()
    for epoch, seconds in enumerate([1.0, 1.0, 1.0, 3.0], start=1):
        at_epoch(run, epoch, now=10.0 * epoch, seconds=seconds)
    assert 6 * 1.0 < run.remaining_seconds() < 6 * 3.0


def test_unknown_length_is_borne():
    run = pace(steps_per_epoch=None)
    at_step(run, 1, 10, now=0.0, steps_per_epoch=None)
    at_step(run, 1, 20, now=1.0, steps_per_epoch=None)
    assert run.epochs_done == 0
    assert run.text() == "10 steps/s"


def test_a_resumed_run_counts_only_the_epochs_left():
    run = pace(epochs=10, first_epoch=9)
    at_epoch(run, 9, now=1.0, seconds=2.0)
    assert run.remaining_seconds() == pytest.approx(2.0)

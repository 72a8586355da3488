"""How a machine is shared out, and how the end of a process is told."""

import signal

import pytest

from experiments_manager.sweeps.trials import pool
from experiments_manager.sweeps.trials.pool import gpus_of_slot, how_it_ended, threads_of_a_trial, visible_gpus


def test_threads_are_shared_out_and_nobody_is_left_without(monkeypatch):
    monkeypatch.setattr(pool, "usable_processors", lambda: 8)
    assert [threads_of_a_trial(parallel) for parallel in (1, 2, 3, 16)] == [8, 4, 2, 1]


@pytest.mark.parametrize(
    ("gpus", "parallel", "shares"),
    [
        ([], 2, [None, None]),
        (["0"], 2, ["0", "0"]),
        (["0", "1"], 2, ["0", "1"]),
        (["0", "1", "2"], 2, ["0,2", "1"]),
        (["0", "1"], 4, ["0", "1", "0", "1"]),
    ],
)
def test_gpus_are_shared_out_among_the_slots(gpus, parallel, shares):
    assert [gpus_of_slot(slot, parallel, gpus) for slot in range(parallel)] == shares


def test_gpus_are_those_that_the_environment_shows(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    assert visible_gpus() == ["2", "3"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert visible_gpus() == []


@pytest.mark.parametrize(
    ("status", "said", "outside"),
    [
        (0, "exit code 0", False),
        (3 << 8, "exit code 3", False),
        (signal.SIGKILL, "ended by SIGKILL", True),
        (signal.SIGTERM, "ended by SIGTERM", True),
        (signal.SIGSEGV, "ended by SIGSEGV", False),
        (None, "nobody knows", True),
    ],
)
def test_a_signal_from_outside_is_told_from_a_fault(status, said, outside):
    text, by_others = how_it_ended(status)
    assert said in text
    assert by_others == outside

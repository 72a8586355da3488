"""When a sweep has searched enough."""

import pytest

from experiments_manager.sweeps.search.stopping import MOST_FAILURES, stop_reason
from experiments_manager.sweeps.state.trials import SweepState
from experiments_manager.sweeps.sweep_plan import StopWhen


def state_of(values):
    """Makes the state of trials that ended with these values; `None` stands for a failure."""
    state = SweepState()
    for number, value in enumerate(values):
        state.apply({"event": "proposed", "trial": number, "point": {}, "overrides": {}, "space": "", "by": "tpe"})
        how = {"state": "failed", "reason": "no model"} if value is None else {"state": "finished", "values": [value]}
        state.apply({"event": "ended", "trial": number, **how})
    return state


@pytest.mark.parametrize(
    ("rules", "values", "mode", "reason"),
    [
        ({"target": 0.5}, [0.9, 0.6], "min", None),
        ({"target": 0.5}, [0.9, 0.5], "min", "the target 0.5 is reached"),
        ({"target": 0.5}, [0.2, 0.6], "max", "the target 0.5 is reached"),
        ({"no_progress": 2}, [0.9, 0.5, 0.6], "min", None),
        ({"no_progress": 2}, [0.9, 0.5, 0.6, 0.7], "min", "no progress in 2 trials"),
        ({"no_progress": 2}, [0.5, 0.6, 0.7], "max", None),
        ({}, [], "min", None),
        ({}, [None] * (MOST_FAILURES - 1), "min", None),
        ({}, [0.5] + [None] * MOST_FAILURES, "min", None),
    ],
)
def test_it_follows_from_the_results_so_far(rules, values, mode, reason):
    assert stop_reason(StopWhen(**rules), state_of(values), (mode,)) == reason


def test_an_experiment_that_fails_whatever_the_point_ends_the_sweep_with_its_reason():
    reason = stop_reason(StopWhen(), state_of([None] * MOST_FAILURES), ("min",))
    assert reason == "the first 10 trials failed, and none had a result; the last one: no model"

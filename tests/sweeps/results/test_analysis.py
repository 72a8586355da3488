"""What the columns of all trials tell."""

import math
import random

import numpy as np
import pytest

from experiments_manager.sweeps.results.analysis import analyse, front_of, importance, running_best
from experiments_manager.sweeps.state.trials import SweepState


def state_of(points):
    """Makes the state of finished trials from pairs of overrides and values."""
    state = SweepState()
    for number, (overrides, values) in enumerate(points):
        state.apply(
            {"event": "proposed", "trial": number, "point": {}, "overrides": overrides, "space": "", "by": "tpe"}
        )
        state.apply({"event": "ended", "trial": number, "state": "finished", "values": values})
    return state


@pytest.fixture
def searched():
    """Trials whose result follows from the learning rate, hardly from the units, and from nothing else."""
    chance, points = random.Random(0), []
    for _ in range(60):
        point = {
            "learning_rate": 10 ** chance.uniform(-4, 0),
            "units": chance.randint(1, 9),
            "kind": chance.choice(["a", "b"]),
            "same": 3,
        }
        if point["kind"] == "a":
            point["momentum"] = chance.random()
        points.append((point, [(math.log10(point["learning_rate"]) + 2) ** 2 + 0.02 * point["units"]]))
    return analyse(state_of(points), ["val_loss"], ["min"])


def test_the_hyperparameter_that_matters_is_the_most_important(searched):
    shares = importance(searched)
    assert next(iter(shares)) == "learning_rate"
    assert shares["learning_rate"] > 0.8
    assert sum(shares.values()) == pytest.approx(1)


def test_what_does_not_vary_is_no_dimension(searched):
    assert [dimension.name for dimension in searched.dimensions] == ["kind", "learning_rate", "momentum", "units"]


def test_scales_and_labels_follow_from_the_values(searched):
    by_name = {dimension.name: dimension for dimension in searched.dimensions}
    assert by_name["learning_rate"].logarithmic
    assert not by_name["units"].logarithmic
    assert by_name["kind"].labels == ("a", "b")
    assert np.isnan(by_name["momentum"].values).any()


def test_with_few_results_nothing_is_said_of_importance():
    assert importance(analyse(state_of([({"x": 1.0}, [1.0]), ({"x": 2.0}, [2.0])]), ["val_loss"], ["min"])) == {}


def test_the_best_so_far_follows_the_direction():
    points = [({"x": 1.0}, [2.0]), ({"x": 2.0}, [3.0]), ({"x": 3.0}, [1.0])]
    assert list(running_best(analyse(state_of(points), ["a"], ["min"]))) == [2, 2, 1]
    assert list(running_best(analyse(state_of(points), ["a"], ["max"]))) == [2, 3, 3]


def test_the_front_holds_what_nothing_else_beats():
    points = [({"x": 1.0}, [1.0, 5.0]), ({"x": 2.0}, [2.0, 2.0]), ({"x": 3.0}, [3.0, 4.0])]
    assert list(front_of(analyse(state_of(points), ["a", "b"], ["min", "min"]))) == [True, True, False]
    assert list(front_of(analyse(state_of(points), ["a", "b"], ["min", "max"]))) == [True, False, False]


def test_results_that_are_not_finite_are_left_out():
    analysis = analyse(state_of([({"x": 1.0}, ["NaN"]), ({"x": 2.0}, [2.0])]), ["a"], ["min"])
    assert len(analysis.trials) == 1

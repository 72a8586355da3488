"""Proposals follow from the seed, the trial's number and what is known, and from nothing else."""

import math
import sys

import pytest
from hyperopt import hp, rand

from experiments_manager.sweeps.errors import SweepError
from experiments_manager.sweeps.search.algorithms import Algorithm
from experiments_manager.sweeps.search.history import MOST_SHOWN, Known, shown_results
from experiments_manager.sweeps.search.spaces import Space


def space():
    kinds = [{"optimizer": "sgd", "momentum": hp.uniform("momentum", 0, 1)}, {"optimizer": "adam"}]
    return Space({"rate": hp.loguniform("rate", math.log(1e-4), 0), "kind": hp.choice("kind", kinds)})


def loss(point):
    return (math.log(point["rate"]) + 3) ** 2


def search(algorithm, trials, seed=1):
    proposals, known = Algorithm(algorithm, space(), seed), []
    for number in range(trials):
        point = proposals.propose(number, known)
        known.append(Known(number, point, loss(point)))
    return known


@pytest.mark.parametrize("algorithm", ["tpe", "random", "anneal", rand.suggest])
def test_the_same_seed_gives_the_same_proposals_and_another_seed_others(algorithm):
    first, again, other = search(algorithm, 30), search(algorithm, 30), search(algorithm, 30, seed=2)
    assert first == again
    assert first != other


@pytest.mark.parametrize("algorithm", ["tpe", "anneal"])
def test_a_proposal_does_not_depend_on_those_before_in_the_same_process(algorithm):
    known = search(algorithm, 30)
    assert Algorithm(algorithm, space(), 1).propose(29, known[:29]) == known[29].point


def test_tpe_learns_from_results():
    found = search("tpe", 60)
    early, late = ([result.loss for result in part] for part in (found[:20], found[40:]))
    assert sorted(late)[10] < sorted(early)[10]


def test_hyperopt_is_shown_the_best_and_the_newest_results_in_their_order():
    known = [Known(number, {}, float(number % 500)) for number in range(1000)]
    shown = shown_results(known)
    assert len(shown) == MOST_SHOWN
    assert [result.number for result in shown] == sorted(result.number for result in shown)
    assert known[0] in shown
    assert known[999] in shown
    assert shown_results(known[:10]) == known[:10]


def test_an_algorithm_that_fails_is_named():
    def broken(new_ids, domain, trials, seed):
        raise ValueError("no idea")

    with pytest.raises(SweepError, match="The algorithm broken failed to propose trial 3: no idea"):
        Algorithm(broken, space(), 1).propose(3, [])


def test_atpe_says_what_it_needs(monkeypatch):
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    with pytest.raises(SweepError, match=r"needs lightgbm and scikit-learn.*pip install .*lightgbm<"):
        Algorithm("atpe", space(), 1)


def test_atpe_searches_with_its_extra():
    known = search("tpe", 24)
    point = Algorithm("atpe", space(), 1).propose(24, known)
    assert point == Algorithm("atpe", space(), 1).propose(24, known)
    assert math.log(1e-4) <= math.log(point["rate"]) <= 0


def test_atpe_reads_whole_numbers_and_bounds_by_name():
    named = Space({"units": hp.uniformint("units", 2, 40), "rate": hp.uniform("rate", high=2.0, low=1.0)})
    point = Algorithm("atpe", named, 1).propose(0, [])
    assert 2 <= point["units"] <= 40
    assert 1 <= point["rate"] <= 2
    assert isinstance(named.overrides(point)["units"], int)


def test_a_grid_ends():
    grid = Algorithm("grid", Space({"a": hp.choice("a", [1, 2]), "b": hp.choice("b", [3, 4])}), 1)
    points = [grid.propose(number, []) for number in (0, 1, 2, 3, 4)]
    assert points[4] is None
    assert len({tuple(point.items()) for point in points[:4]}) == 4
    assert grid.propose(1, []) == points[1]

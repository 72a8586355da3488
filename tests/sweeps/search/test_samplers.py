"""Samplers of other libraries over hyperopt's spaces: deterministic, aware of what runs, and better than chance."""

import importlib
import math
import statistics

import pytest
from hyperopt import hp

from experiments_manager.sweeps.errors import SweepError
from experiments_manager.sweeps.search import samplers
from experiments_manager.sweeps.search.algorithms import Algorithm, automatic_algorithm
from experiments_manager.sweeps.search.history import Known
from experiments_manager.sweeps.search.spaces import Space, SpaceError


def importable(name):
    return pytest.param(name, marks=pytest.mark.skipif(bool(samplers.missing_modules(name)), reason="needs PyTorch"))


EVERY = [importable("gp"), "optuna-tpe", "cma-es", "qmc"]


def space():
    kinds = [{"optimizer": "sgd", "momentum": hp.uniform("momentum", 0, 1)}, {"optimizer": "adam"}]
    names = {"rate": hp.loguniform("rate", math.log(1e-4), 0), "kind": hp.choice("kind", kinds)}
    return Space({**names, "units": hp.quniform("units", 4, 64, 4), "width": hp.lognormal("width", 0, 1)})


def loss(point):
    kind = 0.5 if point["kind"] else (point["momentum"] - 0.7) ** 2
    return kind + (math.log10(point["rate"]) + 2) ** 2 + abs(point["units"] - 32) / 32 + abs(point["width"] - 1) / 4


def search(algorithm, trials, seed=1):
    proposals, known = Algorithm(algorithm, space(), seed), []
    for number in range(trials):
        point = proposals.propose(number, known)
        known.append(Known(number, point, loss(point)))
    return known


@pytest.mark.parametrize("algorithm", EVERY)
def test_a_proposal_follows_from_seed_number_results_and_what_runs_alone(algorithm):
    known = search(algorithm, 24)
    pending = [known[21].point, known[22].point]
    fresh = [Algorithm(algorithm, space(), 1).propose(23, known[:20], pending) for _ in range(2)]
    assert fresh[0] == fresh[1]
    assert Algorithm(algorithm, space(), 1).propose(23, known[:23]) == known[23].point
    assert Algorithm(algorithm, space(), 2).propose(23, known[:23]) != known[23].point


@pytest.mark.parametrize("algorithm", EVERY)
def test_each_point_lies_in_the_space_and_holds_the_labels_of_its_branch_alone(algorithm):
    for result in search(algorithm, 24):
        assert space().point_for(space().overrides(result.point)) is not None
        assert ("momentum" in result.point) == (result.point["kind"] == 0)
        assert result.point["units"] % 4 == 0


@pytest.mark.parametrize("algorithm", ["optuna-tpe", "cma-es"])
def test_a_model_of_the_results_finds_better_points_than_chance(algorithm):
    best = [
        [min(result.loss for result in search(name, 60, seed)) for seed in range(5)] for name in (algorithm, "random")
    ]
    assert statistics.median(best[0]) < statistics.median(best[1])


@pytest.mark.parametrize("algorithm", [importable("gp"), "optuna-tpe"])
def test_trials_that_run_keep_proposals_away(algorithm):
    line = Space({"x": hp.uniform("x", 0, 1)})
    known = [Known(number, {"x": number / 15}, (number / 15 - 0.4) ** 2) for number in range(16)]
    proposals = Algorithm(algorithm, line, 1)
    alone, pending = proposals.propose(16, known), []
    for number in range(16, 22):
        pending.append(proposals.propose(number, known, pending))
    assert pending[0] == alone
    assert len({round(point["x"], 4) for point in pending}) == 6
    crowd = [{"x": alone["x"]}] * 8
    assert proposals.propose(16, known, crowd) != alone


@pytest.mark.parametrize("algorithm", ["optuna-tpe", "tpe", "anneal", "random"])
def test_a_point_that_was_tried_is_not_tried_again_while_there_are_others(algorithm):
    choices = Space({"a": hp.choice("a", [1, 2, 3]), "b": hp.choice("b", ["x", "y"])})
    proposals, known = Algorithm(algorithm, choices, 3), []
    for number in range(5):
        known.append(Known(number, proposals.propose(number, known), float(number)))
    assert len({tuple(result.point.items()) for result in known}) == 5


def test_cma_es_begins_again_where_it_has_converged():
    flat = Space({"x": hp.uniform("x", 0, 1), "y": hp.uniform("y", 0, 1)})
    known = [Known(number, {"x": 0.25, "y": 0.25}, 1.0) for number in range(600)]
    found = [Algorithm("cma-es", flat, 1).propose(number, known[:number])["x"] for number in range(60, 600, 30)]
    close = next(place for place, x in enumerate(found) if abs(x - 0.25) < 0.02)
    assert any(abs(x - 0.25) > 0.15 for x in found[close:])


def test_what_cannot_be_searched_is_said_before_the_first_trial():
    with pytest.raises(SpaceError, match="CMA-ES needs at least one number"):
        Algorithm("cma-es", Space({"a": hp.choice("a", [1, 2])}), 1)


def test_a_library_that_is_missing_is_named_and_not_chosen_automatically(monkeypatch):
    def without_optuna(name, package=None):
        if name in ("optuna", "torch"):
            raise ImportError(name)
        return importlib.__import__(name)

    assert automatic_algorithm() == "optuna-tpe"
    assert automatic_algorithm("anneal") == "anneal"
    monkeypatch.setattr(samplers.importlib, "import_module", without_optuna)
    assert automatic_algorithm("optuna-tpe") == "anneal"
    with pytest.raises(SweepError, match=r"'optuna-tpe' needs optuna, which cannot be imported.*pip install .*optuna"):
        Algorithm("optuna-tpe", space(), 1)
    with pytest.raises(SweepError, match=r"'gp' needs optuna and torch.*torch"):
        Algorithm("gp", space(), 1)

"""Points of a space, the values that they stand for, and the way back."""

import math

import pytest
from hyperopt import hp
from hyperopt.pyll import scope

from experiments_manager.sweeps.search.spaces import Space, SpaceError

CONDITIONAL = {
    "learning_rate": hp.loguniform("learning_rate", math.log(1e-4), 0),
    "units": scope.int(hp.quniform("units", 2, 8, 2)),
    "layers": hp.choice("layers", [[16], [16, 32]]),
    "kind": hp.choice("kind", [{"optimizer": "sgd", "momentum": hp.uniform("momentum", 0, 1)}, {"optimizer": "adam"}]),
    "noise": 0.1,
}


@pytest.mark.parametrize("seed", range(8))
def test_the_values_of_a_point_lead_back_to_the_point(seed):
    space = Space(CONDITIONAL)
    point = space.sample(seed)
    assert space.point_for(space.overrides(point)) == point


def test_a_branch_that_is_not_chosen_sets_none_of_its_names():
    space = Space(CONDITIONAL)
    values = [space.overrides(space.sample(seed)) for seed in range(20)]
    with_momentum = [found for found in values if "momentum" in found]
    assert {found["optimizer"] for found in with_momentum} == {"sgd"}
    assert {found["optimizer"] for found in values if found not in with_momentum} == {"adam"}
    assert set(space.names) == {"learning_rate", "units", "layers", "optimizer", "momentum", "noise"}


def test_values_are_pythons_own():
    found = Space(CONDITIONAL).overrides(Space(CONDITIONAL).sample(1))
    assert {type(value) for value in found.values()} <= {int, float, str, list}
    assert all(isinstance(item, int) for item in found["layers"])


@pytest.mark.parametrize(
    "values",
    [
        {"learning_rate": 2.0, "units": 4, "layers": [16], "optimizer": "adam", "noise": 0.1},
        {"learning_rate": 0.1, "units": 4, "layers": [17], "optimizer": "adam", "noise": 0.1},
        {"learning_rate": 0.1, "units": 4, "layers": [16], "optimizer": "adam", "momentum": 0.5, "noise": 0.1},
        {"learning_rate": 0.1, "units": 4, "layers": [16], "optimizer": "adam"},
    ],
)
def test_values_outside_of_the_space_have_no_point(values):
    assert Space(CONDITIONAL).point_for(values) is None


def test_a_grid_goes_through_every_point_of_every_branch_once():
    space = Space(
        {
            "a": hp.choice("a", [1, 2]),
            "b": hp.quniform("b", 0, 1, 0.5),
            "kind": hp.choice("kind", [{"optimizer": "sgd", "m": hp.randint("m", 2)}, {"optimizer": "adam"}]),
        }
    )
    found = [tuple(sorted(space.overrides(point).items())) for point in space.grid()]
    assert len(found) == len(set(found)) == space.grid_size() == 2 * 3 * 3


def test_a_grid_of_a_continuous_space_is_refused():
    with pytest.raises(SpaceError, match="finitely many values.*got uniform for 'x'"):
        Space({"x": hp.uniform("x", 0, 1)}).grid_size()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"a": hp.uniform("x", 0, 1), "b": hp.uniform("x", 0, 2)}, "the label 'x' is given twice"),
        ({"a": 1}, "nothing varies"),
        ({3: hp.uniform("x", 0, 1)}, "no text"),
    ],
)
def test_what_cannot_be_searched_is_refused(given, said):
    with pytest.raises(SpaceError, match=said):
        Space(given)


def test_a_wider_space_has_another_digest_and_the_same_one_the_same():
    narrow, again, wide = (Space({"x": hp.uniform("x", 0, high)}) for high in (1, 1, 2))
    assert narrow.digest == again.digest != wide.digest

"""Every distribution of hyperopt as numbers that another sampler can work on, and back."""

from math import log

import numpy as np
import pytest
from hyperopt import hp

from experiments_manager.sweeps.search.dimensions import dimensions
from experiments_manager.sweeps.search.spaces import Space, SpaceError


@pytest.fixture(scope="module")
def space():
    nested = hp.choice("inner", [2, hp.uniform("deep", 0, 1)])
    return Space(
        {
            "uniform": hp.uniform("uniform", -1, 2),
            "quniform": hp.quniform("quniform", 3, 17, 0.25),
            "loguniform": hp.loguniform("loguniform", log(1e-4), 0),
            "qloguniform": hp.qloguniform("qloguniform", 0, log(100), 5),
            "normal": hp.normal("normal", 3, 2),
            "qnormal": hp.qnormal("qnormal", 3, 2, 1),
            "lognormal": hp.lognormal("lognormal", 0, 1),
            "qlognormal": hp.qlognormal("qlognormal", 0, 1, 0.5),
            "randint": hp.randint("randint", 5),
            "between": hp.randint("between", 3, 9),
            "uniformint": hp.uniformint("uniformint", 2, 40),
            "pchoice": hp.pchoice("pchoice", [(0.7, "x"), (0.3, {"branch": hp.uniform("branch", high=4, low=1)})]),
            "choice": hp.choice("choice", [1, nested]),
            "list": [hp.uniform("first", 0, 1), hp.choice("second", [4, 5])],
        }
    )


def test_a_value_of_any_distribution_is_given_back_by_its_latent_number(space):
    found = dimensions(space)
    for number in range(100):
        for label, value in space.sample(number).items():
            dimension = found[label]
            latent = dimension.latent(value)
            assert type(dimension.value(latent)) is type(value), label
            assert dimension.value(latent) == pytest.approx(value, rel=1e-6, abs=1e-9), label
            if not dimension.shares:
                assert dimension.of_unit(dimension.unit(latent)) == pytest.approx(latent), label


def test_points_at_quantiles_lie_in_the_space_and_have_the_labels_of_the_chosen_branches_alone(space):
    found, random = dimensions(space), np.random.default_rng(0)
    branches = 0
    for _ in range(100):
        point = space.point_by(lambda label: found[label].value(found[label].of_unit(random.random())))
        overrides = space.overrides(point)
        assert space.point_for(overrides) is not None
        assert ("branch" in point) == (point["pchoice"] == 1) == ("branch" in overrides)
        branches += "branch" in point
    assert 15 < branches < 45  # hp.pchoice gives it three times in ten


def test_quantiles_follow_the_distribution(space):
    found = dimensions(space)
    middle = {label: dimension.value(dimension.of_unit(0.5)) for label, dimension in found.items()}
    assert middle["normal"] == pytest.approx(3)
    assert middle["lognormal"] == pytest.approx(1)
    assert middle["loguniform"] == pytest.approx(1e-2)
    assert found["normal"].value(found["normal"].of_unit(0.975)) == pytest.approx(3 + 2 * 1.96, rel=1e-3)


def test_bounds_that_depend_on_another_hyperparameter_are_refused_by_label():
    with pytest.raises(SpaceError, match="depends on another hyperparameter") as caught:
        dimensions(Space({"a": hp.uniform("a", 0, hp.uniform("b", 1, 2))}))
    assert caught.value.key == "a"

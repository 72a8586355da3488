"""What a strategy draws follows from the seed and the place alone."""

import random

import numpy as np
import pytest

from experiments_manager.federated.server.seeds import seeded


def drawn(*place):
    with seeded(*place):
        return random.random(), np.random.random()


def test_the_same_place_draws_the_same():
    first = drawn(3, 1, 0)
    random.random()
    np.random.random()
    assert drawn(3, 1, 0) == first


@pytest.mark.parametrize("place", [(4, 1, 0), (3, 2, 0), (3, 1, 1), (-3, 1, 0), (3, 0, 1), (3, 1, -5)])
def test_another_place_draws_something_else(place):
    assert all(a != b for a, b in zip(drawn(*place), drawn(3, 1, 0), strict=True))


def test_the_generators_go_on_where_they_were_also_after_an_error():
    random.seed(1)
    np.random.seed(1)
    expected = random.random(), np.random.random()
    random.seed(1)
    np.random.seed(1)
    with pytest.raises(ZeroDivisionError), seeded(3):
        1 / 0  # noqa: B018
    assert (random.random(), np.random.random()) == expected

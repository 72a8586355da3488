"""Images in splits."""

import collections

import pytest

from experiments_manager.data import DataFileError
from experiments_manager.data.detection import split_images

NAMES = [f"{number}.png" for number in range(100)]


def test_shares_are_kept_to_the_image():
    assert collections.Counter(split_images(NAMES).values()) == {"train": 80, "validation": 10, "test": 10}


def test_the_order_of_the_names_does_not_matter():
    assert split_images(NAMES[::-1]) == split_images(NAMES)


def test_another_seed_gives_other_splits():
    assert split_images(NAMES, seed=1) != split_images(NAMES)


def test_a_new_image_moves_few_others():
    before, after = split_images(NAMES), split_images([*NAMES, "new.png"])
    assert sum(before[name] != after[name] for name in NAMES) <= 2


@pytest.mark.parametrize("shares", [{}, {"train": 0.8, "test": 0.1}, {"train": 1.5, "test": -0.5}])
def test_shares_that_do_not_add_up_are_refused(shares):
    with pytest.raises(DataFileError, match="Expected numbers that add up to 1"):
        split_images(NAMES, shares)


def test_a_split_without_an_image_is_refused():
    with pytest.raises(DataFileError, match="'test' gets no image: 3 images, of which it gets 10%"):
        split_images(NAMES[:3])

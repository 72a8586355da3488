"""Batches of crops and tiles."""

import concurrent.futures
import os

import numpy as np
import pytest

from experiments_manager.data import DataFileError
from experiments_manager.data.patches import IGNORED, read_pairs
from experiments_manager.data.patches.batches import RandomCrops, Tiles


def unchanged(image, labels, generator):
    return image, labels


@pytest.fixture
def pairs(write_pair, quarters):
    write_pair("a", quarters)
    return read_pairs(write_pair("b", np.zeros((50, 50), np.uint8)), 3)


def crops(pairs, **options):
    return RandomCrops(pairs, 16, 8, **{"batches": 20, "seed": 1, "balance": 1.0, "augment": unchanged} | options)


def test_crops_follow_from_seed_epoch_and_index_alone(pairs):
    first, again = crops(pairs).batch_of_epoch(3, 7), crops(pairs).batch_of_epoch(3, 7)
    assert all(np.array_equal(*parts) for parts in zip(first, again, strict=True))
    for other in (crops(pairs).batch_of_epoch(4, 7), crops(pairs).batch_of_epoch(3, 8), crops(pairs, seed=2)[7]):
        assert not np.array_equal(first[0], other[0])


def test_threads_that_cut_crops_at_once_cut_the_same(pairs):
    source, indices = crops(pairs, augment=None), [*range(20)] * 5
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        at_once = list(pool.map(lambda index: source.batch_of_epoch(1, index), indices))
    for index, batch in zip(indices, at_once, strict=True):
        assert all(map(np.array_equal, batch, crops(pairs, augment=None).batch_of_epoch(1, index)))


def test_processors_are_used_unless_it_is_said_otherwise(pairs):
    assert crops(pairs).workers == Tiles(pairs, 16, 8).workers == min(4, os.cpu_count())
    assert crops(pairs, workers=1).workers == Tiles(pairs, 16, 8, workers=1).workers == 1


def test_crops_are_cut_from_image_and_labels_at_the_same_place(pairs):
    images, labels = crops(pairs)[0]
    assert images.shape == (8, 16, 16, 3)
    assert labels.shape == (8, 16, 16)
    wholes = [(pair.image_window(0, 0, *pair.size), pair.label_window(0, 0, *pair.size)) for pair in pairs]
    for image, classes in zip(images, labels, strict=True):
        assert any(
            np.array_equal(whole[top : top + 16, left : left + 16], image)
            and np.array_equal(truth[top : top + 16, left : left + 16], classes)
            for whole, truth in wholes
            for top in range(truth.shape[0] - 15)
            for left in range(truth.shape[1] - 15)
        )


def test_balance_gives_each_class_its_share_of_the_crops(pairs):
    def share_with_class_2(balance):
        source = crops(pairs, balance=balance)
        return np.mean([(labels == 2).any() for index in range(20) for labels in source[index][1]])

    assert share_with_class_2(1.0) > 1 / 3 - 0.1
    assert share_with_class_2(0.0) < 0.2


def test_by_default_crops_are_mirrored_and_turned_with_their_labels(write_pair):
    labels = np.random.default_rng(0).integers(0, 3, size=(16, 16)).astype(np.uint8)
    (pair,) = read_pairs(write_pair("a", labels, image=np.repeat(labels[..., None], 3, axis=2)), 3)
    images, classes = RandomCrops([pair], 16, 32, batches=1, seed=0)[0]
    assert np.array_equal(np.rint(images[..., 0] * 255), classes)
    assert len({each.tobytes() for each in classes}) == 8


def test_tiles_show_each_pixel_and_count_each_label_once(pairs, quarters):
    tiles = Tiles(pairs, 16, 5, overlap=4)
    labels = np.concatenate([tiles[index][1] for index in range(len(tiles))])
    assert np.bincount(labels[labels != IGNORED]).tolist() == sum(pair.pixels for pair in pairs).tolist()


def test_what_no_crop_can_be_taken_from_is_refused_at_once(pairs):
    with pytest.raises(DataFileError) as caught:
        RandomCrops(pairs, 45, 8, batches=1, seed=0, balance=1.5)
    assert "a.png is 40x60" in str(caught.value)
    assert "balance is 1.5" in str(caught.value)
    with pytest.raises(DataFileError, match="No pairs"):
        RandomCrops([], 16, 8, batches=1, seed=0)

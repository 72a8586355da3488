"""Thumbnails in a grid, read back as pictures."""

import io

import numpy as np
import pytest
from PIL import Image

from experiments_manager.monitoring.tensorboard.sprites import LARGEST_SPRITE, as_bytes, shrink, sprite


def read(png):
    return np.asarray(Image.open(io.BytesIO(png)))


def test_thumbnails_stand_row_by_row():
    images = np.arange(5, dtype=np.uint8).reshape(5, 1, 1, 1) * np.full([1, 32, 32, 1], 50, np.uint8)
    png, size = sprite(images)
    picture = read(png)
    assert size == (32, 32)
    assert picture.shape == (64, 96)
    assert picture[::32, ::32].tolist() == [[0, 50, 100], [150, 200, 0]]


def test_colours_and_proportions_are_kept():
    images = np.zeros([2, 100, 200, 3], np.float32)
    images[..., 0] = 1.0
    png, size = sprite(images)
    assert size == (64, 32)
    assert read(png).shape == (32, 128, 3)
    assert read(png)[0, 0].tolist() == [255, 0, 0]


def test_small_images_are_enlarged_with_sharp_pixels():
    images = np.zeros([1, 8, 8, 1], np.float32)
    images[0, 0, 0] = 1.0
    png, size = sprite(images)
    assert size == (32, 32)
    assert read(png)[:5, :5].tolist() == [[255] * 4 + [0]] * 4 + [[0] * 5]


@pytest.mark.parametrize("count", [20_000])
def test_however_many_there_are_the_projector_accepts_the_sprite(count):
    png, (width, height) = sprite(np.zeros([count, 64, 32, 1], np.uint8))
    picture = read(png)
    assert max(picture.shape) <= LARGEST_SPRITE
    assert (picture.shape[1] // width) * (picture.shape[0] // height) >= count


@pytest.mark.parametrize(
    ("values", "expected"),
    [([0, 128, 255], [0, 128, 255]), ([0.0, 0.5, 1.0], [0, 128, 255]), ([0.0, 2.0, 255.0], [0, 2, 255])]
    + [([-1.0, 0.0, 1.0], [0, 128, 255]), ([3.0, 3.0], [3, 3]), ([np.nan, 1.0], [0, 255]), ([-2.0, -2.0], [0, 0])],
    ids=str,
)
def test_any_range_of_values_is_brought_to_bytes(values, expected):
    kind = np.uint8 if isinstance(values[0], int) else np.float32
    assert as_bytes(np.array(values, kind)).tolist() == expected


def test_large_images_are_averaged_over_blocks():
    images = np.repeat(np.repeat(np.arange(4, dtype=np.uint8).reshape(1, 2, 2, 1), 128, axis=1), 128, axis=2)
    small = shrink(images)
    assert (small.shape, small.dtype) == ((1, 64, 64, 1), np.uint8)
    assert small[0, ::32, ::32, 0].tolist() == [[0, 1], [2, 3]]


@pytest.mark.parametrize("shape", [(1, 8, 8, 3), (1, 64, 50, 1), (1, 1000, 1, 3)], ids=str)
def test_small_and_slender_images_stay_as_they_are(shape):
    assert shrink(np.zeros(shape)).shape == shape

"""Arrays that are pictures, for people to see."""

import io

import numpy as np
import pytest
from PIL import Image

from experiments_manager.kafka.inspection.thumbnails import as_png, is_picture, thumbnails


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.zeros([8, 9, 1], np.uint8), True),
        (np.ones([8, 9, 3], np.float32), True),
        (np.full([8, 9, 3], 1.5, np.float32), False),
        (np.full([8, 9, 3], np.nan, np.float32), False),
        (np.zeros([8, 9, 2], np.uint8), False),
        (np.zeros([8, 9, 1], np.int64), False),
        (np.zeros([2, 9, 1], np.uint8), False),
        (np.zeros([9], np.uint8), False),
    ],
)
def test_pictures_are_told_from_other_arrays(array, expected):
    assert is_picture(array) is expected


def test_numbers_from_0_to_1_become_bytes():
    picture = np.linspace(0, 1, 16, dtype=np.float32).reshape(4, 4, 1)
    image = np.asarray(Image.open(io.BytesIO(as_png(picture))))
    assert image.shape == (4, 4, 3)
    assert (image[0, 0, 0], image[3, 3, 0]) == (0, 255)


def test_two_pixels_share_a_character_and_what_does_not_fit_is_left_out():
    pictures = [np.zeros([5, 6, 3], np.uint8)] * 4
    lines = thumbnails(pictures, columns=15).plain.splitlines()
    assert lines == [("▀" * 6 + " ") * 2] * 3

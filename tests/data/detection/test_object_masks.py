"""Masks of objects: read from image files, taken from COCO's forms, put into their places in an image."""

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from experiments_manager.data.detection import image_masks
from experiments_manager.data.detection.object_masks import (
    decoded_mask,
    encoded_mask,
    png_of_mask,
    problem_of_mask,
    read_mask_image,
)

SIZE = (13, 7)  # width and height
SQUARE = np.zeros(SIZE[::-1], bool)
SQUARE[2:5, 3:9] = True


@pytest.mark.parametrize("mode", ["1", "L", "P", "I;16", "I"])
def test_files_of_one_channel_give_their_values(tmp_path, mode):
    values = SQUARE.astype(np.uint8) * (1 if mode == "1" else 3)
    image = Image.fromarray(values * 255).convert("1") if mode == "1" else Image.fromarray(values)
    if mode == "P":
        image.putpalette(list(range(256)) * 3)
    elif mode in ("I;16", "I"):
        image = Image.fromarray(values.astype(np.uint16 if mode == "I;16" else np.int32) * 300)
    file = tmp_path / ("mask.tif" if mode == "I" else "mask.png")
    image.save(file)
    expected = SQUARE * {"1": 1, "I;16": 900, "I": 900}.get(mode, 3)
    assert np.array_equal(read_mask_image(file, SIZE), expected)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda file: None, "not found. Add it"),
        (lambda file: file.write_bytes(b"no image"), "cannot be decoded"),
        (lambda file: file.write_bytes(png_of_mask(SQUARE)[:60]), "cannot be decoded"),
        (lambda file: Image.new("RGB", SIZE).save(file), "has the channels R, G, B. Expected a single one"),
        (lambda file: Image.new("L", (13, 8)).save(file), "is 13 x 8 pixels. Expected 13 x 7, as its image is."),
    ],
)
def test_files_that_are_no_masks_of_the_image_are_told(tmp_path, write, message):
    write(tmp_path / "mask.png")
    assert message in read_mask_image(tmp_path / "mask.png", SIZE)


def test_a_mask_has_pixels_and_lies_in_its_box():
    assert problem_of_mask(SQUARE, (3, 2, 9, 5)) is None
    assert problem_of_mask(SQUARE, (5.5, 2, 9, 5)) is None, "it may be larger than a box that was drawn by hand"
    assert "has no pixel" in problem_of_mask(SQUARE & False, (3, 2, 9, 5))
    assert "15 of the 18 pixels of its mask lie outside of its box." in problem_of_mask(SQUARE, (0, 0, 4, 7))


@pytest.mark.parametrize("seed", range(20))
def test_run_lengths_as_text_and_as_numbers_are_those_of_pycocotools(seed):
    generator = np.random.default_rng(seed)
    width, height = generator.integers(1, 300, 2)
    noise = generator.random((height, width)) < generator.choice([0.001, 0.5, 0.999])
    mask = np.cumsum(noise, axis=0) % 2 == 1  # long runs and short ones
    encoded = encoded_mask(mask)
    assert encoded["size"] == [height, width]
    assert np.array_equal(decoded_mask(encoded, (width, height)), mask)
    column_by_column = mask.T.ravel()
    ends = np.flatnonzero(np.diff(np.concatenate([[False], column_by_column])))
    numbers = np.diff(np.concatenate([[0], ends, [mask.size]])).tolist()
    assert np.array_equal(decoded_mask({"size": [height, width], "counts": numbers}, (width, height)), mask)


def test_polygons_are_those_of_pycocotools():
    polygons = [[1, 1, 6, 1, 6, 5, 1, 5], [8, 2, 12, 2, 10, 6.5]]
    expected = coco.decode(coco.merge(coco.frPyObjects([[float(x) for x in each] for each in polygons], 7, 13)))
    assert np.array_equal(decoded_mask(polygons, SIZE), expected.astype(bool))
    assert decoded_mask(polygons, SIZE).sum() > 20


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ([], "its segmentation is empty"),
        ([[1, 1, 5, 5]], "a polygon of its segmentation is none"),
        ([[1, 1, 5, 5, 2]], "a polygon of its segmentation is none"),
        ([[1, 1, 5, float("nan"), 2, 2]], "a polygon of its segmentation is none"),
        ([1, 1, 5, 5, 2, 2], "a polygon of its segmentation is none"),
        ("text", "has no polygons and no run lengths"),
        (None, "has no polygons and no run lengths"),
        ({"counts": [91]}, "has no polygons and no run lengths"),
        ({"size": [13, 7], "counts": [91]}, "the size of its run lengths is [13, 7]. Expected [7, 13]"),
        ({"size": [7, 13], "counts": [90]}, "its run lengths add up to 90 pixels. Expected 91"),
        ({"size": [7, 13], "counts": [92, -1]}, "its run lengths cannot be read"),
        ({"size": [7, 13], "counts": [90.0, 1]}, "its run lengths cannot be read"),
        ({"size": [7, 13], "counts": 91}, "its run lengths cannot be read"),
        ({"size": [7, 13], "counts": ""}, "its run lengths add up to 0 pixels. Expected 91"),
        ({"size": [7, 13], "counts": "\x00ÿ"}, "its run lengths cannot be read"),
        ({"size": [7, 13], "counts": encoded_mask(SQUARE)["counts"][:-2]}, "its run lengths "),
    ],
)
def test_what_is_no_segmentation_is_told(segmentation, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011  (the message follows)
        decoded_mask(segmentation, SIZE)
    assert message in str(caught.value)


@pytest.mark.parametrize("seed", range(200))
def test_damaged_text_is_told_or_gives_a_mask(seed):
    generator = np.random.default_rng(seed)
    text = list(encoded_mask(SQUARE)["counts"])
    text[generator.integers(len(text))] = chr(generator.integers(1, 128))
    try:
        mask = decoded_mask({"size": [7, 13], "counts": "".join(text)}, SIZE)
    except ValueError:
        return
    assert mask.shape == (7, 13)


def found(box, mask):
    ymin, xmin, ymax, xmax = box
    parts = [ymin / SIZE[1], xmin / SIZE[0], ymax / SIZE[1], xmax / SIZE[0]]
    return {
        "detection_boxes": np.array([parts, [0] * 4], np.float32),
        "detection_masks": np.array([mask, np.zeros_like(mask)], np.float32),
        "num_detections": np.float32(1),
    }


def test_a_full_mask_fills_its_box():
    assert np.array_equal(image_masks(found((2, 3, 5, 9), np.ones((28, 28))), *SIZE), [SQUARE])


def test_a_mask_has_its_place_in_the_box():
    mask = np.zeros((4, 6))
    mask[:, 3:] = 1
    expected = SQUARE.copy()
    expected[:, :6] = False
    assert np.array_equal(image_masks(found((2, 3, 5, 9), mask), *SIZE), [expected])


def test_boxes_that_leave_the_image_and_empty_ones_are_no_error():
    masks = image_masks(found((-2, -3, 20, 30), np.ones((28, 28))), *SIZE)
    assert masks.all()
    assert not image_masks(found((2, 3, 2, 3), np.ones((28, 28))), *SIZE).any()

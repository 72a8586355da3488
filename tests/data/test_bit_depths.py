"""Pictures of any bit depth as bytes."""

import json

import numpy as np
import pytest
from PIL import Image

from experiments_manager.data import DataFileError
from experiments_manager.data.bit_depths import as_bytes
from experiments_manager.data.detection.image_files import encoded_image
from experiments_manager.data.image_folders import read_image_folders

LEVELS = np.array([[0, 257, 300, 32768], [40000, 65000, 65278, 65535]], np.uint16)
BYTES = np.rint(LEVELS / 257).astype(np.uint8)


@pytest.mark.parametrize("ending", ["png", "tif"])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_sixteen_bits_are_scaled_and_not_cut_off(tmp_path, ending, mode):
    Image.fromarray(LEVELS).save(tmp_path / f"a.{ending}")
    with Image.open(tmp_path / f"a.{ending}") as opened:
        converted = as_bytes(opened, mode, opened.format)
    assert converted.mode == mode
    pixels = np.asarray(converted)
    assert np.array_equal(pixels if mode == "L" else pixels[..., 0], BYTES)


def test_other_pictures_are_converted_as_pillow_does_it():
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8))
    for mode in ("L", "RGB", "RGBA"):
        assert np.array_equal(as_bytes(picture, mode, "PNG"), picture.convert(mode))


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_pixels_of_which_nobody_knows_what_is_white_are_refused(tmp_path, dtype):
    Image.fromarray(LEVELS.astype(dtype)).save(tmp_path / "a.tif")
    with Image.open(tmp_path / "a.tif") as opened, pytest.raises(ValueError, match="its pixels have 32 bits"):
        as_bytes(opened, "L", opened.format)


def test_folders_of_microscope_images_keep_their_greys(tmp_path):
    for name in ("cell", "debris"):
        (tmp_path / "train" / name).mkdir(parents=True)
        Image.fromarray(LEVELS).save(tmp_path / "train" / name / "a.tif")
    read = read_image_folders(tmp_path, "train", (2, 4), channels=1)
    assert np.allclose(read.images[0, ..., 0] * 255, BYTES, atol=1e-3)
    Image.fromarray(LEVELS.astype(np.float32)).save(tmp_path / "train" / "cell" / "b.tif")
    with pytest.raises(DataFileError, match=r"b.tif cannot be read as an image \(its pixels have 32 bits"):
        read_image_folders(tmp_path, "train", (2, 4), channels=1)


def test_tiffs_with_boxes_are_stored_with_their_greys(tmp_path):
    from experiments_manager.data.detection import coco_to_tfrecord

    Image.fromarray(LEVELS).save(tmp_path / "a.tif")
    (tmp_path / "png").write_bytes(encoded_image(tmp_path / "a.tif")[0])
    assert np.array_equal(np.asarray(Image.open(tmp_path / "png"))[..., 0], BYTES)
    Image.fromarray(LEVELS.astype(np.float32)).save(tmp_path / "a.tif")
    images = [{"id": 1, "file_name": "a.tif", "width": 4, "height": 2}]
    content = {"images": images, "annotations": [], "categories": [{"id": 1, "name": "cell"}]}
    (tmp_path / "train.json").write_text(json.dumps(content))
    with pytest.raises(DataFileError, match="cannot be decoded .its pixels have 32 bits"):
        coco_to_tfrecord(tmp_path / "train.json", tmp_path, tmp_path / "records")
    assert not (tmp_path / "records").exists()

"""Folders of images read into arrays."""

import re

import numpy as np
import pytest
from PIL import Image, ImageOps

from experiments_manager.data import DataFileError, read_image_table


@pytest.fixture
def folder(tmp_path):
    """Four grey images of 3x2 pixels, each of one level of grey, 0, 50, 100 and 150."""
    rows = ["file,label,split"]
    for number in range(4):
        Image.fromarray(np.full((3, 2), 50 * number, np.uint8)).save(tmp_path / f"{number}.png")
        rows.append(f"{number}.png,{'cat' if number % 2 else 'dog'},{'test' if number == 3 else 'train'}")
    (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n")
    return tmp_path


def read(folder, **options):
    return read_image_table(folder, **{"class_names": ["cat", "dog"], "channels": 1, **options})


def test_images_come_as_floats_between_0_and_1_in_the_order_of_the_table(folder):
    images, labels = read(folder, split="train")
    assert images.shape == (3, 3, 2, 1)
    assert images.dtype == np.float32
    assert images[:, 0, 0, 0] == pytest.approx([0, 50 / 255, 100 / 255])
    assert labels.tolist() == [1, 0, 1]


def test_every_pixel_stays_in_its_place(tmp_path):
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    (tmp_path / "labels.csv").write_text("file,label\na.png,0\n")
    images, _ = read_image_table(tmp_path)
    assert np.round(images[0] * 255).astype(int).tolist() == pixels.tolist()


def test_grey_images_can_be_read_as_colour(folder):
    images, _ = read(folder, channels=3)
    assert images.shape == (4, 3, 2, 3)


def test_jpeg_and_images_in_folders_below_are_read(folder):
    (folder / "more").mkdir()
    Image.fromarray(np.full((3, 2), 200, np.uint8)).save(folder / "more" / "a.jpg")
    (folder / "labels.csv").write_text("file,label\n0.png,0\nmore/a.jpg,1\n")
    images, _ = read(folder)
    assert images[1].mean() == pytest.approx(200 / 255, abs=0.02)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [None, (8, 6)])
def test_a_photograph_is_turned_as_the_camera_noted(tmp_path, orientation, size):
    greys = np.arange(0, 240, 10, dtype=np.uint8).reshape(4, 6).repeat(8, 0).repeat(8, 1)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(greys).save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as opened:
        upright = ImageOps.exif_transpose(opened)
    (tmp_path / "labels.csv").write_text("file,label\na.png,0\n")
    images, _ = read_image_table(tmp_path, channels=1, size=size)
    if size:
        upright = upright.resize(size[::-1], Image.Resampling.BILINEAR)
    assert np.allclose(images[0, ..., 0] * 255, np.asarray(upright), atol=2)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(
    "name", ["p.bmp", "p.png", "p.gif", "l.bmp", "l.png", "rgb.bmp", "rgb.webp", "rgb.tif", "cmyk.jpg"]
)
def test_images_of_any_format_and_kind_are_converted(tmp_path, name, channels):
    colours = Image.fromarray(np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8))
    kind = name.split(".")[0]
    (colours.quantize(16) if kind == "p" else colours.convert(kind.upper())).save(tmp_path / name)
    (tmp_path / "labels.csv").write_text(f"file,label\n{name},0\n")
    images, _ = read_image_table(tmp_path, channels=channels)
    with Image.open(tmp_path / name) as opened:
        expected = np.asarray(opened.convert({1: "L", 3: "RGB", 4: "RGBA"}[channels]))
    assert np.allclose(images[0] * 255, expected.reshape(4, 6, channels), atol=1e-3)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_images_of_16_bits_are_read_to_the_last(tmp_path, channels):
    levels = np.array([[0, 257, 300], [40000, 65000, 65535]], np.uint16)
    Image.fromarray(levels).save(tmp_path / "a.png")
    (tmp_path / "labels.csv").write_text("file,label\na.png,0\n")
    images, _ = read_image_table(tmp_path, channels=channels)
    assert images.shape == (1, 2, 3, channels)
    assert np.allclose(images[0, ..., 0] * 65535, levels, atol=0.02)
    assert channels < 4 or (images[..., 3] == 1).all()


def test_channels_that_no_image_has_are_refused(folder):
    with pytest.raises(DataFileError, match="channels is 2. Expected 1, 3 or 4."):
        read(folder, channels=2)


def test_images_of_different_sizes_need_a_size(folder):
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(folder / "2.png")
    with pytest.raises(
        DataFileError, match=re.escape("2.png is 4x4 (height x width). Expected 3x2 like the images before")
    ):
        read(folder)
    images, _ = read(folder, size=(8, 6))
    assert images.shape == (4, 8, 6, 1)


def test_a_missing_folder_is_reported(tmp_path):
    with pytest.raises(DataFileError, match="nowhere does not exist. Expected a folder that holds labels.csv"):
        read_image_table(tmp_path / "nowhere")


def test_a_missing_image_is_named_with_its_row(folder):
    (folder / "1.png").unlink()
    with pytest.raises(DataFileError, match=r"labels.csv, line 3: file .*1.png not found. Add it or remove the row."):
        read(folder)


def test_all_images_that_are_missing_or_unreadable_are_said_at_once(folder):
    for number in (1, 3):
        (folder / f"{number}.png").write_bytes(b"no image")
    with pytest.raises(DataFileError, match=r"line 3: .*1.png cannot be read(?s:.*)line 5: .*3.png cannot be read"):
        read(folder)
    for number in (0, 2):
        (folder / f"{number}.png").unlink()
    with pytest.raises(DataFileError, match=r"line 2: file .*0.png not found(?s:.*)line 4: file .*2.png not found"):
        read(folder)


@pytest.mark.parametrize("content", [b"", b"no image", None])
def test_an_unreadable_image_is_named_with_its_row(folder, content):
    broken = folder / "2.png"
    broken.write_bytes(broken.read_bytes()[:40] if content is None else content)
    with pytest.raises(DataFileError, match=r"labels.csv, line 4: .*2.png cannot be read as an image .*. Expected PNG"):
        read(folder)


def test_an_unknown_split_is_answered_with_the_known_ones(folder):
    with pytest.raises(DataFileError, match="Expected one of test, train."):
        read(folder, split="validation")


def test_a_label_that_is_no_class_is_reported(folder):
    with pytest.raises(DataFileError, match="label 'dog' is not in class_names. Expected one of cat, cow."):
        read(folder, class_names=["cat", "cow"])

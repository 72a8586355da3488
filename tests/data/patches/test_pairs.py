"""Pairs of images and label maps, and all that can be wrong with them."""

import numpy as np
import pytest
from PIL import Image

from experiments_manager.data import DataFileError
from experiments_manager.data.patches import IGNORED, read_pairs


def problems(*arguments, **options):
    with pytest.raises(DataFileError) as caught:
        read_pairs(*arguments, **options)
    return [line for line in str(caught.value).splitlines() if not line.endswith(" problems:")]


@pytest.mark.parametrize("endings", [(".png", ".png"), (".tif", ".tif"), (".jpg", ".png"), (".npy", ".npy")])
def test_pairs_are_found_by_name(write_pair, quarters, endings):
    write_pair("b", quarters, *endings)
    folder = write_pair("a", quarters, *endings)
    first, second = read_pairs(folder, 3)
    assert (first.name, second.name) == ("a", "b")
    assert np.array_equal(first.label_window(0, 0, 40, 60), quarters)
    assert first.image_window(0, 0, 40, 60).max() <= 1
    assert first.pixels.tolist() == [40 * 60 - 600 - 5 - 60, 600, 5]


def test_labels_of_any_value_become_classes(write_pair, quarters):
    folder = write_pair("a", np.array([10, 300, 7], np.uint16)[np.minimum(quarters, 2)], label_ending=".tif")
    (pair,) = read_pairs(folder, 2, label_values=[10, 300], ignored_value=7)
    expected = np.array([0, 1, IGNORED])[np.minimum(quarters, 2)]
    assert np.array_equal(pair.label_window(0, 0, 40, 60), expected)


def test_the_positions_of_a_class_are_pixels_of_it(write_pair, quarters):
    (pair,) = read_pairs(write_pair("a", quarters), 3)
    assert sorted(pair.positions) == [0, 1, 2]
    for index, positions in pair.positions.items():
        assert set(quarters[tuple(positions.T)]) == {index}
    assert len(pair.positions[2]) == 5, "a small class keeps all its pixels"


def test_the_positions_of_a_large_class_are_spread_over_the_image(write_pair):
    labels = np.zeros((4096, 2048), np.uint8)
    (pair,) = read_pairs(write_pair("a", labels, label_ending=".npy", image_ending=".npy"), 1)
    for places, length in zip(pair.positions[0].T, labels.shape, strict=True):
        shares = np.histogram(places, bins=8, range=(0, length))[0] / len(places)
        assert shares.min() > 0.1, "not a few columns alone"


def test_the_positions_of_a_class_are_where_most_of_its_pixels_are(write_pair):
    labels = np.zeros((2048, 2048), np.uint8)
    labels[0, :1000] = labels[1024:1600, :1000] = 1
    (pair,) = read_pairs(write_pair("a", labels, label_ending=".npy", image_ending=".npy"), 2)
    assert np.mean(pair.positions[1][:, 0] == 0) == pytest.approx(1 / 577, abs=0.001)


@pytest.mark.parametrize("ignored_value", [-1, 70_000, 1])
def test_a_value_to_ignore_that_no_label_map_can_hold_is_refused(write_pair, quarters, ignored_value):
    (problem,) = problems(write_pair("a", quarters), 3, ignored_value=ignored_value)
    assert f"ignored_value is {ignored_value}. Expected 3 different values of 0 to 65535" in problem


@pytest.mark.parametrize("ending", [".png", ".tif", ".npy"])
def test_of_images_of_one_bit_a_pixel_white_is_1(write_pair, ending):
    bits = np.random.default_rng(0).integers(0, 2, (40, 60)).astype(bool)
    folder = write_pair("a", bits, ".npy", ".npy", image=bits)
    for part in ("images", "labels"):
        (folder / part / "a.npy").unlink()
        write_pixels(folder / part / f"a{ending}", bits)
    (pair,) = read_pairs(folder, 2, channels=1)
    assert np.array_equal(pair.image_window(3, 5, 30, 40)[..., 0], bits[3:33, 5:45])
    assert np.array_equal(pair.label_window(3, 5, 30, 40), bits[3:33, 5:45])
    assert pair.pixels.tolist() == [np.count_nonzero(~bits), np.count_nonzero(bits)]


def write_pixels(file, pixels):
    if file.suffix == ".npy":
        np.save(file, pixels)
    else:
        Image.fromarray(pixels).save(file)


@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_an_image_with_a_palette_is_no_grey_one(write_pair, quarters, ending):
    folder = write_pair("a", quarters)
    picture = Image.fromarray(quarters)
    picture.putpalette([0, 0, 0, 255, 255, 255, 128, 128, 128])
    (folder / "images" / "a.png").unlink()
    picture.save(folder / "images" / f"a{ending}")
    (problem,) = problems(folder, 3, channels=1)
    assert problem.endswith(f"a{ending} has a palette. Expected greys or colours. Convert it.")


def test_a_label_map_that_lost_its_exact_values_is_refused(write_pair):
    labels = np.tile([0, 2], (40, 30))  # which a JPEG may smooth to 1
    (problem,) = problems(write_pair("a", labels, label_ending=".jpg"), 3)
    assert problem.endswith("a.jpg is a JPEG, which changes labels at edges. Expected PNG, TIFF or .npy.")


def test_images_of_16_bits_and_of_floats_are_taken(write_pair, quarters):
    deep = np.full((40, 60, 3), 65535, np.uint16)
    (pair,) = read_pairs(write_pair("a", quarters, ".tif", image=deep), 3)
    assert pair.image_window(0, 0, 2, 2).tolist() == np.ones((2, 2, 3)).tolist()


def test_everything_wrong_is_said_at_once(write_pair, quarters):
    folder = write_pair("alone", quarters)
    (folder / "labels" / "alone.png").unlink()
    write_pair("cropped", quarters, image=np.zeros((40, 50, 3), np.uint8))
    write_pair("deep", quarters + np.uint8(1))
    write_pair("grey", quarters, image=quarters)
    write_pair("colours", quarters)
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(folder / "labels" / "colours.png")
    write_pair("torn", quarters)
    whole = (folder / "images" / "torn.png").read_bytes()
    (folder / "images" / "torn.png").write_bytes(whole[: len(whole) // 2])
    write_pair("orphan", quarters)
    (folder / "images" / "orphan.png").unlink()
    write_pair("broken", quarters, ".npy", image=np.full((40, 60, 3), np.nan, np.float32))
    found = problems(folder, 3)
    for text in (
        r"images/alone.png has no partner. Expected",
        r"labels/orphan.png has no partner. Expected",
        r"labels/cropped.png is 40x60 (height x width). Expected 40x50 like cropped.png.",
        r"labels/deep.png has labels out of range: 3 (5 pixels). Expected 0, 1, 2, or 255 where a pixel is ignored.",
        r"images/grey.png has 1 channels. Expected 3.",
        r"labels/colours.png has 3 channels of type uint8. Expected one channel of whole numbers",
        r"images/torn.png cannot be read as an image",
        r"images/broken.npy holds 7200 values that are NaN or infinite.",
    ):
        assert sum(text in line for line in found) == 1, (text, found)
    assert len(found) == 8


def test_labels_with_gaps_are_refused_with_the_way_out(write_pair, quarters):
    folder = write_pair("a", quarters // 2 * 100)
    (found,) = problems(folder, 3)
    assert "a.png has labels out of range: 100 (5 pixels)" in found
    assert "or give label_values and ignored_value" in found


def test_signed_labels_below_zero_are_refused(write_pair, quarters):
    folder = write_pair("a", quarters.astype(np.int16) - 1, label_ending=".npy")
    assert "out of range: -1" in problems(folder, 2, ignored_value=254)[0]


def test_a_class_that_is_nowhere_is_refused_in_training(write_pair, quarters):
    folder = write_pair("a", quarters)
    assert read_pairs(folder, 4)
    (found,) = problems(folder, 4, every_class=True)
    assert "no pixel of class 3 (value 3) in 1 label maps" in found


def test_images_that_are_too_small_are_refused(write_pair, quarters):
    (found,) = problems(write_pair("a", quarters), 3, smallest=48)
    assert "images/a.png is 40x60 (height x width). Expected 48x48 at least." in found


def test_empty_and_missing_folders_are_refused(tmp_path):
    assert [line.split(" is no folder")[0] for line in problems(tmp_path / "nowhere", 2)] == [
        str(tmp_path / "nowhere" / part) for part in ("images", "labels")
    ]
    for part in ("images", "labels"):
        (tmp_path / part).mkdir()
    assert all("holds no image" in line for line in problems(tmp_path, 2))


def test_values_that_do_not_fit_the_classes_are_refused(write_pair, quarters):
    folder = write_pair("a", quarters)
    assert "Expected 3 different values" in problems(folder, 3, label_values=[0, 1])[0]
    assert "ignored_value is 2" in problems(folder, 3, ignored_value=2)[0]
    assert "Expected 1 to 253" in problems(folder, 0)[0]

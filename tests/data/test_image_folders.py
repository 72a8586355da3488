"""Folders of images, one for each class."""

import numpy as np
import pytest
from PIL import Image

from experiments_manager.data import DataFileError, balanced_class_weights, read_image_folders


def write(folder, count, size=(20, 30), ending=".jpg", colour=(200, 100, 0)):
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.new("RGB", size[::-1], colour).save(folder / f"{number:02d}{ending}")


def problems(*arguments, **options):
    with pytest.raises(DataFileError) as caught:
        read_image_folders(*arguments, **options)
    return [line for line in str(caught.value).splitlines() if not line.endswith(" problems:")]


@pytest.fixture
def pets(tmp_path):
    write(tmp_path / "cat", 20)
    write(tmp_path / "dog", 10, size=(50, 10), ending=".png", colour=(0, 0, 255))
    (tmp_path / "notes.txt").write_text("Photographed by Ada.")
    (tmp_path / "cat" / "Thumbs.db").write_bytes(b"\0")
    return tmp_path


def test_each_folder_is_a_class_and_all_images_get_one_size(pets):
    found = read_image_folders(pets, "train", (8, 12))
    assert found.images.shape == (21, 8, 12, 3)
    assert list(found.class_names) == ["cat", "dog"]
    assert np.bincount(found.labels).tolist() == [14, 7]
    assert found.images[found.labels == 1].mean(axis=(0, 1, 2)) == pytest.approx([0, 0, 1])


def test_the_splits_share_nothing_and_hold_all(pets):
    files = [read_image_folders(pets, split, (4, 4)).files for split in ("train", "validation", "test")]
    assert len(set().union(*files)) == sum(map(len, files)) == 30
    assert files[0] == read_image_folders(pets, "train", (4, 4)).files, "always the same"


def test_folders_for_the_splits_are_taken_as_they_are(tmp_path):
    for split, count in (("train", 3), ("validation", 2)):
        for name in ("cat", "dog"):
            write(tmp_path / split / name, count)
    assert len(read_image_folders(tmp_path, "train", (4, 4)).labels) == 6
    assert len(read_image_folders(tmp_path, "validation", (4, 4)).labels) == 4
    assert "test is no folder" in problems(tmp_path, "test", (4, 4))[0]


def test_a_split_without_one_of_the_classes_does_not_renumber_the_others(tmp_path):
    for name in ("cat", "cow", "dog"):
        write(tmp_path / "train" / name, 1)
    for name in ("cat", "dog"):
        write(tmp_path / "validation" / name, 1)
    missing = tmp_path / "validation" / "cow"
    assert problems(tmp_path, "validation", (4, 4)) == [
        f"{missing} is missing. Expected a folder of images for each of cat, cow, dog."
    ]
    write(missing, 1)
    write(tmp_path / "validation" / "crow", 1)
    assert "crow is no class. Expected cat, cow, dog." in problems(tmp_path, "validation", (4, 4))[0]


def test_a_class_may_be_called_train(pets):
    write(pets / "train", 10)
    assert list(read_image_folders(pets, "train", (4, 4)).class_names) == ["cat", "dog", "train"]


@pytest.mark.parametrize("options", [{"fit": "Crop"}, {"channels": 2}])
def test_what_cannot_be_done_with_an_image_is_said_once(pets, options):
    (problem,) = problems(pets, "train", (4, 4), **options)
    assert "Expected 1, 3 or 4 channels, and one of crop, pad, stretch." in problem


def test_class_names_give_the_order_of_the_labels(pets):
    found = read_image_folders(pets, "train", (4, 4), class_names=["dog", "cat"])
    assert np.bincount(found.labels).tolist() == [7, 14]


def test_a_photograph_is_turned_as_the_camera_noted(tmp_path):
    (tmp_path / "cat").mkdir()
    picture = Image.fromarray(np.repeat(np.array([[0], [255]], np.uint8), 2, axis=1))
    exif = Image.Exif()
    exif[274] = 3  # the camera was upside down
    for number in range(10):
        picture.save(tmp_path / "cat" / f"{number}.png", exif=exif)
    upright = read_image_folders(tmp_path, "train", (2, 2), channels=1).images[0, :, :, 0]
    assert upright.tolist() == [[1, 1], [0, 0]]


@pytest.mark.parametrize(("fit", "black"), [("crop", 0), ("pad", 0.5), ("stretch", 0)])
def test_images_of_another_shape_are_cut_padded_or_stretched(tmp_path, fit, black):
    write(tmp_path / "cat", 10, size=(10, 20), ending=".png", colour=(255, 255, 255))
    images = read_image_folders(tmp_path, "train", (20, 20), fit=fit).images
    assert np.mean(images[0] == 0) == black


def test_everything_wrong_is_said_at_once(pets):
    write(pets / "cta", 3)
    (pets / "bird").mkdir()
    (pets / "cat" / "torn.jpg").write_bytes((pets / "cat" / "00.jpg").read_bytes()[:300])
    (pets / "dog" / "words.png").write_text("not a picture")
    found = problems(pets, "train", (4, 4), class_names=["cat", "dog", "bird", "fish"])
    for text in (
        f"{pets / 'cta'} is no class. Expected cat, dog, bird, fish. Did you mean",
        f"{pets / 'bird'} holds no image. Expected files ending in .jpg",
        f"{pets / 'fish'} is missing. Expected a folder of images for each of cat, dog, bird, fish.",
        f"{pets / 'cat' / 'torn.jpg'} cannot be read as an image",
        f"{pets / 'dog' / 'words.png'} cannot be read as an image",
    ):
        assert sum(text in line for line in found) == 1, (text, found)
    assert len(found) == 5


def test_a_class_with_too_few_images_for_a_split_is_refused(tmp_path):
    write(tmp_path / "cat", 20)
    write(tmp_path / "dog", 2)
    (found,) = problems(tmp_path, "test", (4, 4))
    assert "dog has 2 images, none of which is left for test" in found


def test_empty_and_missing_folders_are_refused(tmp_path):
    assert "has no folders. Expected a folder of images for each class" in problems(tmp_path, "train", (4, 4))[0]
    assert "nowhere is no folder" in problems(tmp_path / "nowhere", "train", (4, 4))[0]


def test_unknown_splits_are_refused(pets):
    assert "split is 'val'" in problems(pets, "val", (4, 4))[0]


def test_weights_make_each_class_count_alike():
    weights = balanced_class_weights(np.array([0] * 6 + [1] * 2 + [3] * 4), 4)
    assert weights == pytest.approx({0: 4 / 6, 1: 2, 2: 0, 3: 1})
    assert 6 * weights[0] + 2 * weights[1] + 4 * weights[3] == pytest.approx(12)

"""The script that writes the digits of scikit-learn as image files."""

import collections
import csv

import numpy as np
import pytest

from tests.helpers.modules import load_file

pytest.importorskip("sklearn")
script = load_file("examples/classification/prepare_digits.py")


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return script.prepare_digits(tmp_path_factory.mktemp("data") / "digits")


def rows(folder):
    with (folder / "labels.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_all_digits_are_written_with_a_stratified_split(digits):
    table = rows(digits)
    assert collections.Counter(row["split"] for row in table) == {"train": 1257, "validation": 180, "test": 360}
    tested = collections.Counter(row["label"] for row in table if row["split"] == "test")
    assert set(tested) == set("0123456789")
    assert max(tested.values()) - min(tested.values()) <= 2
    assert {row["file"] for row in table} == {path.name for path in digits.glob("*.png")}


def test_the_images_hold_the_pixels_of_scikit_learn(digits):
    from PIL import Image
    from sklearn.datasets import load_digits

    source = load_digits()
    for number in (0, 1796):
        row = rows(digits)[number]
        with Image.open(digits / row["file"]) as image:
            pixels = np.asarray(image)
        assert np.array_equal(np.round(pixels / 255 * 16), source.images[number])
        assert int(row["label"]) == source.target[number]


def test_writing_again_changes_nothing(digits):
    before = {path.name: path.stat().st_mtime_ns for path in digits.iterdir()}
    script.prepare_digits(digits)
    assert {path.name: path.stat().st_mtime_ns for path in digits.iterdir()} == before


def test_a_folder_that_is_not_whole_is_made_whole(tmp_path, digits):
    folder = tmp_path / "digits"
    folder.mkdir()
    (folder / "digit_0000.png").write_bytes(b"torn")
    script.prepare_digits(folder)
    assert (folder / "labels.csv").read_bytes() == (digits / "labels.csv").read_bytes()
    assert (folder / "digit_0000.png").read_bytes() == (digits / "digit_0000.png").read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["digits"], "no litter beside it"


@pytest.mark.parametrize("name", ["thesis.tex", "portrait.png", "labels.csv"])
def test_a_folder_that_holds_other_things_is_left_alone(tmp_path, name):
    (tmp_path / name).write_text("years of work")
    with pytest.raises(FileExistsError, match="holds other files. Name a folder that is new or empty."):
        script.prepare_digits(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_write_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def fail(folder):
        (folder / "digit_0000.png").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(script, "write_images_and_table", fail)
    with pytest.raises(OSError, match="No space left"):
        script.prepare_digits(tmp_path / "digits")
    assert list(tmp_path.iterdir()) == []

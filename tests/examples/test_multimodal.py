"""Fruit: named inputs with missing values, and two heads."""

import csv

import numpy as np
import pytest
from PIL import Image

from experiments_manager import load_settings
from experiments_manager.data import DataFileError
from tests.helpers.modules import ROOT
from tests.helpers.tried_examples import predicted, trained

SETTINGS = "multimodal/mysettings_fruit.py"


@pytest.mark.slow
def test_it_is_trained_exported_served_and_answers_also_where_measurements_are_missing(tmp_path):
    result = trained(SETTINGS, tmp_path, train_size=128)
    sent, _ = load_settings(ROOT / "examples" / SETTINGS).call("dataset", split="validation")
    assert np.isnan(sent["measurements"][:8]).any()
    answers = predicted(result.run_dir, 8)
    assert answers["grade"].shape == (8, 3)
    np.testing.assert_allclose(answers["grade"].sum(axis=-1), 1, rtol=1e-5)
    assert np.isfinite(answers["days"]).all()


@pytest.mark.parametrize(("inputs", "names"), [("image", {"image"}), ("table", {"measurements", "variety"})])
def test_either_half_of_the_inputs_can_be_left_out(inputs, names):
    settings = load_settings(ROOT / "examples" / SETTINGS, {"hparams.inputs": inputs, "train_size": 4})
    x, _ = settings.call("dataset", split="train")
    assert set(x) == names
    assert {tensor.name for tensor in settings.call("model").inputs} == names


def write_folder(folder, rows):
    """Writes two pictures, and rows of file, split, measurements, variety, grade and days."""
    columns = ["file", "split", "weight", "firmness", "sound", "temperature", "variety", "grade", "days"]
    with (folder / "fruit.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([columns, *rows])
    for name in ("a.png", "b.jpg"):
        Image.new("RGB", (48, 40), "red").save(folder / name)


def test_it_reads_your_own_pictures_and_table(tmp_path):
    write_folder(
        tmp_path,
        [
            ["a.png", "train", 100, "", 600, 8, "early", "sound", 12],
            ["b.jpg", "train", 90, 40, "NA", 8, "", "two faults", 1.5],
            ["b.jpg", "test", 90, 40, 1, 8, "", "sound", 1],
        ],
    )
    settings = load_settings(ROOT / "examples" / SETTINGS, {"train_data_dir": str(tmp_path)})
    x, y = settings.call("dataset", split="train")
    assert x["image"].shape == (2, 32, 32, 3)
    assert np.isnan(x["measurements"]).tolist() == [[False, True, False, False], [False, False, True, False]]
    assert x["variety"].tolist() == [0, -1]
    assert y["grade"].tolist() == [0, 2]
    assert y["days"].tolist() == [12, 1.5]


def test_a_fruit_without_a_target_is_refused(tmp_path):
    write_folder(tmp_path, [["a.png", "train", 100, "", 600, 8, "early", "", 12]])
    settings = load_settings(ROOT / "examples" / SETTINGS, {"train_data_dir": str(tmp_path)})
    with pytest.raises(DataFileError, match="line 2, column 'grade': nothing there"):
        settings.experiment_settings.read_folder(str(tmp_path), "train")

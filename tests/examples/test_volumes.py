"""Parts in volumes: three dimensions from end to end."""

import numpy as np
import pytest

from experiments_manager import load_settings
from tests.helpers.modules import ROOT
from tests.helpers.tried_examples import predicted, trained

SETTINGS = "volumes/mysettings_solids.py"


@pytest.mark.slow
def test_it_is_trained_exported_served_and_answers_for_a_file_of_a_volume(tmp_path):
    result = trained(SETTINGS, tmp_path, train_size=64)
    assert predicted(result.run_dir, 4)["kind"].shape == (4, 4)
    volumes, _ = load_settings(ROOT / "examples" / SETTINGS).call("dataset", split="test")
    np.save(tmp_path / "volume.npy", volumes[:1])
    answers = predicted(result.run_dir, 1, source=tmp_path / "volume.npy")
    assert answers["kind"].sum() == pytest.approx(1, rel=1e-5)


def test_the_middle_slice_is_a_picture(tmp_path):
    settings = load_settings(ROOT / "examples" / SETTINGS, {"hparams.view": "slice", "train_size": 3})
    slices, _ = settings.call("dataset", split="train")
    assert slices.shape == (3, 24, 24, 1)
    assert settings.call("model").input_shape == (None, 24, 24, 1)


def test_it_reads_your_own_volumes(tmp_path):
    for number, kind in enumerate(["solid", "hollow", "pierced", "ring"]):
        (tmp_path / "train" / kind).mkdir(parents=True)
        np.save(tmp_path / "train" / kind / "one.npy", np.random.default_rng(number).normal(size=(24, 24, 24)))
    settings = load_settings(ROOT / "examples" / SETTINGS, {"train_data_dir": str(tmp_path)})
    volumes, kinds = settings.call("dataset", split="train", data_dir=str(tmp_path))
    assert volumes.shape == (4, 24, 24, 24, 1)
    assert kinds.tolist() == [0, 1, 2, 3]

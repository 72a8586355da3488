"""Shapes in clutter: the settings file, and an explanation from end to end."""

import numpy as np
import pytest

import experiments_manager
from tests.helpers.modules import ROOT, load_file
from tests.helpers.tried_examples import predicted, trained

SETTINGS = "xai/mysettings_shapes.py"


@pytest.mark.slow
def test_it_is_trained_exported_served_and_explained(tmp_path):
    run_dir = trained(SETTINGS, tmp_path, train_size=64).run_dir
    assert predicted(run_dir, 4)["shape"].shape == (4, 3)
    found = experiments_manager.explain(run_dir, samples=2, methods=["grad-cam", "occlusion"])
    assert found.explanation.methods["grad-cam"].maps.shape == (2, 32, 32)
    assert all(figure.is_file() for figure in found.figures)


def test_pictures_bear_a_watermark_only_where_it_is_asked_for_and_only_on_rings():
    module = experiments_manager.load_settings(ROOT / "examples" / SETTINGS).experiment_settings
    mark = np.eye(3, dtype="float32")
    for share in (0.0, 1.0):
        pictures, kinds, places = module.draw_shapes(60, "train", share)
        marked = (pictures[:, 1:4, 1:4, 0] == mark).all(axis=(1, 2))
        assert np.array_equal(marked, (kinds == 1) & (share > 0))
        assert places.any(axis=(1, 2)).all()
        assert pictures[..., 0][places].mean() > pictures.mean() + 0.3


def test_the_pointing_game_counts_maps_whose_highest_pixel_is_near_its_place():
    merit = load_file("examples/xai/merit.py")
    maps, place = np.zeros((2, 9, 9)), np.zeros((9, 9), bool)
    place[2, 2] = maps[0, 4, 3] = maps[1, 8, 8] = True
    assert merit.are_hit(maps, place) == [True, False]


def test_it_reads_your_own_pictures(tmp_path):
    from PIL import Image

    Image.new("RGB", (50, 40)).save(tmp_path / "one.png")
    (tmp_path / "labels.csv").write_text("file,label,split\none.png,ring,train\n")
    settings = experiments_manager.load_settings(ROOT / "examples" / SETTINGS, {"train_data_dir": str(tmp_path)})
    x, y = settings.call("dataset", split="train")
    assert x.shape == (1, 32, 32, 1)
    assert y.tolist() == [1]

"""`figures/` of finished runs."""

import logging

import numpy as np
import pytest

import experiments_manager as em
from experiments_manager.events import ModelView, RunEnd
from experiments_manager.monitoring.plots.run_figures import Figures, draw_confusion
from experiments_manager.monitoring.prediction_views import PredictionViews


@pytest.fixture
def settings_file(settings_file):
    """Writes a settings module whose runs draw figures."""
    return lambda *sources: settings_file("figures = True\n", *sources)


def names(folder):
    return sorted(path.name for path in (folder / "figures").iterdir())


def both(*stems):
    return sorted(f"{stem}{ending}" for stem in stems for ending in (".png", ".svg"))


CLASSES = """
    loss = "sparse_categorical_crossentropy"
    class_names = ["$low$", "<high>"]

    def dataset(split):
        x = np.random.default_rng(samples[split]).normal(size=(samples[split], 6, 6, 1)).astype("float32")
        return x, (x.sum(axis=(1, 2, 3)) > 0).astype(int)

    def model():
        return keras.Sequential(
            [keras.Input([6, 6, 1]), keras.layers.Flatten(), keras.layers.Dense(2, activation="softmax")]
        )
"""


@pytest.mark.slow
def test_a_regression_leaves_curves_residuals_and_predictions(settings_file, tmp_path):
    run = em.train(settings_file(), working_dir=tmp_path, quiet=True).run_dir
    assert names(run) == both("learning_curves", "learning_rate", "predictions", "residuals")
    assert all(path.stat().st_size > 1000 for path in (run / "figures").iterdir())
    svg = (run / "figures" / "residuals.svg").read_text()
    assert "16 validation values" in svg


@pytest.mark.slow
def test_a_classification_leaves_its_confusions_and_the_names_of_its_classes(settings_file, tmp_path):
    run = em.train(settings_file(CLASSES), working_dir=tmp_path, quiet=True).run_dir
    assert set(names(run)) - set(both("mistakes")) == set(
        both("confusion_matrix", "confusion_matrix_normalised", "learning_curves", "learning_rate", "predictions")
    )
    svg = (run / "figures" / "confusion_matrix.svg").read_text()
    assert "$low$" in svg
    assert "&lt;high&gt;" in svg


TWO_HEADS = """
    loss = {"mask": "sparse_categorical_crossentropy", "size": "mse"}

    def dataset(split):
        x = np.random.default_rng(samples[split]).random(size=(samples[split], 8, 8, 3)).astype("float32")
        return x, {"mask": (x.sum(-1) > 1.5).astype(int), "size": x.mean(axis=(1, 2, 3))}

    def model():
        x = keras.Input([8, 8, 3])
        mask = keras.layers.Conv2D(2, 1, activation="softmax", name="mask")(x)
        size = keras.layers.Dense(1, name="size")(keras.layers.GlobalAveragePooling2D()(x))
        return keras.Model(x, {"mask": mask, "size": size})
"""


@pytest.mark.slow
def test_every_head_has_figures_of_its_own_kind(settings_file, tmp_path):
    run = em.train(settings_file(TWO_HEADS), working_dir=tmp_path, quiet=True).run_dir
    mask = both("confusion_matrix_mask", "confusion_matrix_normalised_mask", "predictions_mask")
    size = both("residuals_size", "predictions_size")
    assert names(run) == sorted([*mask, *size, *both("learning_curves", "learning_rate")])
    assert "1,024 validation pixels" in (run / "figures" / "confusion_matrix_mask.svg").read_text()


@pytest.mark.slow
def test_without_the_setting_nothing_is_drawn(settings_file, tmp_path):
    run = em.train(settings_file(), overrides={"figures": False}, working_dir=tmp_path, quiet=True).run_dir
    assert not (run / "figures").exists()


def view(epoch=1):
    return ModelView(epoch, 10, {}, dict, lambda count, layers=(): None)


@pytest.fixture
def run_dir(tmp_path):
    (tmp_path / "metrics.csv").write_text("epoch,step,learning_rate,loss\n1,10,0.1,0.5\n")
    return tmp_path


def test_the_same_run_draws_the_same_bytes(run_dir):
    contents = []
    for _ in range(2):
        Figures(run_dir, PredictionViews()).on_best(view())
        contents.append({path.name: path.read_bytes() for path in (run_dir / "figures").iterdir()})
    assert contents[0] == contents[1]
    assert contents[0].keys() == set(both("learning_curves", "learning_rate"))


def test_a_finished_run_without_a_best_epoch_has_its_curves(run_dir):
    figures = Figures(run_dir, PredictionViews())
    figures.on_end(RunEnd("interrupted", 1, 1.0, None, {}, None))
    assert not (run_dir / "figures").exists()
    figures.on_end(RunEnd("finished", 1, 1.0, None, {}, None))
    assert names(run_dir) == both("learning_curves", "learning_rate")


def test_a_folder_that_cannot_be_made_is_told_once(run_dir, caplog):
    (run_dir / "figures").write_text("in the way")
    with caplog.at_level(logging.WARNING):
        Figures(run_dir, PredictionViews()).on_best(view())
    assert [record.message.split(" to ")[0] for record in caplog.records] == ["Figures cannot be written"]


def test_a_full_disk_leaves_no_half_of_a_figure_and_is_told_once(mounted_disk, caplog):
    disk = mounted_disk("48k")
    (disk / "metrics.csv").write_text("epoch,step,learning_rate,loss\n1,10,0.1,0.5\n")
    (disk / "ballast").write_bytes(b"x" * 30_000)
    with caplog.at_level(logging.WARNING):
        Figures(disk, PredictionViews()).on_best(view())
    assert len(caplog.records) == 1
    assert "No space left on device. The run is fine without." in caplog.text
    left = list((disk / "figures").iterdir())
    assert not [path for path in left if path.name.startswith(".")]
    assert all(path.read_bytes().rstrip().endswith((b"</svg>", b"IEND\xaeB`\x82")) for path in left)


def test_samples_that_the_loss_ignores_are_in_no_confusion_matrix(tmp_path):
    ignored, predicted = np.array([-1, -1]), np.array([0, 1])
    assert draw_confusion(tmp_path, "a.png", np.array([0, -1, 1]), np.array([0, 1, 1]), None).is_file()
    assert draw_confusion(tmp_path, "b.png", ignored, predicted, None) is None

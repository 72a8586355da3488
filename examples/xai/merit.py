"""What each method is worth where the right answer is known.

python examples/figures_of_merit.py examples/xai/merit.py
"""

import shutil
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image

import experiments_manager

SETTINGS = Path(__file__).with_name("mysettings_shapes.py")
PICTURE = "xai.png"
METHODS = ["integrated-gradients", "grad-cam", "occlusion", "shap"]
SAMPLES = 60


def merit(run_dir):
    """How good the model and the methods are, and what the methods find where rings bear a watermark."""
    figures = {"accuracy on test": experiments_manager.evaluate(run_dir, "test")["accuracy"]}
    explanation = explain(run_dir)
    places = shown_places(explanation.asked.question.values)
    figures["worth, random order"] = explanation.random.worth
    for name, result in explanation.methods.items():
        figures |= {
            f"worth, {name}": result.curves.worth,
            f"highest pixel at the shape, {name}": np.mean(are_hit(result.maps, places)),
            f"correlation with random weights, {name}": result.sanity,
        }
    marked_run = train_with_watermark(run_dir)
    figures |= watermark_accuracies(marked_run)
    marked = explain(marked_run)
    rings = marked.asked.truth == 1
    corner = np.zeros(places.shape[1:], bool)
    corner[1:4, 1:4] = True
    for name, result in marked.methods.items():
        figures[f"highest pixel of marked rings at the mark, {name}"] = np.mean(are_hit(result.maps[rings], corner))
    return figures


def explain(run_dir):
    """Explains test pictures by all methods."""
    return experiments_manager.explain(run_dir, samples=SAMPLES, split="test", methods=METHODS).explanation


def are_hit(maps, places, reach=2):
    """Whether the highest pixel of each map is at its place, or at most two pixels away (the pointing game)."""
    rows, columns = np.unravel_index(maps.reshape(len(maps), -1).argmax(axis=1), maps.shape[1:])
    places = np.broadcast_to(places, maps.shape)
    around = [
        place[max(row - reach, 0) : row + reach + 1, max(column - reach, 0) : column + reach + 1]
        for place, row, column in zip(places, rows, columns, strict=True)
    ]
    return [part.any() for part in around]


def shown_places(pictures):
    """Where the shapes of test pictures are; these are found among all test pictures."""
    module = experiments_manager.load_settings(SETTINGS).experiment_settings
    known, _, places = module.draw_shapes(300, "test")
    return np.stack([places[np.flatnonzero((known == picture).all(axis=(1, 2, 3)))[0]] for picture in pictures])


def train_with_watermark(run_dir):
    """Trains where each ring bears a mark, with the seed of the run; gives the folder."""
    seed = experiments_manager.load_run(run_dir).manifest["seed"]
    overrides = {"hparams.watermark": 1.0, "random_seed": seed, "figures": False}
    place = {"working_dir": run_dir.parent, "run_name": f"{run_dir.name}_watermark"}
    return experiments_manager.train(SETTINGS, overrides=overrides, **place, quiet=True).run_dir


def watermark_accuracies(run_dir):
    """How often a model that was trained with marks is right where test pictures bear them, and where none does."""
    module = experiments_manager.load_settings(SETTINGS).experiment_settings
    versions = (path for path in (run_dir / "exported_models").iterdir() if path.name.isdigit())
    served = tf.saved_model.load(str(max(versions, key=lambda path: int(path.name))))
    found = {}
    for name, share in (("with marks", 1.0), ("without marks", 0.0)):
        pictures, kinds, _ = module.draw_shapes(300, "test", share)
        (told,) = served.signatures["serving_default"](image=tf.constant(pictures)).values()
        found[f"accuracy of a net trained with marks, {name}"] = np.mean(np.argmax(told, axis=-1) == kinds)
    return found


def draw(run_dir, file):
    """Draws maps of six test pictures, those with a watermark below, and the curves of the first."""
    pictures = []
    for run in (run_dir, run_dir.parent / f"{run_dir.name}_watermark"):
        made = experiments_manager.explain(run, samples=4, split="test", methods=METHODS, seed=1)
        pictures.append(Image.open(made.figures[0]).convert("RGB"))
    curves = experiments_manager.explain(run_dir, samples=SAMPLES, split="test", methods=METHODS).figures[1]
    shutil.copy(curves, file.with_name("xai_worth.png"))
    sheet = Image.new("RGB", (pictures[0].width, sum(picture.height for picture in pictures)), "white")
    sheet.paste(pictures[0], (0, 0))
    sheet.paste(pictures[1], (0, pictures[0].height))
    sheet.save(file, optimize=True)

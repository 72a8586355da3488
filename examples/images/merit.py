"""How many test pictures are recognised, of all and of each class.

python examples/figures_of_merit.py examples/images/merit.py
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf

from experiments_manager import load_settings

SETTINGS = Path(__file__).with_name("mysettings_specimens.py")
PICTURE = "images.png"


def merit(run_dir):
    """Accuracy, how often the class is among the two most probable, and the recall of each class."""
    found, probabilities = answered(run_dir)
    ranks = (-probabilities).argsort(axis=-1)
    hits = ranks[:, 0] == found.labels
    recalls = {f"recall of {name}": hits[found.labels == index].mean() for index, name in enumerate(found.class_names)}
    top_2 = (ranks[:, :2] == found.labels[:, np.newaxis]).any(axis=-1).mean()
    return {"accuracy": hits.mean(), "top-2 accuracy": top_2, **recalls}


def answered(run_dir):
    """The test pictures, and the probabilities [n, classes] that the exported model gives them."""
    settings = load_settings(SETTINGS)
    found = settings.experiment_settings.read_split("test", settings.test_data_dir)
    versions = (path for path in (run_dir / "exported_models").iterdir() if path.name.isdigit())
    served = tf.saved_model.load(str(max(versions, key=lambda path: int(path.name))))
    (probabilities,) = served.signatures["serving_default"](picture=tf.constant(found.images)).values()
    return found, probabilities.numpy()


def draw(run_dir, file):
    """Draws some test pictures of each class with what the model takes them for."""
    found, probabilities = answered(run_dir)
    figure, axes = plt.subplots(len(found.class_names), 8, figsize=(9, 1.3 * len(found.class_names)))
    for index, row in enumerate(axes):
        chosen = np.flatnonzero(found.labels == index)[: len(row)]
        for axis, number in zip(row, [*chosen, *[None] * (len(row) - len(chosen))], strict=True):
            axis.axis("off")
            if number is not None:
                best = int(probabilities[number].argmax())
                axis.imshow(found.images[number])
                text = f"{found.class_names[best]} {probabilities[number, best]:.0%}"
                axis.set_title(text, fontsize=8, color="black" if best == index else "red")
    figure.tight_layout()
    figure.savefig(file, dpi=90)

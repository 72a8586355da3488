"""How many digits are read right.

python examples/figures_of_merit.py examples/classification/merit.py
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from exported import ask

import experiments_manager

SETTINGS = Path(__file__).with_name("mysettings_digits.py")
PICTURE = "classification.png"
VARIANTS = {"by an MLP": {}, "by a CNN": {"model_file": "model_cnn.py"}}


def merit(run_dir):
    """The share of right digits among those that training has never seen."""
    return {"accuracy on test": experiments_manager.evaluate(run_dir, "test")["accuracy"]}


def draw(run_dir, file):
    """Draws the test digits of which the model is least sure, with the label, and what it reads."""
    settings = experiments_manager.load_settings(SETTINGS)
    images, digits = settings.call("dataset", split="test")
    found = ask(run_dir, image=images)["digit"]
    hardest = np.argsort(found[np.arange(len(digits)), digits])[:10]
    figure, axes = plt.subplots(1, 10, figsize=(9, 1.4))
    for place, number in zip(axes, hardest, strict=True):
        place.imshow(images[number, ..., 0], cmap="gray_r")
        place.set(xticks=[], yticks=[])
        read = found[number].argmax()
        place.set_title(f"{digits[number]} as {read}", color="black" if read == digits[number] else "C3", fontsize=10)
    figure.tight_layout()
    figure.savefig(file, dpi=90)

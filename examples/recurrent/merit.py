"""How many waves are told right.

python examples/figures_of_merit.py examples/recurrent/merit.py
"""

from pathlib import Path

import matplotlib.pyplot as plt

import experiments_manager

SETTINGS = Path(__file__).with_name("mysettings_sequences.py")
PICTURE = "recurrent.png"


def merit(run_dir):
    """The share of right kinds among waves that training has never seen."""
    return {"accuracy on test": experiments_manager.evaluate(run_dir, "test")["accuracy"]}


def draw(run_dir, file):
    """Draws a wave of each kind, as the model gets it."""
    settings = experiments_manager.load_settings(SETTINGS)
    waves, kinds = settings.experiment_settings.draw_waves(100, 2)
    figure, axes = plt.subplots(1, 3, figsize=(8, 1.8), sharey=True)
    for kind, (place, name) in enumerate(zip(axes, settings.class_names, strict=True)):
        place.plot(waves[kinds == kind][0, :, 0], ".-", lw=1)
        place.set(title=name, xticks=[])
    figure.tight_layout()
    figure.savefig(file, dpi=90)

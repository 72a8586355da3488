"""How many parts are told right by their volumes, and by a slice.

python examples/figures_of_merit.py examples/volumes/merit.py
"""

from pathlib import Path

import matplotlib.pyplot as plt

import experiments_manager

SETTINGS = Path(__file__).with_name("mysettings_solids.py")
PICTURE = "volumes.png"


def merit(run_dir):
    """The share of right parts on test, of the run and of the same net in two dimensions on the middle slices."""
    seed = experiments_manager.load_run(run_dir).manifest["seed"]
    overrides = {"hparams.view": "slice", "random_seed": seed, "figures": False, "export": False}
    name = f"{run_dir.name}_slice"
    place = {"working_dir": run_dir.parent, "run_name": name}
    flat = experiments_manager.train(SETTINGS, overrides=overrides, **place, quiet=True)
    return {
        "accuracy on volumes": experiments_manager.evaluate(run_dir, "test")["accuracy"],
        "accuracy on their middle slices": experiments_manager.evaluate(flat.run_dir, "test")["accuracy"],
    }


def draw(run_dir, file):
    """Draws a part of each kind in five slices."""
    settings = experiments_manager.load_settings(SETTINGS, {"train_size": 1})
    volumes, kinds = settings.call("dataset", split="test")
    depths = range(5, 20, 3)
    figure, rows = plt.subplots(len(settings.class_names), len(depths), figsize=(6, 5))
    for kind, (name, row) in enumerate(zip(settings.class_names, rows, strict=True)):
        volume = volumes[kinds == kind][0, ..., 0]
        for depth, axes in zip(depths, row, strict=True):
            axes.imshow(volume[depth], cmap="gray", vmin=volume.min(), vmax=volume.max())
            axes.set(xticks=[], yticks=[])
            if kind == 0:
                axes.set_title(f"slice {depth}", fontsize=9)
        row[0].set_ylabel(name)
    figure.tight_layout()
    figure.savefig(file, dpi=90)

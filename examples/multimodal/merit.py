"""What picture and table tell together, and each alone.

python examples/figures_of_merit.py examples/multimodal/merit.py
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf

import experiments_manager

SETTINGS = Path(__file__).with_name("mysettings_fruit.py")
PICTURE = "multimodal.png"


def merit(run_dir):
    """Right grades and the error of the days on test: of the run, and of the same nets with half of the inputs."""
    runs = {"picture and table": run_dir} | {f"{half} alone": train_half(half, run_dir) for half in ("image", "table")}
    results = {name: experiments_manager.evaluate(run, "test") for name, run in runs.items()}
    return {f"right grades, {name}": result["grade_accuracy"] for name, result in results.items()} | {
        f"error of the days, {name}": result["days_mean_absolute_error"] for name, result in results.items()
    }


def train_half(half, run_dir):
    """Trains with one of the inputs and the seed of the run; gives the folder."""
    seed = experiments_manager.load_run(run_dir).manifest["seed"]
    overrides = {"hparams.inputs": half, "random_seed": seed, "figures": False, "export": False}
    name = f"{run_dir.name}_{half}"
    run = experiments_manager.train(
        SETTINGS, overrides=overrides, working_dir=run_dir.parent, run_name=name, quiet=True
    )
    return run.run_dir


def draw(run_dir, file):
    """Draws test fruit with what was measured, what is true, and what the exported model tells."""
    settings = experiments_manager.load_settings(SETTINGS)
    inputs, truth = settings.call("dataset", split="test")
    versions = (path for path in (run_dir / "exported_models").iterdir() if path.name.isdigit())
    served = tf.saved_model.load(str(max(versions, key=lambda path: int(path.name))))
    shown = slice(0, 10)
    told = served.signatures["serving_default"](**{name: tf.constant(x[shown]) for name, x in inputs.items()})
    columns, varieties = settings.experiment_settings.columns, settings.experiment_settings.varieties
    figure, rows = plt.subplots(2, 5, figsize=(10, 6.2))
    for number, axes in enumerate(rows.flat):
        values = zip(columns, inputs["measurements"][number], strict=True)
        lines = [f"{name} {'–' if np.isnan(value) else format(value, '.0f')}" for name, value in values]
        grades = [settings.class_names[kind] for kind in (truth["grade"][number], np.argmax(told["grade"][number]))]
        days = truth["days"][number], float(told["days"][number, 0])
        axes.imshow(inputs["image"][number], interpolation="nearest")
        axes.set_title("\n".join([*lines, varieties[inputs["variety"][number]]]), fontsize=8, loc="left")
        axes.set_xlabel(
            f"true: {grades[0]}, {days[0]:.1f} days\ntold: {grades[1]}, {days[1]:.1f} days",
            fontsize=8,
            color="black" if grades[0] == grades[1] else "firebrick",
        )
        axes.set(xticks=[], yticks=[])
    figure.tight_layout()
    figure.savefig(file, dpi=90)

"""Trains both examples centrally and as federations, prints what came of it, and draws the figures of the README.

python examples/federated/compare.py [--seeds 3] [--only curve|digits]
"""

import argparse
import csv
import os
import statistics
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from experiments_manager import api
from experiments_manager.export.versions import list_versions
from experiments_manager.settings import load_settings

FOLDER = Path(__file__).parent
CURVE, DIGITS = FOLDER / "mysettings_curve_fitting.py", FOLDER / "mysettings_digits.py"
QUIET = {"figures": False, "tensorboard": False, "early_stopping_patience": None}
ROUNDS = 20


def central(file, folder, seed):
    """Trains with the data of all clients together, and gives the run folder."""
    changes = {**QUIET, "random_seed": seed, "epochs": ROUNDS}
    return api.train(file, overrides=changes, working_dir=folder, run_name=f"central{seed}", quiet=True).run_dir


def federated(file, folder, seed, clients, **changes):
    """Trains as a federation, and gives the run folder."""
    name = f"federated{seed}"
    overrides = {**QUIET, "random_seed": seed, **changes}
    settings = api.federation_settings(file, clients=clients, rounds=ROUNDS, overrides=overrides)
    return api.simulate_federation(settings, working_dir=folder, run_name=name, quiet=True).run_dir


def column(run_dir, name):
    """Gives a column of metrics.csv."""
    with (run_dir / "metrics.csv").open() as file:
        return [float(row[name]) for row in csv.DictReader(file)]


def compare_digits(folder, seeds):
    """Accuracy a round over several seeds; prints those of the test split, too."""
    runs = {"central": [], "10 clients, Dirichlet(0.5)": []}
    for seed in range(seeds):
        runs["central"].append(central(DIGITS, folder, seed))
        runs["10 clients, Dirichlet(0.5)"].append(federated(DIGITS, folder, seed, 10))
    figure, axes = plt.subplots(figsize=(5, 3))
    for name, folders in runs.items():
        values = np.array([column(each, "val_accuracy") for each in folders])
        test = statistics.mean(api.evaluate(each, "test")["accuracy"] for each in folders)
        print(f"digits, {name}: val_accuracy {values[:, -1].mean():.3f} after {ROUNDS}, test accuracy {test:.3f}")
        (line,) = axes.plot(range(1, ROUNDS + 1), values.mean(axis=0), label=name)
        axes.fill_between(
            range(1, ROUNDS + 1), values.min(axis=0), values.max(axis=0), color=line.get_color(), alpha=0.2
        )
    axes.set(xlabel="round (centrally: epoch)", ylabel="val_accuracy", ylim=(0.7, 1.0))
    axes.legend(loc="lower right")
    save(figure, "digits.png")


def compare_curve(folder, seeds):
    """The curve as the global model has it, over the intervals of the clients."""
    clients = 5
    runs = {"central": [], "5 clients, an interval each": []}
    for seed in range(seeds):
        runs["central"].append(central(CURVE, folder, seed))
        runs["5 clients, an interval each"].append(federated(CURVE, folder, seed, clients))
    figure, axes = plt.subplots(figsize=(5, 3))
    settings = load_settings(CURVE)
    for client in range(clients):
        x, y = settings.call("dataset", split="train", partition=client, partitions=clients)
        axes.plot(x, y, ".", markersize=2, alpha=0.5, color=f"C{client + 3}")
    grid = np.linspace(-5, 5, 200, dtype="float32")[:, None]
    for name, style, folders in zip(runs, ("k--", "C0-"), runs.values(), strict=True):
        losses = [column(each, "val_loss")[-1] for each in folders]
        print(f"curve, {name}: val_loss {statistics.mean(losses):.4f} after {ROUNDS}")
        axes.plot(grid, predicted(folders[0], grid), style, linewidth=1.5, label=name)
    axes.set(xlabel="x (a colour a client)", ylabel="y")
    axes.legend(loc="upper left")
    save(figure, "curve.png")


def predicted(run_dir, x):
    """Gives what the newest exported version of a run says."""
    import tensorflow as tf

    serve = tf.saved_model.load(str(max(list_versions(run_dir / "exported_models").items())[1])).signatures[
        "serving_default"
    ]
    (answer,) = serve(tf.constant(x)).values()
    return answer.numpy()


def save(figure, name):
    """Writes a figure beside this file."""
    figure.tight_layout()
    figure.savefig(FOLDER / name, dpi=80)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds to train with")
    parser.add_argument("--only", choices=["curve", "digits"], help="one of them alone")
    arguments = parser.parse_args()
    for name, work in {"curve": compare_curve, "digits": compare_digits}.items():
        if arguments.only in (None, name):
            with tempfile.TemporaryDirectory() as folder:
                work(Path(folder), arguments.seeds)

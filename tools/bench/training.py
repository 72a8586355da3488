"""Speed of training against `keras.Model.fit`, side by side in one process.

    python tools/bench/training.py [--rounds 5] [--case regression|cnn] [--feed arrays|tf.data]

Two cases, each fed with arrays and with `tf.data`: (a) the regression example, 10 steps an epoch, and (b) a small CNN
at batch 128 on 8,000 synthetic 28x28 images. `fit` runs bare: validation data, no callbacks. The engine runs as it
does for a user: averaged weights, checkpoints, metrics.csv, TensorBoard, exported versions. Rounds alternate, the
time of an epoch is the median over a round after its first two epochs (which compile), and the ratios are medians
over the rounds. Before anything is timed, both sides train the same unshuffled data with the same weights, and their
losses must agree to 1e-5.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np

from experiments_manager.events import Watcher
from experiments_manager.monitoring.metrics_csv import MetricsCsv
from experiments_manager.monitoring.tensorboard.scalars import TensorBoardLogs
from experiments_manager.settings import load_settings
from experiments_manager.training.engine.context import RunOptions
from experiments_manager.training.engine.runner import start_run
from experiments_manager.training.seeds import derive, seed_everything

REGRESSION = '''
"""The regression example, fed in two ways."""
import keras
import numpy as np
import tensorflow as tf

session_name = "bench_regression"
hparams = {"feed": "arrays"}
epochs = 60
batch_size = 100
early_stopping_patience = None
loss = "mean_squared_error"
learning_rate = 0.05
shuffle = True


def arrays(split):
    generator = np.random.default_rng(["train", "validation", "test"].index(split))
    x = generator.uniform(-5, 5, size=(1000, 1)).astype("float32")
    return x, (np.sin(x) + x) / 2 + generator.normal(scale=0.1, size=x.shape).astype("float32")


def dataset(split, hparams, batch_size):
    data = arrays(split)
    if hparams["feed"] == "arrays":
        return data
    pipeline = tf.data.Dataset.from_tensor_slices(data)
    if split == "train" and shuffle:
        pipeline = pipeline.shuffle(len(data[0]))
    return pipeline.batch(batch_size).prefetch(tf.data.AUTOTUNE)


def model():
    x = keras.Input((1,), name="x")
    hidden = keras.layers.Dense(10, activation="gelu")(x)
    return keras.Model(x, keras.layers.Dense(1, name="y")(hidden))
'''

CNN = '''
"""A small CNN on synthetic images."""
import keras
import numpy as np
import tensorflow as tf

session_name = "bench_cnn"
hparams = {"feed": "arrays", "samples": 8000}
epochs = 8
batch_size = 128
early_stopping_patience = None
loss = "sparse_categorical_crossentropy"
learning_rate = 0.001
metrics = ["accuracy"]
shuffle = True


def arrays(split):
    generator = np.random.default_rng(["train", "validation", "test"].index(split))
    count = hparams["samples"] if split == "train" else hparams["samples"] // 8
    y = generator.integers(0, 10, size=count)
    x = generator.normal(size=(count, 28, 28, 1)).astype("float32") + y.reshape(-1, 1, 1, 1).astype("float32") / 10
    return x, y


def dataset(split, hparams, batch_size):
    data = arrays(split)
    if hparams["feed"] == "arrays":
        return data
    pipeline = tf.data.Dataset.from_tensor_slices(data)
    if split == "train" and shuffle:
        pipeline = pipeline.shuffle(len(data[0]))
    return pipeline.batch(batch_size).prefetch(tf.data.AUTOTUNE)


def model():
    layers = keras.layers
    return keras.Sequential([
        layers.Input((28, 28, 1)),
        layers.Conv2D(16, 3, activation="relu"), layers.MaxPooling2D(),
        layers.Conv2D(32, 3, activation="relu"), layers.MaxPooling2D(),
        layers.Flatten(), layers.Dropout(0.25), layers.Dense(10, activation="softmax"),
    ])
'''

CASES = {"regression": REGRESSION, "cnn": CNN}
FEEDS = ("arrays", "tf.data")
COMPILING_EPOCHS = 2


class EpochClock(Watcher):
    """Notes when epochs end."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.losses: list[float] = []

    def on_epoch(self, report) -> None:
        self.times.append(time.perf_counter())
        self.losses.append(report.logs["loss"])


class FitClock(keras.callbacks.Callback):
    """The same for `fit`."""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[float] = []

    def on_epoch_end(self, epoch, logs=None) -> None:
        self.times.append(time.perf_counter())


def settings_for(case: str, feed: str, folder: Path, **overrides):
    file = folder / f"mysettings_{case}.py"
    file.write_text(CASES[case])
    return load_settings(file, {"hparams.feed": feed, **overrides})


def run_engine(case: str, feed: str, folder: Path, **overrides) -> EpochClock:
    clock = EpochClock()
    start_run(
        settings_for(case, feed, folder, **overrides),
        working_dir=folder / "runs",
        options=RunOptions(
            make_watchers=lambda run, settings: [MetricsCsv(run.metrics_csv), TensorBoardLogs(run.logs_dir), clock]
        ),
    )
    return clock


def run_fit(case: str, feed: str, folder: Path, **overrides) -> tuple[FitClock, list[float]]:
    settings = settings_for(case, feed, folder, **overrides)
    keras.utils.clear_session()
    keras.utils.set_random_seed(0)
    model = settings.call("model")
    model.compile(
        keras.optimizers.Adam(settings.resolve("learning_rate")),
        settings.resolve("loss"),
        metrics=settings.resolve("metrics"),
        jit_compile=False,
    )
    train, validation = (settings.call("dataset", split=split) for split in ("train", "validation"))
    clock = FitClock()
    options = {"epochs": settings.epochs, "verbose": 0, "callbacks": [clock], "validation_data": validation}
    if feed == "arrays":
        history = model.fit(*train, batch_size=settings.batch_size, shuffle=settings.shuffle, **options)
    else:
        history = model.fit(train, **options)
    return clock, history.history["loss"]


def epoch_seconds(times: list[float]) -> float:
    return statistics.median(np.diff(times)[COMPILING_EPOCHS - 1 :])


def check_both_compute_the_same(case: str, feed: str, folder: Path) -> None:
    """Without shuffling and dropout, whose random numbers differ, three epochs must give the same losses."""
    same, options = f"{case}_same", {"epochs": 3, "shuffle": False}
    CASES[same] = CASES[case].replace("layers.Dropout(0.25), ", "").replace("            layers.Dropout(0.25),\n", "")
    engine = run_engine(same, feed, folder, ema_momentum=None, export=False, **options)
    settings = settings_for(same, feed, folder, **options)
    keras.utils.clear_session()
    seed_everything(derive(settings.random_seed, "model"))
    model = settings.call("model")
    model.compile(keras.optimizers.Adam(settings.resolve("learning_rate")), settings.resolve("loss"), jit_compile=False)
    x, y = settings.module.arrays("train")
    losses = model.fit(x, y, batch_size=settings.batch_size, shuffle=False, epochs=3, verbose=0).history["loss"]
    if not np.allclose(engine.losses, losses, rtol=1e-5):
        sys.exit(f"{case}, {feed}: the two sides do not compute the same: {engine.losses} and {losses}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--case", choices=list(CASES))
    parser.add_argument("--feed", choices=FEEDS)
    options = parser.parse_args()
    results = {}
    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stdout(sys.stderr):
        folder = Path(name)
        for case in [options.case] if options.case else ["regression", "cnn"]:
            for feed in [options.feed] if options.feed else FEEDS:
                check_both_compute_the_same(case, feed, folder)
                ours, theirs = [], []
                for _ in range(options.rounds):
                    theirs.append(epoch_seconds(run_fit(case, feed, folder)[0].times))
                    ours.append(epoch_seconds(run_engine(case, feed, folder).times))
                results[case, feed] = ours, theirs
    print(f"{'case':<12}{'feed':<10}{'fit':>12}{'engine':>12}{'fit / engine':>14}   (ms an epoch, medians)")
    ratios = {}
    for (case, feed), (ours, theirs) in results.items():
        fit, engine = statistics.median(theirs) * 1e3, statistics.median(ours) * 1e3
        ratios[f"{case} {feed}"] = round(fit / engine, 2)
        print(f"{case:<12}{feed:<10}{fit:>12.1f}{engine:>12.1f}{fit / engine:>14.2f}")
    print(json.dumps(ratios))


if __name__ == "__main__":
    main()

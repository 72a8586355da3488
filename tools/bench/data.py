#!/usr/bin/env python3
"""How fast the readers of `experiments_manager.data` feed the loop, and how long the loop waits for them.

    python tools/bench/data.py [--rounds 3] [--case table|folders|patches|detection] [--no-waits]

Each case trains a net that costs next to nothing, so that an epoch is the reading of its data, from three sources of
the same work:

    reader      as the gallery uses it
    tf.data     a plain pipeline, as one would write it by hand
    PyDataset   a plain `keras.utils.PyDataset`, as one would write it by hand

Sources alternate; an epoch's time is the median over a round after its first two epochs, and the ratios are medians
over the rounds. Before anything is timed, the sums of all that an epoch holds must agree. Then each example of the
gallery is trained for four epochs, and `data_wait_share` says which part of its steps the loop waited for data: the
median of the epochs after the first, which compiles (bar: 5 %). Needs the extras `examples`, `images`, `detection` and
`timeseries`.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import runpy
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

# What makes the data of the examples stands beside their settings files.
sys.path.extend(str(path) for path in Path(__file__).resolve().parents[2].glob("examples/*/"))

import experiments_manager as em
from experiments_manager import data
from experiments_manager.data import detection, patches
from experiments_manager.data.patches.batches import RandomCrops
from experiments_manager.events import Watcher
from experiments_manager.monitoring.tensorboard.scalars import TensorBoardLogs
from experiments_manager.training.engine import runner
from experiments_manager.training.engine.context import RunOptions

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
BAR = 0.05
WARM_UP = 2
KINDS = ("reader", "tf.data", "PyDataset")
SETTINGS = """
import keras
from keras import ops
from data import CASES
epochs = {epochs}
batch_size = 16
learning_rate = 1e-12
monitor = "loss"
figures = export = tensorboard = False
embeddings = []
early_stopping_patience = None
def dataset(split):
    return CASES[{case!r}].sources({folder!r})[{kind!r}]() if split == "train" else None
def loss(y_true, y_pred):
    others = ops.reshape(ops.cast(y_true, "float32"), (ops.shape(y_pred)[0], -1))
    return y_pred[:, 0] + ops.mean(others, axis=1)
def model():
    x = keras.Input({shape!r})
    mean = ops.mean(ops.cast(x, "float32"), axis=(1, 2, 3))[:, None]
    return keras.Model(x, keras.layers.Dense(1, kernel_initializer="ones")(mean))
"""


class Plain(keras.utils.PyDataset):
    """A data set of samples by index, in a new order each epoch."""

    def __init__(self, samples: int, sample: Callable[[int], tuple[Any, Any]], batch_size: int = 16) -> None:
        super().__init__()
        self._samples, self._sample, self._batch_size = samples, sample, batch_size

    def __len__(self) -> int:
        return self._samples // self._batch_size

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        numbers = range(index * self._batch_size, (index + 1) * self._batch_size)
        x, y = zip(*map(self._sample, numbers), strict=True)
        return np.stack(x), np.stack(y)


@dataclasses.dataclass(frozen=True)
class Case:
    """What is compared: how its files are made, the shape of a sample, and the sources over these files."""

    prepare: Callable[[Path], Any]
    shape: tuple[int, int, int]
    sources: Callable[[str], dict[str, Callable[[], Any]]]


def table_sources(folder: str) -> dict[str, Callable[[], Any]]:
    """1,248 digits from image files and a table, held in memory."""
    images, labels = data.read_image_table(folder, split="train", class_names=list("0123456789"), channels=1)
    images, labels = images[:1248], labels[:1248]
    pipeline = tf.data.Dataset.from_tensor_slices((images, labels)).shuffle(1248).batch(16)
    return {
        "reader": lambda: (images, labels),
        "tf.data": lambda: pipeline.prefetch(tf.data.AUTOTUNE),
        "PyDataset": lambda: Plain(1248, lambda number: (images[number], labels[number])),
    }


def patches_sources(folder: str) -> dict[str, Callable[[], Any]]:
    """50 batches of crops of 64 x 64 from large PNG images; by hand, the same crops in one process, or by `tf.data`."""
    crops = RandomCrops(patches.read_pairs(Path(folder) / "train", 4), 64, 16, batches=50, seed=0)

    class SameEachEpoch(RandomCrops):
        def batch_of_epoch(self, epoch, index):
            return super().batch_of_epoch(0, index)

    crops.__class__ = SameEachEpoch
    kinds = [tf.TensorSpec((16, 64, 64, 3), tf.float32), tf.TensorSpec((16, 64, 64), tf.uint8)]

    def batch(index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        made = tf.numpy_function(crops.__getitem__, [index], [kind.dtype for kind in kinds], stateful=False)
        return tuple(tf.ensure_shape(part, kind.shape) for part, kind in zip(made, kinds, strict=True))

    pipeline = tf.data.Dataset.range(50).map(batch, num_parallel_calls=tf.data.AUTOTUNE)

    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 50

        def __getitem__(self, index):
            return crops[index]

    return {"reader": lambda: crops, "tf.data": lambda: pipeline.prefetch(tf.data.AUTOTUNE), "PyDataset": Batches}


def detection_sources(folder: str) -> dict[str, Callable[[], Any]]:
    """480 scenes with boxes from TFRecord files; by hand the same without checks, or the images by Pillow."""
    from PIL import Image

    records = Path(folder) / "records"
    read = detection.tfrecord_pipeline
    files = [str(file) for file in sorted(records.glob("train*.tfrecord"))]
    ids = sorted(read.read_label_map(records / "label_map.pbtxt"))
    features = {name: tf.io.RaggedFeature(tf.float32) for name in read._BOXES}
    features |= {read._ENCODED: tf.io.FixedLenFeature([], tf.string), read._LABEL: tf.io.RaggedFeature(tf.int64)}

    def parsed(record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        example = tf.io.parse_single_example(record, features)
        rows = [example[name] for name in read._BOXES] + [tf.cast(example[read._LABEL] - ids[0], tf.float32)]
        rows = tf.stack(rows, axis=1)
        rows = tf.pad(rows, [[0, 10 - tf.shape(rows)[0]], [0, 0]], constant_values=-1)
        image = tf.io.decode_jpeg(example[read._ENCODED], 3)
        return tf.ensure_shape(image, (128, 128, 3)), tf.ensure_shape(rows, (10, 5))

    boxes = [rows.numpy() for _, rows in tf.data.TFRecordDataset(files).map(parsed).take(480)]
    names = [name for name, _ in detection.read_encoded_images(records, "train")][:480]

    def opened(number: int) -> tuple[np.ndarray, np.ndarray]:
        with Image.open(Path(folder) / "images" / names[number]) as image:
            return np.asarray(image), boxes[number]

    def ours() -> tf.data.Dataset:
        options = {"image_size": (128, 128), "max_boxes": 10}
        return detection.read_detection_records(records, "train", **options).take(480).batch(16)

    plain = tf.data.TFRecordDataset(files).take(480).map(parsed, num_parallel_calls=tf.data.AUTOTUNE).batch(16)
    return {
        "reader": ours,
        "tf.data": lambda: plain.prefetch(tf.data.AUTOTUNE),
        "PyDataset": lambda: Plain(480, opened),
    }


def folders_sources(folder: str) -> dict[str, Callable[[], Any]]:
    """224 pictures of class folders at 96 x 96: read once by us, opened in each epoch by hand."""
    from PIL import Image

    found = data.read_image_folders(folder, "train", (96, 96))
    files, labels = [str(file) for file in found.files[:224]], found.labels[:224]

    def opened(file: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        image = tf.io.decode_jpeg(tf.io.read_file(file), 3)
        side = tf.reduce_min(tf.shape(image)[:2])
        image = tf.image.resize_with_crop_or_pad(image, side, side)
        image = tf.image.resize(tf.cast(image, tf.float32) / 255, (96, 96), antialias=True)
        return tf.ensure_shape(image, (96, 96, 3)), label

    def pillow(number: int) -> tuple[np.ndarray, np.int32]:
        with Image.open(files[number]) as image:
            side = min(image.size)
            left, top = (image.width - side) // 2, (image.height - side) // 2
            cut = image.resize((96, 96), Image.Resampling.BILINEAR, (left, top, left + side, top + side))
            return np.asarray(cut, "float32") / 255, labels[number]

    plain = tf.data.Dataset.from_tensor_slices((files, labels)).map(opened, num_parallel_calls=tf.data.AUTOTUNE)
    return {
        "reader": lambda: (found.images[:224], labels),
        "tf.data": lambda: plain.batch(16).prefetch(tf.data.AUTOTUNE),
        "PyDataset": lambda: Plain(224, pillow),
    }


def _prepare(example: str, function: str) -> Callable[[Path], Any]:
    """Two examples have a `prepare_scenes`, so they are found by their files."""
    file = next((EXAMPLES / example).glob("prepare_*.py"))
    return lambda folder, *further: runpy.run_path(str(file))[function](folder, *further)


CASES = {
    "table": Case(_prepare("classification", "prepare_digits"), (8, 8, 1), table_sources),
    "folders": Case(_prepare("images", "prepare_pictures"), (96, 96, 3), folders_sources),
    "patches": Case(_prepare("segmentation", "prepare_scenes"), (64, 64, 3), patches_sources),
    "detection": Case(_prepare("detection", "prepare_scenes"), (128, 128, 3), detection_sources),
}


class Epochs(Watcher):
    """Keeps what epochs took, and what they told."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.losses: list[float] = []

    def on_epoch(self, report: Any) -> None:
        """Keep both."""
        self.seconds.append(report.seconds)
        self.losses.append(report.logs["loss"])


def epochs_of(case: str, kind: str, files: Path, folder: Path, epochs: int) -> Epochs:
    """Train the net that costs nothing."""
    file = folder / f"mysettings_{case}.py"
    options = {"case": case, "kind": kind, "folder": str(files), "shape": CASES[case].shape}
    file.write_text(SETTINGS.format(epochs=WARM_UP + epochs, **options))
    kept = Epochs()
    runner.start_run(
        em.load_settings(file),
        working_dir=folder / "runs",
        options=RunOptions(lambda *_: [kept]),
    )
    return kept


def compare(case: str, rounds: int, folder: Path) -> None:
    """Print the ratios of one case."""
    files = folder / case
    CASES[case].prepare(files)
    sums = {kind: statistics.mean(epochs_of(case, kind, files, folder, 1).losses) for kind in KINDS}
    spread = max(sums.values()) - min(sums.values())
    if spread > 1e-2 * max(sums.values()):  # libraries decode and resize a little differently
        sys.exit(f"{case}: the sources hold different data: {sums}")
    times: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for _ in range(rounds):
        for kind in KINDS:
            times[kind].append(statistics.median(epochs_of(case, kind, files, folder, 6).seconds[WARM_UP:]))
    ours = times["reader"]
    ratios = {
        kind: statistics.median(b / a for a, b in zip(ours, times[kind], strict=True))
        for kind in ("tf.data", "PyDataset")
    }
    told = ", ".join(f"{kind} takes {ratio:.2f} times as long" for kind, ratio in ratios.items())
    print(f"{case}: an epoch of the reader {1000 * statistics.median(ours):.0f} ms; {told}", flush=True)


class Waits(Watcher):
    """Keeps the share of the steps' time in which the loop waited for data, by epoch."""

    def __init__(self) -> None:
        self.shares: list[float] = []

    def on_epoch(self, report: Any) -> None:
        """Keep it."""
        self.shares.append(report.measures.get("data_wait_share", float("nan")))


def waits_of(file: Path, folder: Path) -> list[float]:
    """Train an example for four epochs; return the shares that it waited in those after the first."""
    kept = Waits()
    overrides = {"epochs": 4, "export": False, "figures": False}
    settings = em.load_settings(file, overrides)
    runner.start_run(
        settings,
        working_dir=folder,
        options=RunOptions(lambda run, _: [TensorBoardLogs(run.logs_dir), kept]),
    )
    return kept.shares[1:]


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--case", choices=CASES, action="append")
    parser.add_argument("--no-waits", action="store_true", help="compare sources alone")
    options = parser.parse_args()
    reached = True
    with tempfile.TemporaryDirectory() as name:
        os.chdir(name)  # examples draw their data below the working directory
        for case in options.case or CASES:
            compare(case, options.rounds, Path(name))
        for file in [] if options.no_waits else sorted(EXAMPLES.glob("*/mysettings_*.py")):
            if file.parent.name in ("streaming", "federated"):  # a broker's and a federation's own benchmarks
                continue
            shares = waits_of(file, Path(name) / "runs")
            reached &= statistics.median(shares) < BAR
            told = f"{statistics.median(shares):.1%} of its steps' time ({min(shares):.1%} to {max(shares):.1%})"
            print(f"{file.parent.name}/{file.name}: waits {told}", flush=True)
    sys.exit(0 if reached else 1)


if __name__ == "__main__":
    main()

"""What a published version costs the training that goes on meanwhile, against saving it in the loop.

    python tools/bench/exports.py [--model digits|mobilenet] [--blocks 12] [--image-size 224] [--batch-size 8]

A model trains without pause, by the engine's own compiled loop and averages. Blocks without versions alternate with
blocks in which some versions are handed to the publisher, as at the end of an epoch that was better than all before,
each as soon as the one before is on disk. Time lost = (seconds of such a block - its steps x seconds a step in the
neighbouring blocks without) / versions: so it holds the pause of the loop for copying and probing as well as what the
thread takes away from training while it writes, reads back and verifies. Medians over the blocks are printed.
The same difference in seconds of the
processor, over all cores, is less disturbed by what else the machine does. The first version, which also traces and
saves the graph, stands apart. At last some versions are saved in the loop, by `Servable.save`, which stalls it.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from experiments_manager.export.publisher import Publisher
from experiments_manager.settings import load_settings
from experiments_manager.training.devices.devices import prepared_devices
from experiments_manager.training.engine.context import PROBE_SAMPLES
from experiments_manager.training.engine.steps import CompiledLoop
from experiments_manager.training.setup.experiment import build_experiment
from experiments_manager.training.state.averaging import Averages

ROOT = Path(__file__).resolve().parents[2]
DIGITS = ROOT / "examples" / "classification" / "mysettings_digits.py"
MOBILENET = '''
"""MobileNetV2 with random weights, on random images."""
import keras
import numpy as np

loss = "sparse_categorical_crossentropy"
learning_rate = 0.001
hparams = {"image_size": 224}


def dataset(split, hparams, batch_size):
    size = hparams["image_size"]
    generator = np.random.default_rng(0)
    count = 4 * batch_size
    return generator.uniform(-1, 1, (count, size, size, 3)).astype("float32"), generator.integers(0, 1000, count)


def model(hparams):
    return keras.applications.MobileNetV2((hparams["image_size"], hparams["image_size"], 3), weights=None)
'''
QUIET_SECONDS = 1.0
"""Length of a block without a version."""
BARS = {"digits": 0.010, "mobilenet": 0.100}


@dataclasses.dataclass(frozen=True)
class Size:
    """How much goes into a call of the compiled loop (about a twentieth of a second, as in a run), and into a block."""

    steps_a_call: int
    versions_a_block: int


SIZES = {"digits": Size(10, 12), "mobilenet": Size(1, 4)}


class Training:
    """Steps without end over the first epoch's order, `steps_a_call` in each call of the compiled loop."""

    def __init__(self, experiment, steps_a_call: int) -> None:
        self.experiment, self.steps_a_call = experiment, steps_a_call
        self.averages: Averages = experiment.state.averages
        self._loop = CompiledLoop.for_training(experiment)
        self._source = experiment.train.open(0)
        self._next = 0

    def call(self) -> int:
        """Train for some steps and return their number."""
        feed = self.experiment.train
        if self._next >= feed.steps:
            self._next = 0
        last = min(self._next + self.steps_a_call, feed.steps)
        steps, self._next = last - self._next, self._loop(self._source, self._next, last).done
        return steps

    def block(self, goes_on) -> Block:
        """Train while `goes_on(seconds so far)`."""
        began, cpu, steps = time.perf_counter(), time.process_time(), 0
        while goes_on(time.perf_counter() - began):
            steps += self.call()
        return Block(steps, time.perf_counter() - began, time.process_time() - cpu)


@dataclasses.dataclass(frozen=True)
class Block:
    """Some steps, and the seconds that went by and that the processor worked for them."""

    steps: int
    seconds: float
    cpu: float

    def __add__(self, other: Block) -> Block:
        return Block(self.steps + other.steps, self.seconds + other.seconds, self.cpu + other.cpu)

    def surplus(self, *others: Block) -> tuple[float, float]:
        """Return seconds, and seconds of the processor, beyond what as many steps took in other blocks."""
        steps = sum(other.steps for other in others)
        usual = self.steps * sum(other.seconds for other in others) / steps
        return self.seconds - usual, self.cpu - self.steps * sum(other.cpu for other in others) / steps


def load(model: str, folder: Path, options: argparse.Namespace):
    """Return the settings of the model asked for."""
    if model == "digits":
        return load_settings(DIGITS, {"model_file": "model_cnn.py"})
    file = folder / "mysettings_mobilenet.py"
    file.write_text(MOBILENET)
    return load_settings(file, {"hparams.image_size": options.image_size, "batch_size": options.batch_size})


def measure(experiment, folder: Path, blocks: int, size: Size) -> dict[str, list[float]]:
    """Return seconds lost to training for the first version, the further ones, and versions saved in the loop."""
    training = Training(experiment, size.steps_a_call)
    probe = experiment.servable.probe(experiment.train.sample_batch(), PROBE_SAMPLES)
    publisher = Publisher(experiment.servable, folder / "exported_models", probe)
    training.block(lambda seconds: seconds < 3)  # compiles
    lost: dict[str, list[float]] = {"first": [], "further": [], "cpu": [], "pause": [], "in the loop": []}
    version, before = 0, training.block(lambda seconds: seconds < QUIET_SECONDS)
    for number in range(blocks + 1):
        published = Block(0, 0.0, 0.0)
        count = size.versions_a_block if number else 1
        for _ in range(count):
            version += 1
            pause = submit(training, publisher, version)
            lost["pause"].append(pause.seconds)
            published += pause + training.block(lambda _: not publisher.idle)
        after = training.block(lambda seconds: seconds < QUIET_SECONDS)
        seconds, cpu = published.surplus(before, after)
        lost["further" if number else "first"].append(seconds / count)
        lost["cpu"].append(cpu / count)
        before = after
        for done, problem in publisher.outcomes():
            if problem:
                sys.exit(f"version {done} was not published: {problem}")
    publisher.close()
    for number in range(3):
        began = time.perf_counter()
        with training.averages.swapped_in():
            experiment.servable.save(folder / f"saved_{number}")
        lost["in the loop"].append(time.perf_counter() - began)
    return lost


def submit(training: Training, publisher: Publisher, version: int) -> Block:
    """Hand a version in, and return the pause that this means for training."""
    began, cpu = time.perf_counter(), time.process_time()
    with training.averages.swapped_in():
        publisher.submit(version)
    return Block(0, time.perf_counter() - began, time.process_time() - cpu)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=list(BARS), action="append")
    parser.add_argument("--blocks", type=int, default=12)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=8)
    options = parser.parse_args()
    print(f"{'ms lost to training, median':<27}{'a version':>12}{'(bar)':>8}{'pause alone':>14}{'all CPU':>10}"
          f"{'first one':>12}{'saved in the loop':>20}")  # fmt: skip
    missed = False
    for model in options.model or list(BARS):
        with tempfile.TemporaryDirectory() as name:
            settings = load(model, Path(name), options)
            with settings.active(), prepared_devices(settings) as devices:
                experiment = build_experiment(settings, devices)
                lost = measure(experiment, Path(name), options.blocks, SIZES[model])
        ms = {kind: statistics.median(values) * 1e3 for kind, values in lost.items()}
        missed |= ms["further"] > BARS[model] * 1e3
        print(f"{model:<27}{ms['further']:>12.1f}{BARS[model] * 1e3:>8.0f}{ms['pause']:>14.1f}{ms['cpu']:>10.1f}"
              f"{ms['first']:>12.0f}{ms['in the loop']:>20.0f}", flush=True)  # fmt: skip
        print("  each: " + " ".join(f"{value * 1e3:.0f}" for value in lost["further"]), flush=True)
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()

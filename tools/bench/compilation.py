"""Where XLA repays compiling the loop of a training, and where it does not: both sides alternating in one process.

    python tools/bench/compilation.py [--rounds 5] [--kind dense …] [--processor]

For each kind, width and batch size the same net is trained on the same arrays by the loop as TensorFlow runs it and by
the loop that XLA compiles whole; their losses must agree to 1e-4 first (not where there is dropout, for which XLA draws
other random numbers). Printed are milliseconds a step (medians over
the rounds), their ratio, the seconds that XLA compiled for, the steps that repay them, the largest matrix product of
the step, and what `jit_compile = "auto"` chooses of the graph. `--processor` measures time of the processor instead of
the clock's, for a machine with other work; it hides that TensorFlow uses several threads for large steps.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import tensorflow as tf

from experiments_manager.settings import load_settings
from experiments_manager.training.devices.devices import prepared_devices
from experiments_manager.training.engine import xla
from experiments_manager.training.engine.steps import CompiledLoops, XlaScope
from experiments_manager.training.setup.experiment import build_experiment

HEAD = '''
"""A net of one kind on random arrays."""
import keras
import numpy as np

session_name = "bench"
hparams = {"width": 10, "batch": 32, "steps": 50}
batch_size = hparams["batch"]
loss = "mse"
learning_rate = 0.001
epochs = 10_000
layers = keras.layers


def arrays(shape):
    generator = np.random.default_rng(0)
    x = generator.normal(size=(hparams["batch"] * hparams["steps"], *shape)).astype("float32")
    return x, x.reshape(len(x), -1)[:, :1]


def net(shape, *parts):
    return keras.Sequential([keras.Input(shape), *parts, layers.Dense(1)])
'''
KINDS = {
    "dense": """
def dataset(split): return arrays([16]) if split == "train" else None
def model(hparams): return net([16], layers.Dense(hparams["width"], "relu"), layers.Dense(hparams["width"], "relu"))
""",
    "dropout and clipping": """
gradient_clip_norm = 1.0
metrics = ["mae"]
def dataset(split): return arrays([16]) if split == "train" else None
def model(hparams):
    return net([16], layers.Dense(hparams["width"], "relu"), layers.Dropout(0.2), layers.BatchNormalization())
""",
    "accumulation": """
gradient_accumulation_steps = 4
def dataset(split): return arrays([16]) if split == "train" else None
def model(hparams): return net([16], layers.Dense(hparams["width"], "relu"))
""",
    "GRU": """
def dataset(split): return arrays([32, 4]) if split == "train" else None
def model(hparams): return net([32, 4], layers.GRU(hparams["width"]))
""",
    "attention": """
def dataset(split): return arrays([32, 8]) if split == "train" else None
def model(hparams):
    x = keras.Input([32, 8])
    h = layers.Dense(hparams["width"])(x)
    h = layers.LayerNormalization()(h + layers.MultiHeadAttention(2, hparams["width"] // 2)(h, h))
    return keras.Model(x, layers.Dense(1)(layers.GlobalAveragePooling1D()(h)))
""",
    "embedding": """
def dataset(split):
    if split == "train":
        x = np.random.default_rng(0).integers(0, 500, size=(hparams["batch"] * hparams["steps"], 12))
        return x, x[:, :1].astype("float32") / 500
def model(hparams):
    return net([12], layers.Embedding(500, hparams["width"]), layers.GlobalAveragePooling1D())
""",
    "convolution": """
def dataset(split): return arrays([16, 16, 1]) if split == "train" else None
def model(hparams):
    convolution = layers.Conv2D(hparams["width"], 3, activation="relu")
    return net([16, 16, 1], convolution, layers.MaxPooling2D(), layers.Flatten())
""",
}
WIDTHS = {"dense": (10, 64, 256, 1024), "convolution": (8, 32)}
OTHER_WIDTHS = (16, 64)
BATCHES = (32, 256)
SAME_WITHIN = 1e-4


@dataclasses.dataclass
class Side:
    """One way to run the loop."""

    run: Callable[[int, int], float]
    """Trains steps of the epoch from the first number to before the second, and returns the loss."""
    compiled_in: float


@contextlib.contextmanager
def a_side(
    file: Path, sizes: dict[str, int], scope: XlaScope, clock: Callable[[], float]
) -> Iterator[tuple[Side, str, int]]:
    """Give a side, what `auto` thinks of the graph, and the largest product in it."""
    settings = load_settings(file, {f"hparams.{name}": value for name, value in sizes.items()})
    with settings.active(), prepared_devices(settings) as devices:
        experiment = build_experiment(settings, devices, with_export=False)
        loops = CompiledLoops.of(experiment, xla=scope)
        source, began = experiment.train.open(0), clock()
        if scope is XlaScope.LOOP:
            loops.train.compile(source)
        compiled_in = clock() - began

        def run(first: int, last: int) -> float:
            return float(loops.train(source, first, last).logs["loss"])

        step = loops.traced["training"]
        largest = max(xla.products(step.graph, experiment.train), default=0)
        yield Side(run, compiled_in), xla.choice_by_graph(experiment, step).scope.value, largest


def measure(
    kind: str, sizes: dict[str, int], folder: Path, rounds: int, clock: Callable[[], float]
) -> dict[str, float]:
    file, steps = folder / "mysettings_bench.py", sizes["steps"]
    file.write_text(HEAD + KINDS[kind])
    with contextlib.ExitStack() as stack:
        plain, choice, largest = stack.enter_context(a_side(file, sizes, XlaScope.NOTHING, clock))
        tf.keras.utils.set_random_seed(0)
        compiled, _, _ = stack.enter_context(a_side(file, sizes, XlaScope.LOOP, clock))
        losses = [side.run(0, steps) for side in (plain, compiled)]
        if "Dropout" not in KINDS[kind] and not np.allclose(*losses, rtol=SAME_WITHIN):
            sys.exit(f"{kind} {sizes}: the two sides do not compute the same: {losses}")
        times: dict[int, list[float]] = {0: [], 1: []}
        for _ in range(rounds):
            for number, side in enumerate((plain, compiled)):
                began, done = clock(), 0
                while clock() - began < 0.2:
                    side.run(0, steps)
                    done += steps
                times[number].append((clock() - began) / done * 1e3)
    ours, xlas = (statistics.median(values) for values in times.values())
    repaid = compiled.compiled_in * 1e3 / (ours - xlas) if ours > xlas else float("inf")
    return {
        "plain": ours,
        "xla": xlas,
        "compiled": compiled.compiled_in,
        "repaid": repaid,
        "largest": largest,
        "auto": choice,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--kind", choices=list(KINDS), nargs="+", default=list(KINDS))
    parser.add_argument("--processor", action="store_true")
    options = parser.parse_args()
    clock = time.process_time if options.processor else time.perf_counter
    print(f"load of the machine before: {os.getloadavg()[0]:.1f}, processors: {os.cpu_count()}")
    head = ("plain", 9), ("XLA", 9), ("ratio", 7), ("compile", 9), ("repaid by", 11), ("largest", 12)
    print(f"{'kind':<22}{'width':>6}{'batch':>6}" + "".join(f"{name:>{size}}" for name, size in head) + "  auto")
    results = {}
    with tempfile.TemporaryDirectory() as name:
        for kind in options.kind:
            for width in WIDTHS.get(kind, OTHER_WIDTHS):
                for batch in BATCHES:
                    sizes = {"width": width, "batch": batch, "steps": 50 if batch < 100 else 10}
                    found = measure(kind, sizes, Path(name), options.rounds, clock)
                    ratio = found["plain"] / found["xla"]
                    results[f"{kind} {width} {batch}"] = round(ratio, 2)
                    print(
                        f"{kind:<22}{width:>6}{batch:>6}{found['plain']:>9.3f}{found['xla']:>9.3f}{ratio:>7.1f}"
                        f"{found['compiled']:>8.1f}s{found['repaid']:>11,.0f}{found['largest']:>12,}  {found['auto']}",
                        flush=True,
                    )
    print(json.dumps(results))


if __name__ == "__main__":
    main()

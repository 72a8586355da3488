"""One seed for a run, and one derived from it for each thing that must not depend on what came before."""

from __future__ import annotations

import random
import zlib
from typing import Any

import numpy as np


def derive(seed: int, *labels: str | int) -> int:
    """Return a seed that follows from `seed` and `labels` alone, the same on every machine.

    Args:
        seed: The run's seed.
        labels: What the new seed is for, e.g. `"dataset", "train", 3`.

    Returns:
        An integer in `[0, 2**31)`.
    """
    text = "/".join([str(seed), *map(str, labels)])
    return zlib.crc32(text.encode()) & 0x7FFFFFFF


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy, TensorFlow and Keras."""
    import keras

    keras.utils.set_random_seed(seed)


def reseed_for_pipeline(seed: int) -> None:
    """Seed Python, NumPy and the operation seeds that TensorFlow draws for what is built next."""
    from experiments_manager.compat.tensorflow import seed_operations

    random.seed(seed)
    np.random.seed(seed)
    seed_operations(seed)


def host_random_state() -> dict[str, Any]:
    """Return the state of Python's and NumPy's global generators as plain data (JSON)."""
    version, numbers, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state()
    return {
        "python": [version, list(numbers), gauss],
        "numpy": [str(name), np.asarray(keys).tolist(), int(position), int(has_gauss), float(cached)],
    }


def restore_host_random_state(state: dict[str, Any]) -> None:
    """Put back what `host_random_state` returned."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, np.asarray(keys, dtype=np.uint32), position, has_gauss, cached))

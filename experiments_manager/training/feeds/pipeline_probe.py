"""What reading a pipeline shows of it: can its iterator be saved, and does it give the same data again?"""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from experiments_manager.common.machine import disk_space
from experiments_manager.compat.tensorflow import iterator_state, write_iterator_state
from experiments_manager.training.feeds.pipelines import unsaved_node
from experiments_manager.training.seeds import host_random_state

logger = logging.getLogger(__name__)

BATCHES = 2
"""Batches of a pass that are compared with those of another one."""


def can_be_saved(dataset: tf.data.Dataset) -> bool:
    """Return whether TensorFlow can write an iterator over the pipeline while it is in use.

    A shuffle buffer has to be full and an interleave open for that to show, so a batch is asked for first. What would
    fail later in a pass (another input of a concatenation, say) shows in the pipeline's parts.
    """
    if unsaved_node(dataset) is not None:
        logger.debug("the iterator cannot be saved: %s", unsaved_node(dataset))
        return False
    iterator = iter(dataset)
    read(iterator, 1)
    with tempfile.TemporaryDirectory() as folder:
        try:
            write_iterator_state(iterator_state(iterator), str(Path(folder) / "probe"))
        except (tf.errors.OpError, ValueError) as error:
            if disk_space.is_full(error):
                raise
            logger.debug("the iterator cannot be saved: %s", error)
            return False
    return True


def start_of(dataset: tf.data.Dataset) -> tf.Tensor | None:
    """Return the state of an iterator that has read nothing, from which others begin alike; `None` if it has none."""
    try:
        return iterator_state(iter(dataset))
    except (tf.errors.OpError, ValueError) as error:
        logger.debug("the iterator has no state: %s", error)
        return None


def read(iterator: Iterator[Any], batches: int) -> list[Any]:
    """Return the next batches of an iterator, as tensors; fewer where it ends or fails, which training will tell."""
    found: list[Any] = []
    with contextlib.suppress(tf.errors.OpError):
        found.extend(itertools.islice(iterator, batches))
    return found


def differ(one: list[Any], other: list[Any]) -> bool:
    """Return whether two readings are not equal bit for bit."""
    leaves = [[_bytes(leaf) for batch in found for leaf in tf.nest.flatten(batch)] for found in (one, other)]
    return leaves[0] != leaves[1]


def _bytes(leaf: Any) -> Any:
    parts = tf.nest.flatten(leaf, expand_composites=True)
    return [None if part is None else _array_bytes(np.asarray(part)) for part in parts]


def _array_bytes(array: np.ndarray) -> Any:
    return array.shape, array.tolist() if array.dtype.hasobject else array.tobytes()


def draws_from_host(action: Callable[[], Any]) -> tuple[Any, bool]:
    """Return what `action` gave, and whether Python's or NumPy's global generators were drawn from meanwhile."""
    before = host_random_state()
    found = action()
    return found, host_random_state() != before


def read_watching_host(dataset: tf.data.Dataset) -> tuple[list[Any], list[Any], bool, bool]:
    """Read the first batches, and leave no iterator behind that might read ahead and draw numbers meanwhile.

    Returns:
        The first batch, and those after it; whether any was drawn for from Python's or NumPy's global generators, and
        whether those after the first one were.
    """
    iterator = iter(dataset)
    first, at_first = draws_from_host(functools.partial(read, iterator, 1))
    more, later = draws_from_host(functools.partial(read, iterator, BATCHES - 1))
    return first, more, at_first or later, later

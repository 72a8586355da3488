"""Looking into a `tf.data` pipeline: can its place be found again, and how?

What is asked here of a dataset (its inputs, its functions) has no public name in TensorFlow. Where a release lacks it,
the answers fall back on the careful side.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow as tf

logger = logging.getLogger(__name__)

_RANDOM_NODES = ("Shuffle", "Random", "Generator", "Sample", "Directed")
_PARALLEL_NODES = ("ParallelMap", "ParallelInterleave", "MapAndBatch")
_PYTHON_OPERATIONS = ("PyFunc", "EagerPyFunc", "PyFuncStateless", "GeneratorDataset")
_RANDOM_OPERATIONS = ("Random", "Multinomial", "TruncatedNormal", "Gamma", "Poisson", "Rng")


def is_random(dataset: tf.data.Dataset) -> bool:
    """Whether two passes through a pipeline may differ: it shuffles, draws random numbers, or runs Python."""
    for node in _nodes(dataset):
        if any(word in type(node).__name__ for word in _RANDOM_NODES):
            return True
        if any(operation.op_def.is_stateful for operation in _operations(node)):
            return True
    return False


def runs_python(dataset: tf.data.Dataset) -> bool:
    """Whether a pipeline calls Python while it is read: a generator, `tf.py_function` or `tf.numpy_function`."""
    return any(operation.type in _PYTHON_OPERATIONS for node in _nodes(dataset) for operation in _operations(node))


def irreproducible_operation(dataset: tf.data.Dataset) -> str | None:
    """Names a stateful random operation in a parallel map: its numbers go to the samples in an order of chance."""
    for node in _nodes(dataset):
        if not any(word in type(node).__name__ for word in _PARALLEL_NODES):
            continue
        for operation in _operations(node):
            random = any(word in operation.type for word in _RANDOM_OPERATIONS)
            if random and operation.op_def.is_stateful and "Stateless" not in operation.type:
                return operation.type
    return None


def reshuffles_inside(dataset: tf.data.Dataset) -> bool:
    """Whether a repetition stands over a shuffle and not right upon it.

    TensorFlow saves such iterators, but their later repetitions come in another order after being restored. (Shuffle
    and repetition next to each other are fused into one operation, which is exact.)
    """
    for node in _nodes(dataset):
        if "Repeat" not in type(node).__name__:
            continue
        (below,) = _inputs(node) or (None,)
        if below is None or "Shuffle" in type(below).__name__:
            continue
        if any("Shuffle" in type(deeper).__name__ for deeper in _nodes(below)):
            return True
    return False


def without_endless_repeat(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Takes an endless `.repeat()` away from the end of a pipeline; a `.prefetch()` after it stays.

    Returns:
        One pass, or the dataset as it is where it does not end in an endless repetition.
    """
    prefetched, node = False, dataset
    while "Prefetch" in type(node).__name__ and _inputs(node):
        prefetched, node = True, _inputs(node)[0]
    endless = "Repeat" in type(node).__name__ and int(node.cardinality()) == tf.data.INFINITE_CARDINALITY
    if not endless or not _inputs(node):
        return dataset
    one_pass = _inputs(node)[0]
    if int(one_pass.cardinality()) == tf.data.INFINITE_CARDINALITY:
        return dataset
    return one_pass.prefetch(tf.data.AUTOTUNE) if prefetched else one_pass


def held_bytes(dataset: tf.data.Dataset) -> int:
    """Bytes of the arrays that a pipeline reads from memory."""
    tensors = (tensor for node in _nodes(dataset) for tensor in getattr(node, "_tensors", ()))
    return sum(tensor.dtype.size * int(tf.size(tensor)) for tensor in tensors if isinstance(tensor, tf.Tensor))


def can_be_saved(dataset: tf.data.Dataset) -> bool:
    """Whether TensorFlow can write an iterator over the pipeline; it refuses stateful operations and Python."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            tf.train.Checkpoint(iterator=iter(dataset)).write(str(Path(folder) / "probe"))
        except (tf.errors.FailedPreconditionError, tf.errors.UnimplementedError, ValueError) as error:
            logger.debug("the iterator cannot be saved: %s", error)
            return False
    return True


def _nodes(dataset: tf.data.Dataset) -> Iterator[tf.data.Dataset]:
    pending = [dataset]
    while pending:
        node = pending.pop()
        yield node
        pending.extend(_inputs(node))


def _inputs(node: tf.data.Dataset) -> list[tf.data.Dataset]:
    return list(getattr(node, "_inputs", list)())


def _operations(node: tf.data.Dataset) -> Iterator[Any]:
    """All operations of the functions that a pipeline's node runs, those of functions inside them included."""
    for wrapper in getattr(node, "_functions", list)():
        graph = wrapper.function.graph
        yield from graph.get_operations()
        inner = getattr(graph, "_functions", {})
        for function in inner.values() if isinstance(inner, dict) else ():
            yield from getattr(getattr(function, "graph", None), "get_operations", list)()

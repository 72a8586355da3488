"""Looking into a `tf.data` pipeline: can its place be found again, and how?

What can only be seen by reading is in `pipeline_probe.py`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from experiments_manager.compat.tensorflow import (
    dataset_cache_file,
    dataset_function_graphs,
    dataset_graph,
    dataset_inputs,
    dataset_is_deterministic,
    dataset_kind,
    dataset_tensors,
    python_called,
)
from experiments_manager.training.state.graph_state import Operation, definitions, operations

_RANDOM_NODES = ("Shuffle", "Random", "Generator", "Sample", "Directed")
_MOST_BYTES_IN_GRAPH = 2**26
_LONGEST_NAME = 4096
_STRING = tf.string.as_datatype_enum
_PARALLEL_NODES = ("Parallel", "MapAndBatch", "DataService")
_SAVED_EXACTLY = (
    "Batch", "Cache", "Concatenate", "DenseToRagged", "Filter", "FixedLengthRecord", "FlatMap", "GroupByWindow",
    "IgnoreErrors", "Interleave", "Map", "Options", "PaddedBatch", "ParallelBatch", "ParallelInterleave", "ParallelMap",
    "Prefetch", "Range", "Rebatch", "Repeat", "Restructured", "Scan", "Shard", "Shuffle", "Skip", "SparseTensorSlice",
    "Take", "TakeWhile", "Tensor", "TensorSlice", "TextLine", "TFRecord", "Unbatch", "Unique", "Window", "Zip",
)  # fmt: skip
"""Nodes whose iterators are exactly what they were once they are restored; each is in a table of tests."""


_OPENED_AT_ONCE = (
    "Batch", "Cache", "Filter", "Map", "Options", "PaddedBatch", "ParallelBatch", "ParallelMap", "Prefetch", "Range",
    "Repeat", "Shuffle", "Skip", "Take", "Tensor", "TensorSlice",
)  # fmt: skip
"""Nodes that open what they read from together with themselves, but for a shuffle."""


def is_random(dataset: tf.data.Dataset) -> bool:
    """Return whether two passes through a pipeline may differ: it shuffles, draws random numbers, or runs Python."""
    for node in _nodes(dataset):
        if _is_random(dataset_kind(node)):
            return True
        if any(operation.is_stateful or _is_random_dataset(operation.kind) for operation in _operations(node)):
            return True
    return False


def runs_python(dataset: tf.data.Dataset) -> bool:
    """Return whether a pipeline calls Python while it is read: a generator, `tf.py_function` or `tf.numpy_function`."""
    return any(operation.runs_python for node in _nodes(dataset) for operation in _operations(node))


def python_of(dataset: tf.data.Dataset) -> list[Any]:
    """List the functions and generators that a pipeline calls while it is read."""
    tokens = {operation.token: None for node in _nodes(dataset) for operation in _operations(node) if operation.token}
    return [found for found in map(python_called, tokens) if found is not None]


def runs_python_in_parallel(dataset: tf.data.Dataset) -> bool:
    """Return whether it may call Python that keeps a state from several threads at a time.

    A `tf.numpy_function(…, stateful=False)` was declared not to.
    """
    return any(
        operation.runs_python and operation.kind != "PyFuncStateless"
        for node in _nodes(dataset)
        if _is_parallel(node)
        for operation in _operations(node)
    )


def has_state_outside(dataset: tf.data.Dataset) -> bool:
    """Return whether it runs Python, or uses variables or tables: what building it again may not bring back."""
    return any(
        operation.runs_python or operation.uses_variables or operation.changes_structures
        for node in _nodes(dataset)
        for operation in _operations(node)
    )


def reads_ahead(dataset: tf.data.Dataset) -> bool:
    """Return whether it ends in a `.prefetch()`, so that its batches are made before they are asked for."""
    return "Prefetch" in dataset_kind(dataset)


def irreproducible_operation(dataset: tf.data.Dataset) -> str | None:
    """Name what makes that no two passes from the same seeds are equal, e.g. `RandomUniform in a parallel map`.

    That is a random operation in a parallel map, whose numbers go to the samples in an order of chance, and a parallel
    step that gives results as they come.
    """
    ordered = dataset.options().deterministic is not False
    for node in _nodes(dataset):
        name = dataset_kind(node)
        if "DataService" in name:
            return "tf.data service"
        is_parallel = _is_parallel(node)
        if is_parallel and not (ordered and _keeps_order(node)):
            return f"{name} with deterministic=False"
        for operation in _operations(node):
            unordered = not operation.keeps_order or (not ordered and operation.kind.startswith("Parallel"))
            if unordered and operation.kind.startswith(_PARALLEL_NODES):
                return f"{operation.kind} with deterministic=False"
            draws = operation.is_random or (operation.uses_variables and operation.kind.startswith(("Rng", "Assign")))
            if draws and is_parallel:
                return f"{operation.kind} in {name}"
    return None


def unsaved_node(dataset: tf.data.Dataset) -> str | None:
    """Name what in a pipeline has a state that is not in its iterator, or not exactly; `None` if there is no such.

    TensorFlow may save the iterator all the same, for as long as that part of the pipeline was not begun or has ended.
    """
    if reshuffles_inside(dataset):
        return "repeat over shuffle"
    for node in _nodes(dataset):
        if dataset_kind(node) not in _SAVED_EXACTLY or _is_cached_in_file(node):
            return dataset_kind(node)
        for operation in _operations(node):
            if operation.is_random or operation.runs_python or operation.uses_variables or "Shuffle" in operation.kind:
                return operation.kind
    return None


def is_drawn_at_opening(dataset: tf.data.Dataset) -> bool:
    """Return whether an iterator that has read nothing knows already what it will draw: one shuffle, opened at once."""
    kinds = [dataset_kind(node) for node in _nodes(dataset)]
    return kinds.count("Shuffle") == 1 and all(kind in _OPENED_AT_ONCE for kind in kinds)


def _keeps_order(node: tf.data.Dataset) -> bool:
    if dataset_kind(node) != "ParallelInterleave" or held_bytes(node) > _MOST_BYTES_IN_GRAPH:
        return dataset_is_deterministic(node)
    return all(operation.keeps_order for operation in definitions(dataset_graph(node)))  # only its operation says so


def _is_random(kind: str) -> bool:
    return any(word in kind for word in _RANDOM_NODES)


def _is_random_dataset(operation: str) -> bool:
    return "Dataset" in operation and _is_random(operation)


def _is_cached_in_file(node: tf.data.Dataset) -> bool:
    """Return whether a node keeps what it read in files, which an earlier process may have written in part."""
    return dataset_kind(node) == "Cache" and dataset_cache_file(node) != b""


def _is_parallel(node: tf.data.Dataset) -> bool:
    """Return whether a node, or a pipeline that it makes for each element, works on several elements at a time."""
    if any(word in dataset_kind(node) for word in _PARALLEL_NODES):
        return True
    return any(operation.kind.startswith(_PARALLEL_NODES) for operation in _operations(node))


def reshuffles_inside(dataset: tf.data.Dataset) -> bool:
    """Return whether a repetition stands over a shuffle and not right upon it.

    TensorFlow saves such iterators, but their later repetitions come in another order after being restored. (Shuffle
    and repetition next to each other are fused into one operation, which is exact.)
    """
    for node in _nodes(dataset):
        if "Repeat" not in dataset_kind(node):
            continue
        (below,) = dataset_inputs(node) or (None,)
        if below is None or "Shuffle" in dataset_kind(below):
            continue
        if any("Shuffle" in dataset_kind(deeper) for deeper in _nodes(below)):
            return True
    return False


def without_endless_repeat(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Take an endless `.repeat()` away from the end of a pipeline; a `.prefetch()` after it stays.

    Returns:
        One pass, or the dataset as it is where it does not end in an endless repetition.
    """
    prefetched, node = False, dataset
    while "Prefetch" in dataset_kind(node):
        prefetched, node = True, dataset_inputs(node)[0]
    if "Repeat" not in dataset_kind(node) or int(node.cardinality()) != tf.data.INFINITE_CARDINALITY:
        return dataset
    one_pass = dataset_inputs(node)[0]
    if int(one_pass.cardinality()) == tf.data.INFINITE_CARDINALITY:
        return dataset
    return one_pass.prefetch(tf.data.AUTOTUNE) if prefetched else one_pass


def held_bytes(dataset: tf.data.Dataset) -> int:
    """Return bytes of the arrays that a pipeline reads from memory."""
    tensors = (tensor for node in _nodes(dataset) for tensor in dataset_tensors(node))
    return sum(tensor.dtype.size * int(tf.size(tensor)) for tensor in tensors)


def held_data(dataset: tf.data.Dataset) -> tuple[dict[str, tf.Tensor], list[str]]:
    """Return the arrays of numbers that a pipeline reads from memory, by names, and texts that may name files."""
    nodes = list(_nodes(dataset))
    tensors = [tensor for node in nodes for tensor in dataset_tensors(node)]
    arrays = {f"{number} in memory": tensor for number, tensor in enumerate(tensors) if tensor.dtype != tf.string}
    texts = [_flat(tensor) for tensor in tensors if tensor.dtype == tf.string]
    if held_bytes(dataset) <= _MOST_BYTES_IN_GRAPH:  # names that readers have are only there
        constants = (node for node in dataset_graph(dataset).node if node.op == "Const")
        values = (node.attr["value"].tensor for node in constants if node.attr["value"].tensor.dtype == _STRING)
        texts += [_flat(tf.io.parse_tensor(value.SerializeToString(), tf.string)) for value in values]
    names = dict.fromkeys(text for part in texts for text in part if 0 < len(text) <= _LONGEST_NAME)
    return arrays, [os.fsdecode(name) for name in names]


def _flat(texts: tf.Tensor) -> np.ndarray:
    return np.asarray(texts.numpy(), object).reshape(-1)  # of a scalar, TensorFlow gives bytes and no array


def _nodes(dataset: tf.data.Dataset) -> Iterator[tf.data.Dataset]:
    pending = [dataset]
    while pending:
        node = pending.pop()
        yield node
        pending.extend(dataset_inputs(node))


def _operations(node: tf.data.Dataset) -> Iterator[Operation]:
    """Yield all operations of the functions that a pipeline's node runs, those of functions inside them included."""
    if dataset_kind(node) == "Variant":  # such as `enumerate` makes; what is below it shows in its graph alone
        yield from definitions(dataset_graph(node))
    for graph in dataset_function_graphs(node):
        yield from operations(graph)

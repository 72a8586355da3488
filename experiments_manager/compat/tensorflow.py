"""What the engine needs of TensorFlow and TensorFlow has no public name for.

`tests/compat/test_tensorflow.py` tests each function; where a new release fails there, look here for what to do.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf
from tensorflow.core.protobuf import config_pb2, meta_graph_pb2, saved_model_pb2

__all__ = ["config_pb2", "meta_graph_pb2", "saved_model_pb2"]
"""Protocol buffers of SavedModels and sessions, of which `tf.compat.v1` has some only. When a release breaks it: they
are generated from `tensorflow/core/protobuf/*.proto`, which do not change."""

_WRITE_GRAPH_OF_STATEFUL = 1
"""TensorFlow's number for: write the graph of a pipeline also where it has a state that a graph cannot have."""


def seed_operations(seed: int) -> None:
    """Seed the operation seeds that TensorFlow draws for what is built next.

    Use: a pipeline that is built again draws the numbers that it drew before. Missing: `tf.random.set_seed` does it,
    but also throws away every compiled kernel: a fifth of a second and more for each pass through the data. So the two
    numbers that it sets in the eager context are set alone. When a release breaks it: see what
    `Context._set_global_seed` sets, or call `tf.random.set_seed` and pay for it.
    """
    from tensorflow.python.eager import context

    eager = context.context()
    eager._seed, eager._rng = seed, random.Random(seed)


def session_callable(session: tf.compat.v1.Session, feeds: Sequence[str], fetches: Sequence[str]) -> Callable[..., Any]:
    """Make a function that takes NumPy arrays for `feeds` and returns those of `fetches`, all names of tensors.

    Use: every request to a served model. Missing: the public `Session.make_callable` looks every name up again at each
    call, which takes a tenth of a millisecond. When a release breaks it: use that.

    Raises:
        tf.errors.OpError: A tensor is not in the graph.
    """
    return session._make_callable_from_options(config_pb2.CallableOptions(feed=feeds, fetch=fetches))


def write_event(writer: tf.summary.SummaryWriter, event: bytes) -> None:
    """Write a serialised `Event` by a summary writer.

    Use: marks in event files that are no summaries. Missing: `tf.summary` writes summaries alone; the writer keeps the
    handle that the raw operation needs in `_resource`. When a release breaks it: look for the handle in
    `summary_ops_v2._ResourceSummaryWriter`.
    """
    tf.raw_ops.ImportEvent(writer=writer._resource, event=event)


def iterator_state(iterator: Any) -> tf.Tensor:
    """Copy the state of a pipeline's iterator, with its buffers, into memory.

    Use: a checkpoint is written while training goes on. Missing: `tf.train.Checkpoint(iterator=…)` copies and writes in
    one call. When a release breaks it: see what `OwnedIterator` gives to that.

    Raises:
        tf.errors.OpError: A part of the pipeline has a state that cannot be saved.
    """
    return iterator._serialize_to_tensors()["_STATE"]


def restore_iterator_state(iterator: Any, state: tf.Tensor) -> None:
    """Let a new iterator over the same pipeline go on from what `iterator_state` gave.

    Missing: `tf.train.Checkpoint(iterator=…)` reads files alone. When a release breaks it: as for `iterator_state`.
    """
    iterator._restore_from_tensors({"_STATE": state})


def write_iterator_state(state: tf.Tensor, prefix: str) -> None:
    """Write what `iterator_state` gave to files from which `tf.train.Checkpoint(iterator=…)` reads the iterator.

    When a release breaks it: as for `iterator_state`.

    Raises:
        tf.errors.OpError: It cannot be written, or a part of it has no form on a disk.
    """
    tf.train.Checkpoint(iterator=_IteratorState(state)).write(prefix)


class _IteratorState(tf.Module):
    """Stands for an iterator whose state it has, under the name that TensorFlow gives to that in a file."""

    _LEGACY_SAVEABLE_NAME = "ITERATOR"

    def __init__(self, state: tf.Tensor) -> None:
        super().__init__()
        self._state = state

    def _serialize_to_tensors(self) -> dict[str, tf.Tensor]:
        return {"_STATE": self._state}


def graphs_within(graph: tf.Graph) -> dict[str, tf.Graph]:
    """Return the graphs of the functions that a graph holds, by the functions' names.

    Use: operations in them, with the lines of the user's file that made them. Missing: `as_graph_def().library` has the
    operations without these lines; the functions themselves are in `Graph._functions`. When a release breaks it: return
    nothing, and only the lines are lost.
    """
    graphs = {name: getattr(function, "graph", None) for name, function in graph._functions.items()}
    return {
        name.decode() if isinstance(name, bytes) else str(name): inner
        for name, inner in graphs.items()
        if inner is not None
    }


# A pipeline is a tree of data sets, each a node that knows its inputs. None of what follows has a public name; it is
# used to find out whether a place in the data can be found again, and how. When a release breaks it: the classes are
# in `tensorflow/python/data/ops`.


def dataset_kind(node: tf.data.Dataset) -> str:
    """Return what a node does, e.g. `ParallelMap`, by the name of its class."""
    return type(node).__name__.strip("_").removesuffix("V2").removesuffix("Dataset")


def dataset_inputs(node: tf.data.Dataset) -> list[tf.data.Dataset]:
    """Return the nodes that a node reads from (`_inputs`)."""
    return list(node._inputs())


def dataset_function_graphs(node: tf.data.Dataset) -> list[tf.Graph]:
    """Return the graphs of the functions that a node calls, such as that of a `map` (`_functions`)."""
    return [wrapper.function.graph for wrapper in node._functions()]


def dataset_tensors(node: tf.data.Dataset) -> list[tf.Tensor]:
    """Return the tensors that a node holds in memory (`_tensors`); none where it holds none."""
    return [tensor for tensor in getattr(node, "_tensors", ()) if isinstance(tensor, tf.Tensor)]


def dataset_is_deterministic(node: tf.data.Dataset) -> bool:
    """Return whether a parallel node was not told `deterministic=False` (`_deterministic`)."""
    return getattr(node, "_deterministic", "default") != "false"


def dataset_cache_file(node: tf.data.Dataset) -> bytes | None:
    """Return the file of a `cache` node (`_filename`): empty where it caches in memory, `None` if unknown."""
    return tf.get_static_value(getattr(node, "_filename", b""))


def dataset_graph(node: tf.data.Dataset) -> Any:
    """Return a node and all that is below it as a `GraphDef` (`_variant_tensor`)."""
    text = tf.raw_ops.DatasetToGraphV2(
        input_dataset=node._variant_tensor, external_state_policy=_WRITE_GRAPH_OF_STATEFUL
    )
    return tf.compat.v1.GraphDef.FromString(text.numpy())

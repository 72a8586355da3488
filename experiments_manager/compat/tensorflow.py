"""What the engine needs of TensorFlow and TensorFlow has no public name for.

`tests/compat/test_tensorflow.py` tests each function; where a new release fails there, look here for what to do.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Sequence
from types import FrameType
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


def operation_seed_state() -> dict[str, Any]:
    """Return from where operation seeds are drawn, as plain data (JSON).

    Use: what Python draws by `tf.random.*` outside of a graph goes on after a resume. Missing and when a release
    breaks it: see `seed_operations`.
    """
    from tensorflow.python.eager import context

    eager = context.context()
    version, numbers, gauss = eager._rng.getstate() if getattr(eager, "_rng", None) else (None, (), None)
    return {"seed": eager._seed, "numbers": [version, list(numbers), gauss]}


def restore_operation_seed_state(state: dict[str, Any]) -> None:
    """Put back what `operation_seed_state` returned."""
    version, numbers, gauss = state["numbers"]
    if version is not None:
        seed_operations(state["seed"])
        from tensorflow.python.eager import context

        context.context()._rng.setstate((version, tuple(numbers), gauss))


def python_called(token: str) -> Any:
    """Return the Python function that an operation calls, given its `token`; `None` if it is gone.

    Use: what a pipeline's Python holds is part of the user's state. Missing: TensorFlow keeps these functions in a
    registry of its own (`script_ops._py_funcs`). When a release breaks it: see where `tf.numpy_function` puts them.
    """
    from tensorflow.python.ops import script_ops

    found = script_ops._py_funcs.get(token.encode())
    return script_ops._py_funcs.get(token) if found is None else found


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
    """Return the tensors that a node holds in memory (`_tensors`), those of ragged and sparse ones one by one.

    There are none where it holds none; what only iterating could read (other pipelines) is left out.
    """
    held = [tensor for tensor in getattr(node, "_tensors", ()) if isinstance(tensor, tf.Tensor)]
    if all(tensor.dtype != tf.variant for tensor in held):
        return held
    specs = tf.nest.flatten(node.element_spec)
    pairs = zip(specs, held, strict=True) if len(specs) == len(held) else ()
    return [part for spec, tensor in pairs for part in _parts_of_variant(spec, tensor)]


def _parts_of_variant(spec: tf.TypeSpec, tensor: tf.Tensor) -> list[tf.Tensor]:
    if tensor.dtype != tf.variant:
        return [tensor]
    if isinstance(spec, tf.RaggedTensorSpec):
        parts = tf.raw_ops.RaggedTensorFromVariant(
            encoded_ragged=tensor,
            Tvalues=spec.dtype,
            Tsplits=spec.row_splits_dtype,
            input_ragged_rank=spec.ragged_rank,
            output_ragged_rank=spec.ragged_rank + tensor.shape.rank,
        )
        return [*parts.output_nested_splits, parts.output_dense_values]
    if isinstance(spec, tf.SparseTensorSpec):
        return list(tf.raw_ops.DeserializeSparse(serialized_sparse=tensor, dtype=spec.dtype))
    return []


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


# Whether a function of TensorFlow takes an argument that is no tensor is asked of dispatchers, after the function has
# raised a TypeError or a ValueError. There is a public way to register one for a single function and a single type
# (`tf.experimental.dispatch_for_api`), but none for all functions. When a release breaks it: see
# `tensorflow/python/util/dispatch.py`; what Keras 2 did with it is in `tf_keras/src/layers/core/tf_op_layer.py`.

_DISPATCHER = "op_dispatch_handler"
"""Name of the function by which TensorFlow wraps each of its own that asks dispatchers."""


def dispatch_functions(handle: Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]) -> None:
    """Let `handle` have the calls that functions of TensorFlow raise a TypeError or ValueError for.

    Only what user code has called is handed over, and not what that calls within TensorFlow itself, so a function is
    taken as a whole.

    Args:
        handle: Takes the function, its positional and its named arguments; gives `NotImplemented` to let it fail.
    """
    base = tf.__internal__.dispatch.GlobalOpDispatcher

    class Dispatcher(base):
        def handle(self, op: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            result = NotImplemented if _called_by_another(sys._getframe(1)) else handle(op, args, kwargs)
            return self.NOT_SUPPORTED if result is NotImplemented else result

    Dispatcher().register()


def _called_by_another(frame: FrameType | None) -> bool:
    """Return whether the dispatched function was called by another one, within TensorFlow's own code."""
    calls = 0
    while frame is not None and frame.f_globals.get("__name__", "").startswith("tensorflow."):
        calls += frame.f_code.co_name == _DISPATCHER
        frame = frame.f_back
    return calls > 1


def public_name(function: Callable[..., Any]) -> str | None:
    """Return the name of a function below `tf`, such as `math.reduce_mean`; `None` where it has none."""
    from tensorflow.python.util.tf_export import get_canonical_name_for_symbol

    return get_canonical_name_for_symbol(function, add_prefix_to_v1_names=True)


def function_named(name: str) -> Callable[..., Any]:
    """Return a function of TensorFlow that asks dispatchers, or of Keras' backend, by its full name.

    Args:
        name: Such as `tf.math.reduce_mean`.

    Raises:
        ValueError: There is none of that name.
    """
    package, *parts = name.split(".")
    found: Any = tf if package == "tf" else None
    for part in parts:
        found = getattr(found, part, None)
    asks = hasattr(found, "_tf_fallback_dispatchers") or parts[:2] == ["keras", "backend"]
    if not callable(found) or not asks:
        raise ValueError(f"{name!r} is no function for tensors. Expected one of TensorFlow. Check the name.")
    return found


def operation_keeps_state(kind: str) -> bool:
    """Return whether TensorFlow marks a kind of operation, such as `RandomUniform`, as one that has a state.

    Use: what a served graph does besides computing. Missing: `tf.Operation.op_def` tells it of operations in a graph,
    and those in its functions have names alone. When a release breaks it: return true, and requests share no calls.
    """
    from tensorflow.python.framework import op_def_registry

    definition = op_def_registry.get(kind)
    return definition is None or definition.is_stateful


def output_offset(node: Any, output: str) -> int:
    """Return which tensor of an operation is the first of one of its named outputs.

    Use: functions of a graph name tensors `node:output:number`, and graphs `node:number`. Missing:
    `tf.Operation.op_def` tells it of operations in a graph, not in its functions. When a release breaks it: raise
    KeyError, and requests share no calls.

    Args:
        node: The operation's `NodeDef`.
        output: Name of the output.

    Raises:
        KeyError: The kind of operation is not known, or has no such output.
    """
    from tensorflow.python.framework import op_def_registry

    definition, offset = op_def_registry.get(node.op), 0
    for known in definition.output_arg if definition is not None else ():
        if known.name == output:
            return offset
        if known.type_list_attr:
            offset += len(node.attr[known.type_list_attr].list.type)
        else:
            offset += node.attr[known.number_attr].i if known.number_attr else 1
    raise KeyError(f"{node.op} has no output {output}")

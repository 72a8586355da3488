"""Looking into traced graphs: what in them holds a state that no checkpoint can have?

TensorFlow keeps the state of `tf.random.uniform`, `tf.nn.dropout` and the like inside the operation's kernel, where
it cannot be read; Python that a graph calls holds whatever it likes. Variables are another matter: they can be read,
wherever they are kept.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

import tensorflow as tf

from experiments_manager.compat.tensorflow import graphs_within

PYTHON_OPERATIONS = ("PyFunc", "EagerPyFunc", "PyFuncStateless", "GeneratorDataset")
_MUTABLE = ("MutableHashTable", "MutableDenseHashTable", "LookupTableInsert", "LookupTableRemove", "Queue", "Barrier",
            "StackPush", "StackPop", "IteratorGetNext")  # fmt: skip
_VARIABLES = ("ReadVariable", "Assign", "Resource", "VarHandle", "Rng", "Stateful", "Variable")


@dataclasses.dataclass(frozen=True)
class Operation:
    """An operation of a graph, or of a function that it calls."""

    kind: str
    """Its type, e.g. `RandomUniform`."""
    is_random: bool
    """Whether it draws from a generator in its own kernel."""
    is_stateful: bool
    keeps_order: bool = True
    """Whether a parallel step of a pipeline gives its results in the order of its inputs."""
    files: tuple[tuple[str, int], ...] = ()
    """File and line of the frames in which it was made, the outermost first; none where they are not known."""

    token: str = ""
    """Of the Python that it calls."""

    @property
    def runs_python(self) -> bool:
        """Whether the graph calls functions of Python."""
        return self.kind in PYTHON_OPERATIONS

    @property
    def uses_variables(self) -> bool:
        """Whether it reads or writes a variable, a `tf.random.Generator`'s included."""
        return self.is_stateful and self.kind.startswith(_VARIABLES) and "PartitionedCall" not in self.kind

    @property
    def changes_structures(self) -> bool:
        """Whether it changes a table, a queue or an iterator that lives outside the graph."""
        return self.kind.startswith(_MUTABLE)


def operations(graph: Any) -> Iterator[Operation]:
    """Return all operations of a graph and of the functions in it."""
    seen: set[str] = set()
    yield from _with_places(graph, seen)
    for function in graph.as_graph_def().library.function:
        if function.signature.name not in seen:
            yield from map(_from_definition, function.node_def)


def definitions(graph: Any) -> Iterator[Operation]:
    """Yield the operations of a serialised graph (`GraphDef`) and of its functions."""
    yield from map(_from_definition, graph.node)
    for function in graph.library.function:
        yield from map(_from_definition, function.node_def)


def _with_places(graph: Any, seen: set[str]) -> Iterator[Operation]:
    for operation in graph.get_operations():
        attributes = {attribute.name for attribute in operation.op_def.attr}
        yield Operation(
            operation.type,
            {"seed", "seed2"} <= attributes and operation.op_def.is_stateful and not _draws_nothing(operation.node_def),
            operation.op_def.is_stateful,
            _keeps_order(operation.node_def),
            tuple((frame.filename, frame.lineno) for frame in operation.traceback or ()),
            _token(operation.node_def),
        )
    for name, inner in graphs_within(graph).items():
        if name not in seen:
            seen.add(name)
            yield from _with_places(inner, seen)


def _from_definition(node: Any) -> Operation:
    definition = getattr(tf.raw_ops, node.op, None)
    is_random = {"seed", "seed2"} <= set(node.attr) and not _draws_nothing(node)
    is_stateful = is_random or definition is None
    return Operation(node.op, is_random, is_stateful, _keeps_order(node), token=_token(node))


def _token(node: Any) -> str:
    return node.attr["token"].s.decode() if "token" in node.attr else ""


def _keeps_order(node: Any) -> bool:
    return "deterministic" not in node.attr or node.attr["deterministic"].s != b"false"


def _draws_nothing(node: Any) -> bool:
    """Return whether an operation that could draw random numbers, as cuDNN's recurrence for its dropout, does not."""
    dropout = node.attr["dropout"].f if "dropout" in node.attr else None
    return node.attr["deterministic"].b or dropout == 0.0


def captured_variables(functions: Iterable[Any], known: Iterable[Any] = ()) -> list[tf.Variable]:
    """List the variables that traced functions read or write, in the order in which they came to them.

    Args:
        functions: Concrete functions.
        known: Variables to leave out, the parts of those that are spread over several devices included.
    """
    seen = {id(part.handle) for variable in known for part in _parts(variable)}
    found: list[tf.Variable] = []
    for function in functions:
        by_handle = {id(variable.handle): variable for variable in function.graph.variables}
        for handle, _ in function.graph.captures:
            variable = by_handle.get(id(handle))
            if variable is not None and id(handle) not in seen:
                seen.add(id(handle))
                found.append(variable)
    return found


def _parts(variable: Any) -> list[Any]:
    values = getattr(variable, "values", None)  # of a variable of a distribution strategy
    parts = list(values) if isinstance(values, list | tuple) else [variable]
    return [part for part in parts if hasattr(part, "handle")]

"""Proof from the graph that each sample of a call has an answer of its own, whatever the others hold.

Trying a model (`serving/batching/row_proof.py`) shows what its kernels do with the values that were tried, and nothing
of a branch that a rare value takes. So the graph is read too: it is built anew, operation by operation, for a call of
so many samples, and for each tensor it is followed where the samples are in it (`row_rules`). An operation of which it
is not known that it keeps them apart ends the proof. Functions are read where they are called; loops until nothing
changes. Nothing is computed.

Two numbers of samples, both prime, are gone through: a size that happens to fit the one does not fit the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from experiments_manager.compat.tensorflow import output_offset
from experiments_manager.serving.models.row_analysis.flow import FREE, Flow, Kind, MixesRows, Value, joined, rows_along
from experiments_manager.serving.models.row_analysis.row_rules import follow_operation

_COUNTS = (11, 13)
_MOST_OPERATIONS = 20_000
"""A graph of more is not read: that takes longer than batching can save."""
_MOST_ROUNDS = 5
"""So often the body of a loop is read; where its tensors change on, nothing is proved."""
_MOST_DEPTH = 50

_CALLS = frozenset({"PartitionedCall", "StatefulPartitionedCall"})
_BRANCHES = frozenset({"If", "StatelessIf"})
_LOOPS = frozenset({"While", "StatelessWhile"})


def reason_rows_mix(graph: tf.Graph, inputs: Mapping[str, Sequence[int]], outputs: Mapping[str, str]) -> str:
    """Look for what may mix the samples of a call.

    Args:
        graph: The model's graph.
        inputs: Shapes of a sample by the names of the tensors that are fed, without the first dimension.
        outputs: Names of outputs by the names of their tensors.

    Returns:
        What is not proved; empty where samples are kept apart.
    """
    definition = graph.as_graph_def()
    types = {name: graph.get_tensor_by_name(name).dtype for name in inputs}
    sizes = []
    for count in _COUNTS:
        reader = _Reader(definition.library, count)
        with tf.Graph().as_default():
            fed = {}
            for name, shape in inputs.items():
                fed[name] = (tf.compat.v1.placeholder(types[name], [count, *shape]), rows_along(0))
            try:
                values = reader.read(definition.node, fed, list(outputs))
                for (tensor, flow), name in zip(values, outputs.values(), strict=True):
                    _check_output(tensor, flow, count, name)
            except MixesRows as found:
                return str(found)
        sizes.append(reader.sizes)
    return "" if sizes[0] == sizes[1] else "the number of samples is used in other places than shapes"


def _check_output(tensor: tf.Tensor, flow: Flow, count: int, name: str) -> None:
    by_row = flow == rows_along(0) or flow.kind is Kind.UNIFORM
    if not (by_row and tensor.shape.rank and tensor.shape[0] == count):
        raise MixesRows(f"its output {name} is not seen to be one for each sample")


class _Reader:
    """Reads graphs and functions for calls of `count` samples."""

    def __init__(self, library: Any, count: int) -> None:
        self._functions = {function.signature.name: function for function in library.function}
        self._count, self._operations, self._depth = count, 0, 0
        self.sizes: list[int] = []
        """Sizes out of shapes that were taken not to depend on the number of samples."""

    def read(self, nodes: Sequence[Any], given: Mapping[str, Value], wanted: Sequence[str]) -> list[Value]:
        """Follow samples from the tensors that are given to those that are wanted."""
        by_name = {node.name: node for node in nodes}
        values = {_node(name): [value] for name, value in given.items()}

        def value_of(name: str) -> Value:
            found, place = values[_node(name)], _place(name, by_name)
            if place >= len(found):
                raise MixesRows(f"its graph uses {name} in a way that is not known")
            return found[place]

        for node in _in_order(by_name, wanted, values):
            values[node.name] = list(self._follow(node, [value_of(name) for name in _data(node.input)]))
        return [value_of(name) for name in wanted]

    def _follow(self, node: Any, inputs: list[Value]) -> Sequence[Value]:
        self._operations += 1
        if self._operations > _MOST_OPERATIONS:
            raise MixesRows(f"its graph has more than {_MOST_OPERATIONS} operations, and is not read")
        if node.op in _CALLS:
            return self._call(node.attr["f"].func.name, inputs)
        if node.op in self._functions:
            return self._call(node.op, inputs)
        if node.op in _BRANCHES:
            return self._branch(node, inputs)
        if node.op in _LOOPS:
            return self._loop(node, inputs)
        operation = self._build(node, [tensor for tensor, _ in inputs])
        return follow_operation(operation, inputs, self._count, self.sizes, node.name)

    def _build(self, node: Any, inputs: list[tf.Tensor]) -> tf.Operation:
        """Build one operation, for the shapes of what it gives."""
        graph_def = tf.compat.v1.GraphDef()
        graph_def.versions.producer = tf.version.GRAPH_DEF_VERSION
        copy = graph_def.node.add()
        copy.CopyFrom(node)
        copy.name, copy.device = "operation", ""
        del copy.input[:]
        copy.input.extend(f"input_{place}:0" for place in range(len(inputs)))
        copy.attr.pop("_class", None)
        copy.attr.pop("_output_shapes", None)
        given = {f"input_{place}:0": tensor for place, tensor in enumerate(inputs)}
        try:
            [operation] = tf.import_graph_def(graph_def, given, return_elements=["operation"], name="read")
        except (ValueError, tf.errors.OpError) as error:
            raise MixesRows(f"it is not proved for {node.op}: {str(error).splitlines()[0][:200]}") from error
        return operation

    def _call(self, name: str, inputs: Sequence[Value]) -> list[Value]:
        function = self._functions[name]
        self._depth += 1
        if self._depth > _MOST_DEPTH:
            raise MixesRows(f"its function {name} calls itself")
        values = self.read(function.node_def, dict(zip(_arguments(function), inputs, strict=True)), _results(function))
        self._depth -= 1
        return values

    def _branch(self, node: Any, inputs: list[Value]) -> list[Value]:
        (_, condition), *arguments = inputs
        if condition != FREE:
            raise MixesRows(f"what samples hold, or their number, decides which branch all of them take ({node.op})")
        one, other = (self._call(node.attr[name].func.name, arguments) for name in ("then_branch", "else_branch"))
        values = []
        for (tensor, flow), (second, other_flow) in zip(one, other, strict=True):
            if tensor.shape.rank is None or tensor.shape.as_list() != second.shape.as_list():
                raise MixesRows("its branches give different shapes")
            values.append((_like(tensor), joined(flow, other_flow, tensor.shape, self._count)))
        return values

    def _loop(self, node: Any, inputs: list[Value]) -> list[Value]:
        """Read the body with what is known of its tensors, until it adds nothing to that."""
        body, condition = node.attr["body"].func.name, node.attr["cond"].func.name
        function = self._functions[body]
        kept = [one == other for one, other in zip(_arguments(function), _results(function), strict=True)]
        flows = [flow for _, flow in inputs]
        for _ in range(_MOST_ROUNDS):
            given = [
                (tensor if same else _like(tensor), flow)
                for (tensor, _), flow, same in zip(inputs, flows, kept, strict=True)
            ]
            if self._call(condition, given)[0][1] != FREE:
                raise MixesRows(
                    f"what samples hold, or their number, decides how often all go round a loop ({node.op})"
                )
            after = []
            for (tensor, flow), (changed, flow_after) in zip(given, self._call(body, given), strict=True):
                if tensor.dtype != tf.variant and tensor.shape.as_list() != changed.shape.as_list():
                    raise MixesRows("its loop changes shapes")
                after.append(joined(flow, flow_after, tensor.shape, self._count))
            if after == flows:
                return [
                    (tensor if same else _like(tensor), flow) for (tensor, flow), same in zip(given, kept, strict=True)
                ]
            flows = after
        raise MixesRows("what its loop does to the samples is not seen")


def _like(tensor: tf.Tensor) -> tf.Tensor:
    """Return a tensor of which nothing but type and shape is known."""
    if tensor.dtype == tf.resource:
        return tensor
    return tf.compat.v1.placeholder(tensor.dtype, tensor.shape)


def _arguments(function: Any) -> list[str]:
    return [argument.name for argument in function.signature.input_arg]


def _results(function: Any) -> list[str]:
    return [function.ret[result.name] for result in function.signature.output_arg]


def _data(inputs: Sequence[str]) -> list[str]:
    """Return inputs without control edges."""
    return [name for name in inputs if not name.startswith("^")]


def _node(name: str) -> str:
    return name.split(":")[0]


def _place(name: str, nodes: Mapping[str, Any]) -> int:
    """Return which tensor of an operation is meant: `node:2` in a graph, `node:output:2` in a function."""
    node, *where = name.split(":")
    if len(where) < 2:
        return int(where[0]) if where else 0
    return output_offset(nodes[node], where[0]) + int(where[1])


def _in_order(nodes: Mapping[str, Any], wanted: Sequence[str], known: Mapping[str, Any]) -> list[Any]:
    """Return the operations that the wanted tensors need, each after those that it needs itself."""
    ordered: list[Any] = []
    begun = set(known)
    waiting = [(_node(name), False) for name in wanted]
    while waiting:
        name, ready = waiting.pop()
        if ready:
            ordered.append(nodes[name])
        elif name not in begun:
            begun.add(name)
            waiting.append((name, True))
            waiting += [(_node(one), False) for one in _data(nodes[name].input)]
    return ordered

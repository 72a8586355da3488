"""What the graph itself says against putting samples of several requests into one call.

Whether the samples depend on each other is tried (`serving/batching/row_proof.py`). Here is what trying cannot see, or
must not do: a model that draws random numbers or keeps a state would be changed by it, and outputs that take a few
values only, such as the number of a class, may well hide that samples were mixed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import tensorflow as tf

from experiments_manager.compat.tensorflow import operation_keeps_state

_HARMLESS = re.compile(
    r"VarHandleOp|Variable(V2)?|ReadVariableOp|VarIsInitializedOp|IsVariableInitialized|ResourceGather(Nd)?"
    r"|(Anonymous)?(Mutable)?(Dense)?HashTable(OfTensors)?(V2)?|LookupTable(Find|Size|Export)(V2)?"
    r"|(Stateful)?PartitionedCall|(Stateless)?(If|While|Case)|Placeholder.*|Assert|_Arg|_Retval"
)
"""Kinds with a state that they do not change, or that other operations have."""
_RANDOM = re.compile("Random|Multinomial|Sampler|Shuffle|TruncatedNormal|Poisson|Gamma")
_LOOP = re.compile("(Ref)?NextIteration|(Stateless)?While")
_OVER_AN_AXIS = frozenset(
    {"Mean", "Sum", "Max", "Min", "Prod", "All", "Any", "ReverseV2", "Cumsum", "Cumprod", "ArgMax"}
)
_OVER_ALL = frozenset({"Unique", "UniqueV2", "UniqueWithCounts", "UniqueWithCountsV2", "ListDiff", "Bincount"})


def reason_to_run_alone(graph_def: Any, outputs: Mapping[str, tf.DType]) -> str:
    """Look for what keeps the calls of a signature from being shared.

    Args:
        graph_def: The graph.
        outputs: Types of the signature's outputs by the names of their tensors.

    Returns:
        The reason, empty where there is none.
    """
    continuous = any(dtype.is_floating or dtype.is_complex for dtype in outputs.values())
    mixing = ""
    for bodies in _reachable(graph_def, outputs):
        nodes = {node.name: node for node in bodies}
        for node in bodies:
            if (
                operation_keeps_state(node.op)
                and not _HARMLESS.fullmatch(node.op)
                and not _is_function(graph_def, node)
            ):
                what = "draws random numbers" if _RANDOM.search(node.op) else "may keep a state between requests"
                return f"its graph {what} ({node.op})"
            if not continuous and not mixing and _mixes(node, nodes):
                mixing = (
                    f"its graph has an operation over all samples ({node.op}), which outputs of few values may hide"
                )
    return mixing


def has_loops(graph_def: Any, outputs: Iterable[str]) -> bool:
    """Return whether what computes these tensors has loops, which infinity may keep from ending."""
    return any(_LOOP.fullmatch(node.op) for nodes in _reachable(graph_def, outputs) for node in nodes)


def _is_function(graph_def: Any, node: Any) -> bool:
    """Return whether a node calls a function by its name, as older graphs do."""
    return any(function.signature.name == node.op for function in graph_def.library.function)


def _reachable(graph_def: Any, outputs: Iterable[str]) -> Iterator[list[Any]]:
    """Yield what computes the outputs: nodes of the graph, and the whole of each function that is called."""
    nodes = {node.name: node for node in graph_def.node}
    waiting = [name.split(":")[0] for name in outputs]
    seen: dict[str, Any] = {}
    while waiting:
        name = waiting.pop()
        if name in nodes and name not in seen:
            seen[name] = nodes[name]
            waiting += [given.lstrip("^").split(":")[0] for given in nodes[name].input]
    yield list(seen.values())
    functions = {function.signature.name: list(function.node_def) for function in graph_def.library.function}
    called, known = _called(seen.values()), set()
    while called:
        name = called.pop()
        if name in functions and name not in known:
            known.add(name)
            yield functions[name]
            called |= _called(functions[name])


def _called(nodes: Iterable[Any]) -> set[str]:
    names = set()
    for node in nodes:
        names.add(node.op)
        for value in node.attr.values():
            names |= {value.func.name} if value.HasField("func") else {one.name for one in value.list.func}
    return names


def _mixes(node: Any, nodes: Mapping[str, Any]) -> bool:
    if node.op.startswith("FusedBatchNorm") and "Grad" not in node.op:
        return "is_training" not in node.attr or node.attr["is_training"].b
    if node.op in _OVER_ALL:
        return True
    if node.op not in _OVER_AN_AXIS or len(node.input) < 2:
        return False
    axes = nodes.get(node.input[1].split(":")[0])
    return axes is not None and axes.op == "Const" and 0 in tf.make_ndarray(axes.attr["value"].tensor).ravel().tolist()

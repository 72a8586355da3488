"""What the graph itself says against putting samples of several requests into one call.

Whether the samples depend on each other is tried (`serving/batching/row_proof.py`), and proved from the graph
(`row_flow`). Here is what forbids to try: a model that draws random numbers or keeps a state would be changed by it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from experiments_manager.compat.tensorflow import operation_keeps_state

_HARMLESS = re.compile(
    r"VarHandleOp|Variable(V2)?|ReadVariableOp|VarIsInitializedOp|IsVariableInitialized|ResourceGather(Nd)?"
    r"|(Anonymous)?(Mutable)?(Dense)?HashTable(OfTensors)?(V2)?|LookupTable(Find|Size|Export)(V2)?"
    r"|(Stateful)?PartitionedCall|(Stateless)?(If|While|Case)|Placeholder.*|Assert|_Arg|_Retval"
)
"""Kinds with a state that they do not change, or that other operations have."""
_RANDOM = re.compile("Random|Multinomial|Sampler|Shuffle|TruncatedNormal|Poisson|Gamma")
_LOOP = re.compile("(Ref)?NextIteration|(Stateless)?While")


def reason_to_run_alone(graph_def: Any, outputs: Iterable[str]) -> str:
    """Look for what keeps the calls of a signature from being shared.

    Args:
        graph_def: The graph.
        outputs: Names of the tensors that are the signature's outputs.

    Returns:
        The reason, empty where there is none.
    """
    for bodies in _reachable(graph_def, outputs):
        for node in bodies:
            if (
                operation_keeps_state(node.op)
                and not _HARMLESS.fullmatch(node.op)
                and not _is_function(graph_def, node)
            ):
                what = "draws random numbers" if _RANDOM.search(node.op) else "may keep a state between requests"
                return f"its graph {what} ({node.op})"
    return ""


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

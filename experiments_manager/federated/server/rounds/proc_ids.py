"""Which client is behind which node."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from experiments_manager.federated.strategies.reply_checks import LeftOut, proc_id_of

if TYPE_CHECKING:
    from flwr.app import Message


class ProcIds:
    """Learns clients' numbers from what they answer, so that one that fails or is silent can be named.

    Args:
        grid: One that knows the numbers by itself has `proc_id_of`.
    """

    def __init__(self, grid: Any) -> None:
        self._by_rule = getattr(grid, "proc_id_of", None)
        self.known: dict[int, int] = {}
        """The number of the client at each node, as far as it was told."""

    def learn(self, replies: Iterable[Message]) -> None:
        """Note what clients tell of themselves."""
        for reply in replies:
            told = proc_id_of(reply)
            if told is not None:
                self.known[reply.metadata.src_node_id] = told

    def of_node(self, node_id: int) -> int | None:
        """Return the number of the client at a node; `None` where it never told it."""
        return self._by_rule(node_id) if self._by_rule is not None else self.known.get(node_id)

    def named(self, left_out: Iterable[LeftOut]) -> list[LeftOut]:
        """Return who is left out, in order, each with its number if that is known."""
        named = [
            dataclasses.replace(entry, proc_id=self.of_node(entry.node_id)) if entry.proc_id is None else entry
            for entry in left_out
        ]
        return sorted(named, key=lambda entry: (entry.proc_id is None, entry.proc_id or 0, entry.node_id))


def name_of(entry: LeftOut) -> str:
    """Return how a message names a client."""
    return f"client {entry.proc_id}" if entry.proc_id is not None else f"the client at node {entry.node_id}"

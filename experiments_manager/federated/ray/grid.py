"""The grid of Flower's simulation, as the rounds of a federation want it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from experiments_manager.federated.array_records import to_arrays, to_record, widened_dtypes
from experiments_manager.federated.base_grid import InProcessGrid
from experiments_manager.federated.ray.actor import KEPT, KEPT_DTYPES, PROC_ID
from experiments_manager.federated.simulation.local_grid import LocalGrid, numbered

if TYPE_CHECKING:
    from flwr.supercore.run import Run

_POLL_SECONDS = 0.02


class RayGrid(InProcessGrid):
    """Gives clients the nodes that they have in a `LocalGrid`, and keeps for them what they keep between rounds.

    Flower numbers nodes by chance. Here they are counted, so that strategies choose the same clients and add in the
    same order as where all clients are in one process. What a client keeps goes with the message and comes back with
    the answer: any process can train for any client, and it can be saved with the run.

    Args:
        grid: Flower's own.
        check: Raises where the simulation has ended.
    """

    def __init__(self, grid: Grid, check: Callable[[], None]) -> None:
        self._grid, self._check = grid, check
        self._nodes = sorted(grid.get_node_ids())
        self._sent: dict[str, Message] = {}
        self._replies: dict[str, Message] = {}
        self.kept: dict[int, Mapping[str, np.ndarray]] = {}
        """What each client goes on from, by its number."""
        self.left: dict[int, Mapping[str, np.ndarray]] = {}
        """What each client was left with by the round that runs; it goes on from there if the round counts."""

    @staticmethod
    def proc_id_of(node_id: int) -> int:
        """Return the client's number of a node."""
        return LocalGrid.proc_id_of(node_id)

    @property
    def run(self) -> Run:
        """The run of Flower's own grid."""
        return self._grid.run

    def get_node_ids(self) -> list[int]:
        """Return the nodes, in the order of the clients."""
        return [LocalGrid.node_of(number) for number in range(len(self._nodes))]

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Hand messages to Flower and return a number for each; it is empty where Flower does not take one."""
        self._check()
        return [self._push(message) for message in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Return the replies that are there, in the order of the clients; each only once."""
        numbers = list(message_ids)
        self._receive(numbers)
        found = [self._replies.pop(number) for number in numbers if number in self._replies]
        return sorted(found, key=lambda reply: reply.metadata.src_node_id)

    def wait_for_replies(self, message_ids: Iterable[str], seconds: float | None) -> None:
        """Wait until all of these messages are answered, or so many seconds passed."""
        numbers, end = set(message_ids), None if seconds is None else time.monotonic() + seconds
        while True:
            self._check()
            self._receive(numbers)
            if numbers <= self._replies.keys() or (end is not None and time.monotonic() >= end):
                return
            time.sleep(_POLL_SECONDS)

    def abandon(self, message_ids: Iterable[str]) -> None:
        """Wait no longer for the replies to these messages."""
        for number in message_ids:
            self._sent.pop(number, None)
            self._replies.pop(number, None)

    def _push(self, message: Message) -> str:
        proc_id = self.proc_id_of(message.metadata.dst_node_id)
        kept = self.kept.get(proc_id, {})
        told = {PROC_ID: proc_id, KEPT_DTYPES: widened_dtypes(kept)}
        config = ConfigRecord({**message.content.config_records.get("config", {}), **told})
        content: dict[str, Any] = {**message.content, "config": config}
        if kept:
            content[KEPT] = to_record(kept)
        metadata = message.metadata
        sent = Message(
            RecordDict(content),
            self._nodes[proc_id],
            metadata.message_type,
            ttl=metadata.ttl,
            group_id=metadata.group_id,
        )
        number = next(iter(self._grid.push_messages([sent])), "")
        if number:
            self._sent[number] = Message(message.content, metadata=numbered(metadata, number))
        return number

    def _receive(self, numbers: Iterable[str]) -> None:
        waiting = [number for number in numbers if number in self._sent]
        for reply in self._grid.pull_messages(waiting) if waiting else ():
            number = reply.metadata.reply_to_message_id
            sent = self._sent.pop(number, None)
            if sent is None:
                continue
            if reply.has_error():
                self._replies[number] = Message(reply.error, reply_to=sent)
                continue
            content = reply.content
            if KEPT in content:
                dtypes = content.config_records["client"].pop(KEPT_DTYPES, ())
                kept = to_arrays(content.array_records[KEPT], dtypes)
                self.left[self.proc_id_of(sent.metadata.dst_node_id)] = kept
                del content[KEPT]
            self._replies[number] = Message(content, reply_to=sent)

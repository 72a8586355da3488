"""Who is there: waiting for enough clients, and a list of them that stays the same while a round is set up."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from flwr.app import Message
from flwr.serverapp import Grid

from experiments_manager.federated.base_grid import BaseGrid

if TYPE_CHECKING:
    from flwr.supercore.run import Run

_POLL_SECONDS = 0.25
_MINIMA = ("min_available_nodes", "min_train_nodes", "min_evaluate_nodes")


def nodes_needed(strategy: Any, min_clients: int) -> int:
    """Return how many nodes must be there before a strategy can choose among them.

    Flower's strategies wait for them without an end and without asking whether to stop, so that is done before.

    Args:
        strategy: The strategy; one that wraps another has it as `strategy`.
        min_clients: What the settings ask for.
    """
    needed = [min_clients]
    while strategy is not None:
        needed += [value for name in _MINIMA if isinstance(value := getattr(strategy, name, None), int)]
        strategy = getattr(strategy, "strategy", None)
    return max(needed)


def wait_for_nodes(grid: Grid, needed: int, *, timeout: float | None, should_stop: Callable[[], bool]) -> list[int]:
    """Wait until enough nodes are there.

    Returns:
        The nodes in order; fewer than needed after `timeout` seconds, or where `should_stop` said so.
    """
    end = None if timeout is None else time.monotonic() + timeout
    while True:
        nodes = sorted(grid.get_node_ids())
        left = _POLL_SECONDS if end is None else min(_POLL_SECONDS, end - time.monotonic())
        if len(nodes) >= needed or left <= 0 or should_stop():
            return nodes
        time.sleep(left)


class FixedNodes(BaseGrid):
    """A grid as it was at one moment: strategies see the same nodes in the same order until a round is set up."""

    def __init__(self, grid: Grid, nodes: Iterable[int]) -> None:
        self._grid, self._nodes = grid, list(nodes)

    def get_node_ids(self) -> list[int]:
        """Return the nodes that were there."""
        return list(self._nodes)

    @property
    def run(self) -> Run:
        """The run of the grid itself."""
        return self._grid.run

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send by the grid itself."""
        return self._grid.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Receive by the grid itself."""
        return self._grid.pull_messages(message_ids)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Send and receive by the grid itself."""
        return self._grid.send_and_receive(messages, timeout=timeout)

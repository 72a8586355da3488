"""Messages out, replies back: grids, who is there, and an exchange that is in time, stoppable, and counted.

This module imports flwr: import it after `flower()`.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid

from experiments_manager.compat.flower import in_process_run
from experiments_manager.federated.errors import FederationError

if TYPE_CHECKING:
    from flwr.supercore.run import Run

_POLL_SECONDS = 0.25
_MARGIN_SECONDS = 60.0
"""How much longer than the server waits a message may live: the clocks of two machines differ."""


class BaseGrid(Grid):
    """What the grids of all fleets do alike; their run is known to whoever started them."""

    @property
    def run(self) -> Run:
        """A run that says nothing; Flower's `Grid` asks for one."""
        return in_process_run()

    def set_run(self, run: Run) -> None:
        """No-op: the run is known to whoever started the grid."""

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """Make a message, as `Message(…)` does."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Send messages and return the replies that came in time, in the order of the nodes."""
        replies = exchange(self, list(messages), timeout=timeout).replies
        return sorted(replies, key=lambda reply: reply.metadata.src_node_id)

    def wait_for_replies(self, message_ids: Iterable[str], seconds: float) -> None:
        """Wait until all of these messages are answered, or so many seconds passed; here, as long in any case."""
        time.sleep(seconds)

    def abandon(self, message_ids: Iterable[str]) -> None:
        """Wait no longer for the replies to these messages."""


class FixedNodes(BaseGrid):
    """A grid as it was at one moment: strategies see the same nodes in the same order until a round is set up."""

    def __init__(self, grid: Grid, nodes: Iterable[int]) -> None:
        self._grid, self._nodes = grid, list(nodes)

    def get_node_ids(self) -> list[int]:
        """Return the nodes that were there."""
        return list(self._nodes)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send by the grid itself."""
        return self._grid.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Receive by the grid itself."""
        return self._grid.pull_messages(message_ids)


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


@dataclasses.dataclass(frozen=True)
class Exchange:
    """The replies to the messages of a round, and who did not answer."""

    replies: list[Message]
    silent: list[int]
    """Nodes that did not answer in time, or whose message could not be sent."""
    bytes_sent: int
    bytes_received: int


def exchange(
    grid: BaseGrid,
    messages: Sequence[Message],
    *,
    timeout: float | None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Exchange:
    """Send messages and wait for their replies.

    Args:
        grid: Sends and receives.
        messages: One a node.
        timeout: Seconds to wait; `None` waits as long as it takes.
        should_stop: Asked some times a second; if it says so, what has come so far is returned.

    Raises:
        FederationError: No message could be sent.
    """
    if timeout is not None:
        for message in messages:
            message.metadata.ttl = min(message.metadata.ttl, timeout + _MARGIN_SECONDS)
    sent = sum(size_of(message) for message in messages)
    numbers = list(grid.push_messages(messages))
    if messages and not any(numbers):
        raise FederationError(
            f"None of {len(messages)} messages of {sent // len(messages)} bytes could be sent to the clients. "
            "Expected the SuperLink to take them. Look into its log; its limits for messages may be smaller."
        )
    # Flower gives an empty number for a message that it did not take.
    pending = {number: message for number, message in zip(numbers, messages, strict=True) if number}
    silent = [message.metadata.dst_node_id for number, message in zip(numbers, messages, strict=True) if not number]
    replies = _collect(grid, pending, timeout, should_stop)
    silent += [message.metadata.dst_node_id for message in pending.values()]
    return Exchange(replies, silent, sent, sum(size_of(reply) for reply in replies))


def _collect(
    grid: BaseGrid, pending: dict[str, Message], timeout: float | None, should_stop: Callable[[], bool]
) -> list[Message]:
    """Return the replies that come in time, and leave in `pending` what was not answered."""
    end = None if timeout is None else time.monotonic() + timeout
    replies: list[Message] = []
    while pending:
        for reply in grid.pull_messages(list(pending)):
            message = pending.pop(reply.metadata.reply_to_message_id, None)
            if message is not None:
                replies.append(_from_its_node(reply, message))
        left = _POLL_SECONDS if end is None else min(_POLL_SECONDS, end - time.monotonic())
        if not pending or left <= 0 or should_stop():
            break
        grid.wait_for_replies(list(pending), left)
    if pending:
        grid.abandon(list(pending))
    return replies


def _from_its_node(reply: Message, message: Message) -> Message:
    """Return the reply; an error that the SuperLink gave in the client's place gets the client's node."""
    if reply.has_error() and reply.metadata.src_node_id != message.metadata.dst_node_id:
        return Message(reply.error, reply_to=message)
    return reply


def size_of(message: Message) -> int:
    """Return how many bytes the arrays, numbers and names of a message take; an error has none."""
    return sum(_size_of_record(record) for record in message.content.values()) if message.has_content() else 0


def _size_of_record(record: Any) -> int:
    """Return Flower's own count, without lists that have no entry: on these it fails."""
    if not isinstance(record, ConfigRecord | MetricRecord):
        return record.count_bytes()
    empty = [name for name, value in record.items() if value == []]
    if not empty:
        return record.count_bytes()
    return sum(map(len, empty)) + type(record)({k: v for k, v in record.items() if k not in empty}).count_bytes()

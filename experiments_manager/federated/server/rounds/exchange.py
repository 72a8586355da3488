"""Messages out, replies back: in time, stoppable, and counted."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from flwr.app import ConfigRecord, MetricRecord

from experiments_manager.federated.base_grid import InProcessGrid
from experiments_manager.federated.errors import FederationError

if TYPE_CHECKING:
    from flwr.app import Message
    from flwr.serverapp import Grid

_POLL_SECONDS = 0.25
_MARGIN_SECONDS = 60.0
"""How much longer than the server waits a message may live: the clocks of two machines differ."""


@dataclasses.dataclass(frozen=True)
class Exchange:
    """The replies to the messages of a round, and who did not answer."""

    replies: list[Message]
    silent: list[int]
    """Nodes that did not answer in time, or whose message could not be sent."""
    bytes_sent: int
    bytes_received: int


def exchange(
    grid: Grid, messages: Sequence[Message], *, timeout: float | None, should_stop: Callable[[], bool]
) -> Exchange:
    """Send messages and wait for their replies.

    Args:
        grid: Flower's, or one of this process.
        messages: One a node.
        timeout: Seconds to wait; `None` waits as long as it takes.
        should_stop: Asked some times a second; if it says so, what has come so far is returned.

    Raises:
        FederationError: No message could be sent.
    """
    messages = list(messages)
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
    grid: Grid, pending: dict[str, Message], timeout: float | None, should_stop: Callable[[], bool]
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
        if isinstance(grid, InProcessGrid):
            grid.wait_for_replies(list(pending), left)
        else:
            time.sleep(left)
    if pending and isinstance(grid, InProcessGrid):
        grid.abandon(list(pending))
    return replies


def _from_its_node(reply: Message, message: Message) -> Message:
    """Return the reply; an error that the SuperLink gave in the client's place gets the client's node."""
    from flwr.app import Message

    node_id = message.metadata.dst_node_id
    if reply.has_error() and reply.metadata.src_node_id != node_id:
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

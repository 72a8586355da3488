"""What the grids of all fleets do alike: how a message is made, and how replies in this process are waited for.

This module imports flwr: import it after `flower()`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

if TYPE_CHECKING:
    from flwr.supercore.run import Run


class BaseGrid(Grid):
    """A grid whose run is set by whoever started it."""

    def set_run(self, run: Run) -> None:
        """No-op: the run is known to whoever started the grid."""

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """Make a message, as `Message(…)` does."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)


class InProcessGrid(BaseGrid):
    """A grid that is told at once when a reply is there."""

    @abstractmethod
    def wait_for_replies(self, message_ids: Iterable[str], seconds: float | None) -> None:
        """Wait until all of these messages are answered, or so many seconds passed."""

    @abstractmethod
    def abandon(self, message_ids: Iterable[str]) -> None:
        """Wait no longer for the replies to these messages."""

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Send messages and return the replies that came in time, in the order of the clients."""
        numbers = [number for number in self.push_messages(messages) if number]
        self.wait_for_replies(numbers, timeout)
        replies = self.pull_messages(numbers)
        self.abandon(numbers)
        return replies

"""Committing offsets for those who watch a run, without ever making it wait."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from experiments_manager.kafka.connection import BrokerConnection, confluent_kafka
from experiments_manager.kafka.errors import TopicError

CLOSING_SECONDS = 5.0
"""What the end of a run waits for the last commit, where the broker is away."""


class OffsetCommitter:
    """Commits offsets of a topic to a consumer group: one request at a time, and of those that wait only the newest.

    Requests that are under way together may overtake each other. What cannot be committed is left out; nothing but a
    picture of the lag depends on it.

    Args:
        connection: How to reach the broker.
        topic: The topic.
        group: The consumer group, which has no other members.
    """

    def __init__(self, connection: BrokerConnection, topic: str, group: str) -> None:
        self._kafka, self._topic, self._group = confluent_kafka(), topic, group
        self._wanted: Mapping[int, int] | None = None
        self._is_under_way = False
        self._consumer = self._kafka.Consumer(
            connection.config(group_id=group, enable_auto_commit=False) | {"on_commit": self._on_commit}
        )

    def commit(self, offsets: Mapping[int, int]) -> None:
        """Let offsets be committed as soon as may be."""
        self._wanted = dict(offsets)
        self._go_on(0.0)

    def close(self) -> None:
        """Wait a moment for the last commit, and leave the broker."""
        until = time.monotonic() + CLOSING_SECONDS
        while (self._is_under_way or self._wanted) and time.monotonic() < until:
            self._go_on(0.05)
        leave(self._consumer.close, self._group, CLOSING_SECONDS)

    def _go_on(self, seconds: float) -> None:
        with contextlib.suppress(self._kafka.KafkaException, TopicError):
            if self._is_under_way:
                self._consumer.poll(seconds)  # calls `_on_commit`
            if self._wanted and not self._is_under_way:
                places = [self._kafka.TopicPartition(self._topic, *place) for place in sorted(self._wanted.items())]
                self._wanted, self._is_under_way = None, True
                self._consumer.commit(offsets=places, asynchronous=True)

    def _on_commit(self, error: Any, places: Any) -> None:
        self._is_under_way = False


def leave(close: Callable[[], None], group: str, seconds: float) -> None:
    """Close a consumer, and wait so long for it: while the broker is away, librdkafka may never get an answer."""
    leaving = threading.Thread(target=close, name=f"leaving {group}", daemon=True)
    leaving.start()
    leaving.join(seconds)

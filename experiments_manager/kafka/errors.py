"""What can go wrong between an experiment and a Kafka topic."""

from __future__ import annotations

from experiments_manager.common.errors import UserError


class TopicError(UserError):
    """A broker, a topic or what it holds is not as expected; the message says how to fix it."""


class RecordError(ValueError):
    """A record cannot be decoded, or samples cannot be encoded; the message says why."""


class PartitionsLostError(TopicError):
    """A consumer group took partitions away from a member that did not answer."""


class NoBrokerError(TopicError):
    """No broker answers at present, or none that is ready for the question."""

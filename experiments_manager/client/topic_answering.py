"""Predictions from and to Kafka topics: what is opened, and in which order."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

from experiments_manager.client.client import Client
from experiments_manager.client.errors import ClientError
from experiments_manager.client.inputs.topic_records import TopicRecords
from experiments_manager.client.model_info import ModelInfo, listed
from experiments_manager.client.outputs.topic import AnswerRecords, FileAnswers, Refusals, TopicAnswers, TopicWriter
from experiments_manager.client.outputs.writer import PredictionWriter
from experiments_manager.client.topic_options import TopicOptions, topic_of
from experiments_manager.kafka.answering.session import AnsweringSession
from experiments_manager.kafka.answering.topic_requests import TopicRequests
from experiments_manager.kafka.dead_letters import DeadLetters
from experiments_manager.kafka.topics import Topics


def check_table(output: str | None) -> str:
    """Return where the table of the answers to a topic goes.

    Raises:
        ClientError: It would be no table.
    """
    if output is None or (output != "-" and Path(output).suffix.lower() != ".csv"):
        raise ClientError(
            "The answers to a topic go to another topic, or into a table as they come. Expected --to kafka:TOPIC, "
            f"--to FILE.csv or --to -, got {'nothing' if output is None else output}. A killed client could not "
            "finish any other file."
        )
    return output


def topic_writer(client: Client, topic: str, options: TopicOptions) -> TopicWriter:
    """Open a topic for the answers to anything but a topic."""
    return TopicWriter(options.connection, AnswerRecords(options.connection, topic, client.info()))


class AnsweredTopic:
    """A topic whose records are answered into another topic, or into a table.

    Args:
        client: Asks the model.
        topic: The topic.
        output: `kafka:TOPIC`, a `.csv` file, or `-`.
        options: How topics are read and written.

    Attributes:
        requests: What to ask.
        on_answer: Takes each request with its outputs.
        on_refused: Takes each request with the server's refusal.
        files: The files that are written.

    Raises:
        TopicError: No broker answers, or the topic is missing.
        ClientError: Its records do not fit the model.
    """

    def __init__(self, client: Client, topic: str, output: str | None, options: TopicOptions) -> None:
        target = topic_of(output)
        table = None if target else check_table(output)
        if target == topic:
            raise ClientError(f"The answers to topic {topic} would become questions. Expected another topic by --to.")
        connection, info = options.connection, client.info()
        partitions = Topics(connection).partitions(topic)
        records = TopicRecords(connection, topic, info)
        self._answers = AnswerRecords(connection, target, info, len(partitions)) if target else None
        self._writer = None if table is None else PredictionWriter.for_output(table, Path())
        self.files = self._writer.files if self._writer else []
        group = options.group or f"{client.model}.{topic}.{target or uuid.uuid4().hex}"
        self._session = AnsweringSession(connection, topic, group, options.instance)
        self._dead_letters = DeadLetters(connection, topic)
        requests = TopicRequests(self._session, records.request, self._dead_letters, options.max_bad)
        batch_size = min(options.batch_size, _most_samples(info))
        self.requests = requests.read(batch_size, options.count, options.idle_timeout)
        if self._answers:
            self.on_answer: Any = TopicAnswers(self._session, self._answers)
        else:
            self.on_answer = FileAnswers(self._session, self._writer)
        self.on_refused = Refusals(client, self._session, requests, self.on_answer)

    @property
    def dead(self) -> int:
        """How many records went to `<topic>.dead`."""
        return self._session.written[self._dead_letters.topic]

    @property
    def places(self) -> list[str]:
        """Where the answers, and the records without one, are."""
        answered = [f"topic {self._answers.topic}"] if self._answers else []
        return answered + ([f"topic {self._dead_letters.topic}: {self.dead:,} without an answer"] if self.dead else [])

    def close(self) -> None:
        """Commit what is answered, and leave.

        Raises:
            TopicError: It cannot be committed.
        """
        try:
            if self._writer:
                self._writer.close()
        finally:
            self._session.close()


def _most_samples(info: ModelInfo) -> int:
    """Return how many samples a request may have.

    Raises:
        ClientError: The model takes only batches of several samples.
    """
    sizes = {tensor.shape[0] for tensor in info.inputs.values() if tensor.shape} - {None}
    if sizes - {1}:
        raise ClientError(
            f"Model {info.name} takes batches of one size: {listed(info.inputs)}. Expected `any` as first size, or 1. "
            "Serve it with another signature."
        )
    return 1 if sizes else 1 << 30

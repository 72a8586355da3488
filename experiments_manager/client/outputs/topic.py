"""Answers as records of a Kafka topic, and what becomes of records that a model refuses.

A record of answers holds as many samples as the record that was asked about, by the names of the model's outputs; its
key is that of the question, and its headers say where that stands.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from experiments_manager.client.client import Client, Prediction
from experiments_manager.client.errors import ClientError
from experiments_manager.client.inputs.topic_records import TopicRequest
from experiments_manager.client.model_info import ModelInfo, listed
from experiments_manager.client.outputs.writer import PredictionWriter
from experiments_manager.kafka.answering.session import AnsweringSession
from experiments_manager.kafka.answering.topic_requests import TopicRequests
from experiments_manager.kafka.connection import REQUEST_SECONDS, BrokerConnection, confluent_kafka
from experiments_manager.kafka.errors import RecordError, TopicError
from experiments_manager.kafka.producing.producer import producer_config
from experiments_manager.kafka.records.record_format import RecordFormat
from experiments_manager.kafka.records.structure import STRING, Leaf, Structure
from experiments_manager.kafka.topics import Outgoing, Topics, place_headers
from experiments_manager.protocol.status import Code


class AnswerRecords:
    """Encodes a model's outputs as records.

    Args:
        connection: How to reach the broker.
        topic: Where the answers go; it is created if it is missing.
        info: The model.
        partitions: Partitions of a topic that is created.

    Raises:
        ClientError: An output has no batch.
        TopicError: The topic cannot be created.
    """

    def __init__(self, connection: BrokerConnection, topic: str, info: ModelInfo, partitions: int = 1) -> None:
        if without := [name for name, tensor in info.outputs.items() if tensor.shape == ()]:
            raise ClientError(
                f"The output {without[0]} of model {info.name} has no batch, so it cannot be told which record it "
                f"answers. Expected one entry a sample, got {listed(info.outputs)}. Serve the model with other outputs."
            )
        self._connection, self.topic = connection, topic
        topics = Topics(connection)
        topics.create(topic, partitions)
        self.partitions = len(topics.partitions(topic))
        self._topics = topics
        self._format: RecordFormat | None = None
        if all(tensor.shape is not None for tensor in info.outputs.values()):
            leaves = [_leaf(name, tensor.dtype, tensor.shape[1:]) for name, tensor in info.outputs.items()]
            self._store({name: number for number, name in enumerate(info.outputs)}, leaves)

    def encode(self, outputs: Prediction, counts: Sequence[int]) -> list[bytes]:
        """Return one record for each count of samples.

        Raises:
            ClientError: The outputs are not those that the topic's structure tells.
        """
        if self._format is None:  # a model that does not tell the rank of its outputs
            leaves = [_leaf(name, value.dtype, (None,) * (value.ndim - 1)) for name, value in outputs.items()]
            self._store({name: number for number, name in enumerate(outputs)}, leaves)
        names, records, start = self._format.structure.nest, [], 0
        try:
            for count, run in itertools.groupby(counts):
                stop = start + count * sum(1 for _ in run)
                part = {name: _samples(name, outputs, sum(counts))[start:stop] for name in names if name in outputs}
                records += self._format.encode(part, count)
                start = stop
        except RecordError as error:
            raise ClientError(
                f"Version {outputs.version} gives other outputs than topic {self.topic} holds. {error} Answer into "
                "another topic, or ask for one version by --model-version."
            ) from error
        return records

    def _store(self, nest: dict[str, int], leaves: Sequence[Leaf]) -> None:
        structure = Structure(nest, tuple(leaves))
        self._topics.store_structure(self.topic, structure)
        self._format = RecordFormat(structure)


class TopicAnswers:
    """What becomes of the answers to a topic: records of another one, in one transaction with what they answer.

    Args:
        session: Where the questions come from.
        records: Encodes the answers.
    """

    def __init__(self, session: AnsweringSession, records: AnswerRecords) -> None:
        self._session, self._records = session, records

    def __call__(self, request: TopicRequest, outputs: Prediction) -> None:
        """Take the answer to a request."""
        encoded = self._records.encode(outputs, request.counts.tolist())
        pairs = zip(request.batch.messages, encoded, strict=True)
        self._session.settle(request.batch, [self._answer(message, value, outputs.version) for message, value in pairs])

    def _answer(self, message: Any, value: bytes, version: int) -> Outgoing:
        partition = message.partition() % self._records.partitions
        place = place_headers(message.topic(), message.partition(), message.offset())
        headers = (*place, ("model_version", b"%d" % version))
        return Outgoing(self._records.topic, value, message.key(), partition, headers)


class FileAnswers:
    """The answers to a topic in a table: at least once, since no transaction holds a file.

    Args:
        session: Where the questions come from.
        writer: Writes the table.
    """

    def __init__(self, session: AnsweringSession, writer: PredictionWriter) -> None:
        self._session, self._writer = session, writer

    def __call__(self, request: TopicRequest, outputs: Prediction) -> None:
        """Take the answer to a request.

        Raises:
            ClientError: An output has no entry for each sample.
        """
        for name in outputs:
            _samples(name, outputs, int(request.counts.sum()))
        for index, message in enumerate(request.batch.messages):
            part = Prediction(request.part(outputs, index), outputs.version, outputs.seconds, b"")
            self._writer.write(f"{message.partition()}:{message.offset()}", outputs.version, part)
        self._session.settle(request.batch)


class Refusals:
    """Finds the records that a model refuses among those of a request, and answers the others.

    Args:
        client: Asks again.
        session: Where the records are settled.
        requests: Takes the refused ones.
        on_answer: Called with the requests of single records that are answered, and their outputs.
    """

    def __init__(
        self,
        client: Client,
        session: AnsweringSession,
        requests: TopicRequests[TopicRequest],
        on_answer: Callable[[TopicRequest, Prediction], None],
    ) -> None:
        self._client, self._session = client, session
        self._requests, self._on_answer = requests, on_answer

    def __call__(self, request: TopicRequest, error: ClientError) -> None:
        """Take the refusal of a request.

        Raises:
            ClientError: It was not the records that the server refused.
        """
        if error.code != Code.INVALID_ARGUMENT:
            raise error
        if request.answers == 1:
            self._requests.refuse(request.batch, error)
            return
        for single in self._session.split(request.batch):
            alone = request.alone(single)
            try:
                outputs = self._client.predict(alone)
            except ClientError as refusal:
                self(alone, refusal)
            else:
                self._on_answer(alone, outputs)


class TopicWriter:
    """The answers to anything but a topic, as records of a topic: at least once, if the command is repeated.

    Args:
        connection: How to reach the broker.
        records: Encodes the answers.
    """

    def __init__(self, connection: BrokerConnection, records: AnswerRecords) -> None:
        self._connection, self._records = connection, records
        self._written, self._failures = 0, []
        config = producer_config(connection) | {"on_delivery": self._reported}
        self._producer = confluent_kafka().Producer(config)

    def write(self, label: str, version: int, outputs: Prediction) -> None:
        """Add the answer to one request, which may hold several samples.

        Raises:
            ClientError: The outputs have no batch, or are not those of the answers before.
            TopicError: A record was given up.
        """
        count = next((len(value) for value in outputs.values() if value.ndim), 0)
        headers = [("sample", label.encode("utf-8", "backslashreplace")), ("model_version", b"%d" % version)]
        for value in self._records.encode(outputs, [count]):
            partition = self._written % self._records.partitions
            Outgoing(self._records.topic, value, None, partition, headers).hand_to(self._producer)
            self._written += 1
        self._producer.poll(0)
        self._require_delivery()

    def close(self) -> None:
        """Wait until the broker has everything.

        Raises:
            TopicError: It has not.
        """
        left = self._producer.flush(REQUEST_SECONDS)
        self._require_delivery()
        if left:
            raise self._connection.no_broker()

    def _reported(self, error: Any, message: Any) -> None:
        if error is not None:
            self._failures.append(error)

    def _require_delivery(self) -> None:
        if self._failures:
            raise TopicError(
                f"{len(self._failures)} of {self._written} answers did not reach topic {self._records.topic}: "
                f"{self._failures[0].str()}. Predict again."
            )


def _leaf(name: str, dtype: np.dtype, shape: Sequence[int | None]) -> Leaf:
    return Leaf(f"x/{name}", STRING if dtype.hasobject else dtype.name, tuple(shape))


def _samples(name: str, outputs: Prediction, count: int) -> np.ndarray:
    value = outputs[name]
    if value.ndim == 0 or len(value) != count:
        raise ClientError(
            f"The output {name} of version {outputs.version} has the shape {list(value.shape)} for {count} samples, so "
            "it is unknown which record it answers. Expected one entry a sample. Serve the model with other outputs."
        )
    return value

"""Records that have no answer: they go to `<topic>.dead`, as they are, with the reason and their place as headers."""

from __future__ import annotations

import logging
from typing import Any

from experiments_manager.client.client import Client, Prediction
from experiments_manager.client.errors import ClientError
from experiments_manager.client.inputs.topic_requests import TopicRequest
from experiments_manager.kafka.answering.group_member import Outgoing
from experiments_manager.kafka.answering.session import AnsweringSession
from experiments_manager.kafka.connection import BrokerConnection
from experiments_manager.kafka.reading.dead_letters import dead_letter_headers
from experiments_manager.kafka.topics import DEAD_SUFFIX, Topics
from experiments_manager.protocol.status import Code

logger = logging.getLogger(__name__)


class DeadLetters:
    """What is written for records that cannot be decoded, or that the model refuses.

    Args:
        connection: How to reach the broker.
        topic: The topic of the records.
    """

    def __init__(self, connection: BrokerConnection, topic: str) -> None:
        self._connection = connection
        self.topic = topic + DEAD_SUFFIX
        self._exists = False

    def letter(self, message: Any, error: Exception) -> Outgoing:
        """Return what is written for a record.

        Raises:
            TopicError: The topic cannot be created.
        """
        if not self._exists:
            Topics(self._connection).create(self.topic)
            self._exists = True
            logger.warning(
                "Record %d of partition %d has no answer and goes to topic %s: %s",
                message.offset(),
                message.partition(),
                self.topic,
                error,
            )
        headers = dead_letter_headers(message.topic(), message.partition(), message.offset(), error)
        return Outgoing(self.topic, message.value(), message.key(), None, headers)


class Refusals:
    """Finds the records that a model refuses among those of a request, and answers the others.

    Args:
        client: Asks again.
        session: Where refused records are settled.
        dead_letters: Takes them.
        on_answer: Called with the requests of single records that are answered, and their outputs.
    """

    def __init__(self, client: Client, session: AnsweringSession, dead_letters: DeadLetters, on_answer: Any) -> None:
        self._client, self._session = client, session
        self._dead_letters, self._on_answer = dead_letters, on_answer

    def __call__(self, request: TopicRequest, error: ClientError) -> None:
        """Take the refusal of a request.

        Raises:
            ClientError: It was not the records that the server refused.
        """
        if error.code != Code.INVALID_ARGUMENT:
            raise error
        if request.answers == 1:
            self._session.settle(request.batch, [self._dead_letters.letter(request.batch.messages[0], error)])
            return
        for single in self._session.split(request.batch):
            alone = request.alone(single)
            try:
                outputs: Prediction = self._client.predict(alone)
            except ClientError as refusal:
                self(alone, refusal)
            else:
                self._on_answer(alone, outputs)

"""A message of the server, answered by local training: the same in one process and behind a SuperNode."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments_manager.common.error_text import named_reason
from experiments_manager.common.errors import UserError
from experiments_manager.compat.flower import SecureProtocol
from experiments_manager.federated.array_records import ARRAY_DTYPES, to_arrays, to_record
from experiments_manager.federated.errors import FederationError
from experiments_manager.federated.local.task import LocalTask

if TYPE_CHECKING:
    from flwr.app import Message, RecordDict

    from experiments_manager.federated.client.private_answers import PrivateAnswers
    from experiments_manager.federated.client.secure_answers import SecureAnswers
    from experiments_manager.federated.local.trainer import LocalTrainer

logger = logging.getLogger(__name__)

CLIENT_FAILED = 2
"""Code of an error reply; Flower's own for a client that raised."""


def answer(
    message: Message,
    trainer: LocalTrainer | None,
    proc_id: int,
    privacy: PrivateAnswers | None = None,
    secure: SecureAnswers | None = None,
) -> Message:
    """Do what a message asks for and return the reply.

    Args:
        message: Of the type `train` or `evaluate`, with the records `arrays` and `config`.
        trainer: Does the work; messages of secure aggregation need none.
        proc_id: The client's number, which is told with the reply.
        privacy: What is applied to trained weights before they are sent.
        secure: Keeps trained weights, which leave the client with masks on alone.

    Returns:
        The reply, or one that holds an error of one sentence where the work failed.
    """
    from flwr.app import Error, Message

    try:
        content = answer_content(message.metadata.message_type, message.content, trainer, proc_id, privacy, secure)
        return Message(content, reply_to=message)
    except Exception as error:  # whatever a user's hook raised: the server must hear of it, and other clients go on
        sentence = str(error) if isinstance(error, UserError) else f"{named_reason(error)}."
        logger.warning("Client %d could not answer: %s", proc_id, sentence)
        logger.debug("That came from:", exc_info=error)
        return Message(Error(CLIENT_FAILED, sentence), reply_to=message)


def answer_content(
    message_type: str,
    content: RecordDict,
    trainer: LocalTrainer | None,
    proc_id: int,
    privacy: PrivateAnswers | None = None,
    secure: SecureAnswers | None = None,
) -> RecordDict:
    """Do what a message asks for and return what the reply holds; as `answer`, for who has no whole message.

    Args:
        message_type: `train` or `evaluate`.
        content: With the records `arrays` and `config`.
        trainer: Does the work; messages of secure aggregation need none.
        proc_id: The client's number, which is told with the reply.
        privacy: What is applied to trained weights before they are sent.
        secure: Keeps trained weights, which leave the client with masks on alone.

    Raises:
        FederationError: The message is not as expected.
        Exception: Whatever the trainer raises.
    """
    from flwr.app import ConfigRecord, MetricRecord, RecordDict

    kind = message_type.split(".")[0]
    if SecureProtocol.is_stage(content):
        if secure is None:
            raise FederationError(
                "The server aggregates securely, and this client does not. Expected the same. Set "
                "federated['secure_aggregation'] on both sides."
            )
        return secure.stage(content, proc_id)
    config = content.config_records.get("config", {})
    weights = _weights(content, config)
    records: dict[str, Any] = {}
    if kind == "train":
        result = trainer.train(
            weights,
            LocalTask(
                round=int(config.get("server-round", 0)),
                epochs=int(config.get("local-epochs", 1)),
                proximal_mu=float(config.get("proximal-mu", 0.0)),
                steps_before=int(config.get("steps-before", 0)),
                rate_scale=float(config.get("rate-scale", 1.0)),
            ),
        )
        records["arrays"] = to_record(_in_order(result.weights, weights))
    elif kind == "evaluate":
        result = trainer.evaluate(weights)
    else:
        raise FederationError(
            f"The server sent a message of the type {message_type}. Expected train or evaluate. "
            "Use the same release of experiments_manager on both sides."
        )
    metrics = {name: float(value) for name, value in result.logs.items()}
    counts = {"num-examples": float(result.samples)}
    if kind == "train":
        counts["num-steps"] = float(result.steps)
    records["metrics"] = MetricRecord(counts | metrics)
    records["client"] = ConfigRecord({"proc-id": int(proc_id)})
    answered = RecordDict(records)
    if kind != "train":
        return answered
    if privacy is not None:
        answered = privacy.applied(content, answered, proc_id)
    return answered if secure is None else secure.kept(weights, answered, int(config.get("server-round", 0)))


def _weights(content: RecordDict, config: Mapping[str, Any]) -> dict[str, np.ndarray]:
    record = content.array_records.get("arrays")
    if record is None:
        raise FederationError(
            f"The server sent no weights. Expected a record named arrays, got {', '.join(content) or 'nothing'}. "
            "Use the same release of experiments_manager on both sides."
        )
    return to_arrays(record, config.get(ARRAY_DTYPES, ()))


def _in_order(trained: Mapping[str, np.ndarray], sent: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    """Return trained arrays in the order of those that were sent; where the names differ, the server says so."""
    return {name: trained[name] for name in sent} if set(trained) == set(sent) else trained

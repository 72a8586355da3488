"""Messages of the server, answered by local training: the same in one process and behind a SuperNode."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import numpy as np
from flwr.app import ConfigRecord, MetricRecord, RecordDict

from experiments_manager.compat.flower import SecureProtocol
from experiments_manager.federated.client.private_answers import PrivateAnswers
from experiments_manager.federated.client.secure_answers import SecureAnswers
from experiments_manager.federated.errors import FederationError
from experiments_manager.federated.local.task import LocalTask
from experiments_manager.federated.message_records import ARRAY_DTYPES, CLIENT, EXAMPLES, PROC_ID, to_arrays, to_record
from experiments_manager.settings import Settings

if TYPE_CHECKING:
    from experiments_manager.federated.local.client import FederatedClient
    from experiments_manager.federated.local.trainer import LocalTrainer

Work = Callable[[], AbstractContextManager[tuple["LocalTrainer", "FederatedClient"]]]
"""Gives a trainer and the client for which it trains, for as long as they are needed."""


class ClientAnswers:
    """Answers for one client.

    Args:
        proc_id: Its number, which is told with each reply.
        privacy: What is applied to trained weights before they are sent.
        secure: Keeps trained weights, which leave the client with masks on alone; `None` sends them as they are.
    """

    def __init__(self, proc_id: int, privacy: PrivateAnswers, secure: SecureAnswers | None = None) -> None:
        self._proc_id, self._privacy, self._secure = proc_id, privacy, secure

    @classmethod
    def of(cls, settings: Settings, proc_id: int, noise_seed: int | None = None) -> ClientAnswers:
        """Return what answers as checked settings say; see `PrivateAnswers` for the seed."""
        return cls(proc_id, PrivateAnswers.of(settings, noise_seed), SecureAnswers.of(settings))

    def answer(self, message_type: str, content: RecordDict, work: Work) -> RecordDict:
        """Do what a message asks for and return what the reply holds.

        Args:
            message_type: `train` or `evaluate`.
            content: With the records `arrays` and `config`, or one of a stage of secure aggregation.
            work: Asked for who does the work; a stage of secure aggregation needs nobody.

        Raises:
            FederationError: The message is not as expected.
            Exception: Whatever the work raises.
        """
        if SecureProtocol.is_stage(content):
            if self._secure is None:
                raise FederationError(
                    "The server aggregates securely, and this client does not. Expected the same. Set "
                    "federated['secure_aggregation'] on both sides."
                )
            return self._secure.stage(content, self._proc_id)
        kind = message_type.split(".")[0]
        if kind not in ("train", "evaluate"):
            raise FederationError(
                f"The server sent a message of the type {message_type}. Expected train or evaluate. "
                "Use the same release of experiments_manager on both sides."
            )
        config = content.config_records.get("config", {})
        weights = _weights(content, config)
        with work() as (trainer, client):
            if kind == "evaluate":
                result = trainer.evaluate(client, weights)
            else:
                result = trainer.train(client, weights, _task(config))
        numbers = {EXAMPLES: float(result.samples), **({"num-steps": float(result.steps)} if kind == "train" else {})}
        records: dict[str, Any] = {
            "metrics": MetricRecord(numbers | {name: float(value) for name, value in result.logs.items()}),
            CLIENT: ConfigRecord({PROC_ID: int(self._proc_id)}),
        }
        if kind == "evaluate":
            return RecordDict(records)
        records = {"arrays": to_record(_in_order(result.weights, weights)), **records}
        answered = self._privacy.apply(content, RecordDict(records), self._proc_id)
        if self._secure is None:
            return answered
        return self._secure.keep(weights, answered, int(config.get("server-round", 0)))


def _task(config: Mapping[str, Any]) -> LocalTask:
    return LocalTask(
        round=int(config.get("server-round", 0)),
        epochs=int(config.get("local-epochs", 1)),
        proximal_mu=float(config.get("proximal-mu", 0.0)),
        steps_before=int(config.get("steps-before", 0)),
        rate_scale=float(config.get("rate-scale", 1.0)),
    )


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

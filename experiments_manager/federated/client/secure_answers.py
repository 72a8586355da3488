"""Secure aggregation at the client: its update leaves it with masks on, which only the sum of all is free of.

The client trains first and keeps what came out; what it answers tells numbers alone. Then the server asks for the four
stages of SecAgg+, which Flower's `secaggplus_mod` answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments_manager.compat.flower import SecureProtocol, identify_process
from experiments_manager.federated.errors import FederationError
from experiments_manager.federated.message_records import (
    MAX_WEIGHT,
    NODE,
    ROUND,
    SECURE,
    SHARES,
    THRESHOLD,
    to_arrays,
)
from experiments_manager.federated.server.seeds import seeded
from experiments_manager.settings import Settings
from experiments_manager.settings.options.secure_aggregation import SecureAggregation

if TYPE_CHECKING:
    from flwr.app import RecordDict

_ROUNDING = 5
"""Names this part of a round among those that are seeded."""


class SecureAnswers:
    """What a client keeps between the messages of a round.

    Args:
        options: Of the client's own settings; the server must ask for the same.
        seed: Rounding follows from it, the client's number and the round; it hides nothing.
    """

    def __init__(self, options: SecureAggregation, seed: int) -> None:
        self._options, self._seed = options, seed
        self._round: int | None = None
        self._update = np.zeros(0)
        self._examples = 0
        self._protocol: SecureProtocol | None = None

    @classmethod
    def of(cls, settings: Settings) -> SecureAnswers | None:
        """Return what the settings ask a client for; `None` where updates are sent as they are."""
        options = SecureAggregation.of(settings.federated)
        return None if options is None else cls(options, settings.random_seed)

    def keep(self, sent: Mapping[str, np.ndarray], answered: RecordDict, round: int) -> RecordDict:  # noqa: A002
        """Keep what training came to, and return the reply without it.

        Args:
            sent: The weights from which it was trained.
            answered: The reply, with the trained weights.
            round: Of the server.

        Raises:
            FederationError: The update is larger than can be masked, or not finite.
        """
        trained = to_arrays(answered.array_records["arrays"])
        self._update = _update(sent, trained, self._options.clipping_range)
        self._examples = int(answered.metric_records["metrics"]["num-examples"])
        self._round, self._protocol = round, None
        del answered["arrays"]
        return answered

    def stage(self, content: RecordDict, proc_id: int) -> RecordDict:
        """Answer a message of the protocol.

        Raises:
            FederationError: It does not fit to what was trained, or asks for less safety than the settings say.
        """
        told = content.config_records.get(SECURE, {})
        round = told.get(ROUND)  # noqa: A001
        if self._round is None or round != self._round:
            raise FederationError(
                f"The server asks for the update of round {round}, and this client has that of round {self._round}. "
                "Expected the same round. It takes part again in the next one."
            )
        protocol = self._protocol = self._begun(told) if SecureProtocol.begins(content) else self._protocol
        if protocol is None:
            raise FederationError("The server goes on with a secure aggregation that this client has not begun.")
        identify_process()
        with seeded(self._seed, self._round, proc_id, _ROUNDING):
            answered = protocol.answer(content)
        if protocol.is_over:  # its secrets are of no use any more, and nobody is to ask for them again
            self._round, self._protocol, self._update = None, None, np.zeros(0)
        return answered

    def _begun(self, told: Mapping[str, Any]) -> SecureProtocol:
        shares, threshold, weight = told[SHARES], told[THRESHOLD], told[MAX_WEIGHT]
        if self._options.for_clients(max(3, shares))[1] > threshold or threshold * 2 <= shares:
            raise FederationError(
                f"The server asks for {threshold} of {shares} shares to take masks off. Expected more, as the settings "
                "of this client say (federated['secure_aggregation']). Use the same settings on both sides."
            )
        if self._examples > weight:
            raise FederationError(f"The server masks for {weight:g} samples. Expected at least {self._examples}.")
        return SecureProtocol(told[NODE], self._update, self._examples, self._options.model_dump(), threshold)


def _update(sent: Mapping[str, np.ndarray], trained: Mapping[str, np.ndarray], limit: float) -> np.ndarray:
    """Return all changes in a row, in the order in which the variables were sent."""
    changes = []
    for name, before in sent.items():
        if name not in trained or trained[name].shape != before.shape:
            raise FederationError(f"The trained weights have no {name!r} of the shape {before.shape}.")
        change = np.ravel(trained[name].astype("float64") - before.astype("float64"))
        largest = np.abs(change).max(initial=0.0)
        if not largest <= limit:
            raise FederationError(
                f"{name!r} changed by {largest:g} in this round, which cannot be masked. Expected at most {limit:g}. "
                "Set federated['secure_aggregation'] = {'clipping_range': …}, lower the learning rate, or keep the "
                "layer at the client (federated_local_layers)."
            )
        changes.append(change)
    return np.concatenate(changes) if changes else np.zeros(0)

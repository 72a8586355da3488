"""Differential privacy at the client: what it sends is clipped there, and noise is added, by Flower's own mods."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from experiments_manager.compat.flower import identify_process
from experiments_manager.federated.errors import FederationError
from experiments_manager.federated.flower import flower
from experiments_manager.federated.server.rounds.seeds import seeded
from experiments_manager.settings import Settings

if TYPE_CHECKING:
    from flwr.app import Context, Message, RecordDict

_NOISE = 4
"""Names this part of a round among those that are seeded."""


class PrivateAnswers:
    """Applies mods to answers to messages of training.

    Args:
        mods: From `strategies/privacy.py`, the outermost first.
        seed: Noise follows from it, the client's number and the round: for a simulation. `None` draws it from the
            operating system: a server that knows the settings cannot compute the noise of a client, and take it away.
    """

    def __init__(self, mods: Sequence[Callable[..., Any]], seed: int | None) -> None:
        self._mods, self._seed = list(mods), seed

    @classmethod
    def of(cls, settings: Settings, seed: int | None = None) -> PrivateAnswers:
        """Return what the settings ask clients for.

        Args:
            settings: Checked settings.
            seed: As for the class.

        Raises:
            FederationError: The setting `federated` is wrong.
        """
        flower()
        from experiments_manager.federated.strategies.catalogue import checked_strategy
        from experiments_manager.federated.strategies.privacy import client_mods, mods_for

        if settings.has("federated_strategy"):
            return cls(mods_for(checked_strategy(settings.call("federated_strategy"))), seed)
        return cls(client_mods(settings.federated), seed)

    def applied(self, sent: RecordDict, answered: RecordDict, proc_id: int) -> RecordDict:
        """Return what a client may send.

        Args:
            sent: What the server sent for training.
            answered: The records that training came to; they are changed.
            proc_id: The client's number.

        Raises:
            FederationError: It cannot be clipped.
        """
        if not self._mods:
            return answered
        from flwr.app import Context, Message, RecordDict

        from experiments_manager.federated.strategies.privacy import with_mods

        def trained(message: Message, _: Context) -> Message:
            return Message(answered, reply_to=message)

        identify_process()
        message = Message(sent, max(1, proc_id), "train")
        context = Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config={})
        seed = secrets.randbits(63) if self._seed is None else self._seed
        try:
            with seeded(seed, int(sent.config_records["config"].get("server-round", 0)), proc_id, _NOISE):
                reply = with_mods(trained, self._mods)(message, context)
        except ZeroDivisionError:
            raise FederationError("Its training changed no variable, so there is no update to clip.") from None
        if reply.has_error():
            raise FederationError(f"Its update cannot be clipped. {reply.error.reason}")
        return reply.content

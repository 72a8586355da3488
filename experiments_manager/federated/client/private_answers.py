"""Differential privacy at the client: what it sends is clipped there, and noise is added, by Flower's own mods."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from flwr.app import ArrayRecord, Context, Message, RecordDict
from flwr.clientapp.mod import LocalDpMod, adaptiveclipping_mod, fixedclipping_mod
from flwr.serverapp.strategy import (
    DifferentialPrivacyClientSideAdaptiveClipping,
    DifferentialPrivacyClientSideFixedClipping,
)

from experiments_manager.compat.flower import identify_process
from experiments_manager.federated.errors import FederationError
from experiments_manager.federated.server.seeds import seeded
from experiments_manager.federated.strategies.catalogue import checked_strategy
from experiments_manager.federated.strategies.server_strategy import is_float, layers_of
from experiments_manager.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping

Mod = Callable[[Message, Context, Callable[[Message, Context], Message]], Message]

_NOISE = 4
"""Names this part of a round among those that are seeded."""
_MODS: dict[str, tuple[type, Mod]] = {
    "fixed": (DifferentialPrivacyClientSideFixedClipping, fixedclipping_mod),
    "adaptive": (DifferentialPrivacyClientSideAdaptiveClipping, adaptiveclipping_mod),
}
"""By the way of clipping: what wraps the strategy at the server, and what clients apply."""


class PrivateAnswers:
    """Applies a mod to answers to messages of training.

    Args:
        mod: From `mod_of`.
        seed: Noise follows from it, the client's number and the round: for a simulation. `None` draws it from the
            operating system: a server that knows the settings cannot compute the noise of a client, and take it away.
    """

    def __init__(self, mod: Mod | None, seed: int | None) -> None:
        self._mod, self._seed = mod, seed

    @classmethod
    def of(cls, settings: Settings, seed: int | None = None) -> PrivateAnswers:
        """Return what checked settings ask clients for.

        Raises:
            FederationError: The hook `federated_strategy` returned no strategy.
        """
        if settings.has("federated_strategy"):
            return cls(mod_for(checked_strategy(settings.call("federated_strategy"))), seed)
        return cls(mod_of(settings.federated.get("differential_privacy")), seed)

    def apply(self, sent: RecordDict, answered: RecordDict, proc_id: int) -> RecordDict:
        """Return what a client may send. The mod sees the variables that it can clip: those of real numbers.

        Args:
            sent: What the server sent for training.
            answered: The records that training came to; they are changed.
            proc_id: The client's number.

        Raises:
            FederationError: It cannot be clipped.
        """
        if self._mod is None:
            return answered

        def trained(message: Message, _: Context) -> Message:
            return Message(_of_floats(answered), reply_to=message)

        identify_process()
        message = Message(_of_floats(sent), max(1, proc_id), "train")
        context = Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config={})
        seed = secrets.randbits(63) if self._seed is None else self._seed
        try:
            with seeded(seed, int(sent.config_records["config"].get("server-round", 0)), proc_id, _NOISE):
                reply = self._mod(message, context, trained)
        except ZeroDivisionError:
            raise FederationError("Its training changed no variable, so there is no update to clip.") from None
        if reply.has_error():
            raise FederationError(f"Its update cannot be clipped. {reply.error.reason}")
        for key, trained_arrays in answered.array_records.items():
            clipped = reply.content.array_records[key]
            reply.content[key] = ArrayRecord({name: clipped.get(name, a) for name, a in trained_arrays.items()})
        return reply.content


def mod_of(privacy: Mapping[str, Any] | None) -> Mod | None:
    """Return what clients apply where `federated['differential_privacy']`, which was checked, asks them for it."""
    side = "server" if privacy is None else privacy.get("side", "server")
    if side == "server":
        return None
    if side == "local":
        return LocalDpMod(**{name: value for name, value in privacy.items() if name != "side"})
    return _MODS[privacy.get("clipping", "fixed")][1]


def mod_for(strategy: Any) -> Mod | None:
    """Return what clients apply where a hook chose the strategy, and not the settings."""
    found = (mod for layer in layers_of(strategy) for wrapper, mod in _MODS.values() if isinstance(layer, wrapper))
    return next(found, None)


def _of_floats(content: RecordDict) -> RecordDict:
    return RecordDict(
        {
            key: ArrayRecord({k: a for k, a in held.items() if is_float(a)}) if isinstance(held, ArrayRecord) else held
            for key, held in content.items()
        }
    )

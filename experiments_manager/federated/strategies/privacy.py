"""Differential privacy: what wraps the strategy at the server, and what clients apply to what they send."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import flwr.serverapp.strategy as flower_strategies
from flwr.app import ArrayRecord, Context, Message, RecordDict
from flwr.clientapp.mod import LocalDpMod, adaptiveclipping_mod, fixedclipping_mod
from flwr.serverapp.strategy import Strategy

from experiments_manager.common.suggestions import did_you_mean
from experiments_manager.federated.strategies.option_checks import problems_of_options
from experiments_manager.federated.strategies.server_strategy import is_float

Handler = Callable[[Message, Context], Message]
Mod = Callable[[Message, Context, Handler], Message]

_SIDES = ("server", "client", "local")
_CLIPPINGS = ("fixed", "adaptive")
_MODS = {"fixed": fixedclipping_mod, "adaptive": adaptiveclipping_mod}
_CHOICES = {"side": _SIDES, "clipping": _CLIPPINGS}


def privacy_problems(privacy: Any, min_clients: Any, clustered: bool) -> list[str]:
    """Return everything that is wrong with `federated['differential_privacy']`, a sentence each."""
    place = "federated['differential_privacy']"
    if not isinstance(privacy, Mapping):
        return [f"{place} is wrong. Expected a dictionary, got {privacy!r}."]
    problems = []
    for key, known in _CHOICES.items():
        if (got := privacy.get(key, known[0])) not in known:
            hint = did_you_mean(got, known) if isinstance(got, str) else ""
            expected = ", ".join(repr(each) for each in known)
            problems.append(f"{place}[{key!r}] is wrong. Expected one of {expected}; got {got!r}. {hint}".rstrip())
    if problems:
        return problems
    if clustered and privacy.get("side", "server") != "local":
        problems.append(
            f"{place}['side'] must be 'local' with a clustered strategy: noise that the server adds to the "
            "mean of all models does not protect the model of a cluster."
        )
    return problems + problems_of_options(
        place, _kind(privacy), _options(privacy), {"num_sampled_clients": min_clients}
    )


def privately(strategy: Strategy, privacy: Mapping[str, Any], min_clients: int) -> Strategy:
    """Wrap a strategy as `federated['differential_privacy']`, which was checked, asks for.

    Args:
        strategy: The strategy that aggregates.
        privacy: `side`: `server` (which clips what it gets), `client` (where the mod clips) or `local` (clients clip
            and add noise; nothing is wrapped). `clipping`: `fixed` or `adaptive`. All else are options of Flower's
            class, or of `LocalDpMod`.
        min_clients: How many clients a round has where `num_sampled_clients` is not told.
    """
    if privacy.get("side", "server") == "local":
        return strategy
    return _kind(privacy)(strategy, **{"num_sampled_clients": min_clients, **_options(privacy)})


def client_mods(federated: Mapping[str, Any]) -> list[Mod]:
    """Return what clients apply to messages of training, the outermost first; messages of other types pass.

    Args:
        federated: The setting, which was checked.
    """
    privacy = federated.get("differential_privacy")
    if privacy is None or privacy.get("side", "server") == "server":
        return []
    if privacy["side"] == "local":
        return [_on_floats(LocalDpMod(**_options(privacy)))]
    return [_on_floats(_MODS[privacy.get("clipping", "fixed")])]


def mods_for(strategy: Strategy) -> list[Mod]:
    """Return what clients apply to messages of training where a hook chose the strategy, not the settings."""
    inner: Any = strategy
    while inner is not None:
        for clipping, mod in _MODS.items():
            if isinstance(inner, _kind({"side": "client", "clipping": clipping})):
                return [_on_floats(mod)]
        inner = getattr(inner, "strategy", None)
    return []


def with_mods(handler: Handler, mods: list[Mod]) -> Handler:
    """Return a handler of messages to which mods are applied, the first of them outermost."""
    for mod in reversed(mods):
        handler = _applied(mod, handler)
    return handler


def _applied(mod: Mod, handler: Handler) -> Handler:
    return lambda message, context: mod(message, context, handler)


def _on_floats(mod: Mod) -> Mod:
    """Let a mod see training alone, and of it the variables that it can clip: those of real numbers."""

    def on_floats(message: Message, context: Context, handler: Handler) -> Message:
        if message.metadata.message_type.split(".")[0] != "train":
            return handler(message, context)
        whole = message.content
        others: dict[str, Any] = {}

        def inner(_: Message, inner_context: Context) -> Message:
            message.content = whole
            reply = handler(message, inner_context)
            if reply.has_content():
                others.update({k: a for record in reply.content.array_records.values() for k, a in record.items()})
                reply.content = _of_floats(reply.content)
            return reply

        message.content = _of_floats(whole)
        reply = mod(message, context, inner)
        message.content = whole
        if reply.has_content():
            for key, record in list(reply.content.array_records.items()):
                reply.content[key] = ArrayRecord({k: record.get(k, a) for k, a in others.items()})
        return reply

    return on_floats


def _of_floats(content: RecordDict) -> RecordDict:
    return RecordDict(
        {
            key: ArrayRecord({k: a for k, a in held.items() if is_float(a)}) if isinstance(held, ArrayRecord) else held
            for key, held in content.items()
        }
    )


def _kind(privacy: Mapping[str, Any]) -> type:
    side = privacy.get("side", "server")
    if side == "local":
        return LocalDpMod
    clipping = privacy.get("clipping", "fixed").capitalize()
    return getattr(flower_strategies, f"DifferentialPrivacy{side.capitalize()}Side{clipping}Clipping")


def _options(privacy: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is for Flower's class; `clipping` chooses the class, but local privacy has only one."""
    names = ("side",) if privacy.get("side") == "local" else tuple(_CHOICES)
    return {name: value for name, value in privacy.items() if name not in names}

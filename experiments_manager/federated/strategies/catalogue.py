"""From the setting `federated` to a strategy: Flower's by name, ours, or one that a hook returns."""

from __future__ import annotations

import inspect
from collections.abc import Collection
from typing import Any

import flwr.serverapp.strategy as flower_strategies
from flwr.serverapp.strategy import Strategy

from experiments_manager.federated.errors import FederationError
from experiments_manager.federated.message_records import EXAMPLES
from experiments_manager.federated.strategies.clustered import ClusteredCosine, ClusteredSpectral
from experiments_manager.federated.strategies.server_strategy import ServerStrategy, layers_of
from experiments_manager.settings import Settings
from experiments_manager.settings.options.federated import STRATEGIES, FederatedOptions

_OURS = {"ClusteredCosine": ClusteredCosine, "ClusteredSpectral": ClusteredSpectral}
_WORDS = {"weighted_by_key": EXAMPLES, "arrayrecord_key": "arrays", "configrecord_key": "config"}


def make_strategy(settings: Settings, options: FederatedOptions, averaged: Collection[str] = ()) -> ServerStrategy:
    """Return the strategy of a federation, new: what it remembers is put into it.

    Args:
        settings: With the hook `federated_strategy`, or without it.
        options: The setting `federated`.
        averaged: Names of the variables that are not trained: no strategy takes steps of its own on them.

    Raises:
        FederationError: Flower refuses the options, or the hook returned something else.
    """
    if not settings.has("federated_strategy"):
        return server_strategy(options, averaged)
    if options.masks:
        raise FederationError(
            "federated['secure_aggregation'] cannot be used with the hook `federated_strategy`, whose strategy may "
            "look at the replies of single clients. Expected one of them. Name a strategy in federated['strategy']."
        )
    return checked_strategy(settings.call("federated_strategy"), averaged)


def server_strategy(options: FederatedOptions, averaged: Collection[str] = ()) -> ServerStrategy:
    """Return the strategy that checked options ask for.

    Args:
        options: The setting `federated`.
        averaged: As for `make_strategy`.

    Raises:
        FederationError: Flower refuses the options.
    """
    least = options.min_clients
    common = {
        "fraction_train": options.fraction_train,
        "fraction_evaluate": options.fraction_evaluate,
        "min_train_nodes": least,
        "min_evaluate_nodes": least,
        "min_available_nodes": least,
        "train_loss_key": "loss",  # under this name clients tell their loss; some strategies weight by it
    }
    kind = _OURS.get(options.strategy) or getattr(flower_strategies, options.strategy)
    takes = inspect.signature(kind.__init__).parameters
    if kind in _OURS.values():
        del common["train_loss_key"]
    else:
        common = {name: value for name, value in common.items() if name in takes}
    own = STRATEGIES[options.strategy](**options.options).model_dump(exclude_unset=True)
    try:
        return ServerStrategy(_privately(kind(**{**common, **own}), options), averaged)
    except (ValueError, TypeError) as error:
        raise FederationError(f"Flower refuses the setting `federated`: {error} Correct its options.") from error


def _privately(strategy: Strategy, options: FederatedOptions) -> Strategy:
    """Wrap a strategy as `federated['differential_privacy']` asks for.

    On the side `server`, the server clips what it gets; on the side `client`, clients do (`client/private_answers.py`).
    On the side `local` they add noise, too, and nothing is wrapped. All else are options of Flower's class.
    """
    privacy = dict(options.differential_privacy or {"side": "local"})
    side, clipping = privacy.pop("side", "server"), privacy.pop("clipping", "fixed")
    if side == "local":
        return strategy
    wrapper = getattr(flower_strategies, f"DifferentialPrivacy{side.capitalize()}Side{clipping.capitalize()}Clipping")
    return wrapper(strategy, **{"num_sampled_clients": options.min_clients, **privacy})


def checked_strategy(strategy: Any, averaged: Collection[str] = ()) -> ServerStrategy:
    """Return what the hook `federated_strategy` returned, as the strategy that a server works with.

    Args:
        strategy: What it returned.
        averaged: As for `make_strategy`.

    Raises:
        FederationError: It is no strategy, or one that reads other words than clients send.
    """
    if isinstance(strategy, ServerStrategy):
        return strategy
    if not isinstance(strategy, Strategy):
        got = f"the class {strategy.__name__}" if inspect.isclass(strategy) else f"{type(strategy).__name__}"
        calls = " Call it: return an object of it." if inspect.isclass(strategy) else ""
        raise FederationError(
            f"The hook `federated_strategy` must return a strategy. Expected an object of "
            f"flwr.serverapp.strategy.Strategy, got {got}.{calls}"
        )
    for layer in layers_of(strategy):
        for name, expected in _WORDS.items():
            if (got := getattr(layer, name, expected)) != expected:
                raise FederationError(
                    f"The strategy of the hook `federated_strategy` cannot read what clients send. Expected {name} = "
                    f"{expected!r}, got {got!r}. Leave {name} out."
                )
    return ServerStrategy(strategy, averaged)

"""From the setting `federated` to a strategy: Flower's by name, ours, or one that a hook returns."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from typing import Any

import flwr.serverapp.strategy as flower_strategies
from flwr.serverapp.strategy import FedAvg, Strategy

from experiments_manager.common.suggestions import did_you_mean
from experiments_manager.federated.errors import FederationError
from experiments_manager.federated.strategies.clustered import Clustered
from experiments_manager.federated.strategies.clustered_strategies import ClusteredCosine, ClusteredSpectral
from experiments_manager.federated.strategies.option_checks import accepted, problems_of_options
from experiments_manager.federated.strategies.privacy import privacy_problems, privately
from experiments_manager.federated.strategies.reply_checks import EXAMPLES
from experiments_manager.federated.strategies.server_strategy import ServerStrategy
from experiments_manager.settings.options.federated import FederatedOptions
from experiments_manager.settings.options.secure_aggregation import secure_aggregation_problems

_OURS = {"ClusteredCosine": ClusteredCosine, "ClusteredSpectral": ClusteredSpectral}
_OF_TREES = "FedXgb"
_WORDS = {"weighted_by_key": EXAMPLES, "arrayrecord_key": "arrays", "configrecord_key": "config"}


def strategy_names() -> list[str]:
    """Return the strategies that settings may name."""
    flowers = [
        name
        for name in flower_strategies.__all__
        if issubclass(getattr(flower_strategies, name), FedAvg) and not name.startswith(_OF_TREES)
    ]
    return sorted([*flowers, *_OURS])


def problems_of_strategy(federated: Mapping[str, Any]) -> list[str]:
    """Return everything that is wrong with what the setting `federated` says of the strategy, a sentence each."""
    checked = ("fraction_train", "fraction_evaluate", "min_clients")
    problems = list(FederatedOptions.problems(federated, "federated['{}']", frozenset(checked)).values())
    least = _least(federated)
    options = federated.get("options") or {}
    name = federated.get("strategy", "FedAvg")
    problem = _problem_of_name(name)
    if problem:
        problems.append(problem)
    if not isinstance(options, Mapping):
        problems.append(f"federated['options'] is wrong. Expected a dictionary, got {options!r}.")
    elif not problem:
        kind = _kind(name)
        problems += problems_of_options("federated['options']", kind, options, _given(kind, federated))
        if not problems:
            problems += _problems_of_numbers(name, options, federated)
    if (privacy := federated.get("differential_privacy")) is not None:
        clustered = not problem and issubclass(_kind(name), Clustered)
        problems += privacy_problems(privacy, least, clustered)
    problems += secure_aggregation_problems(federated, name, least)
    return problems


def server_strategy(federated: Mapping[str, Any], averaged: Collection[str] = ()) -> ServerStrategy:
    """Return the strategy that the setting `federated` asks for.

    Args:
        federated: The setting. Keys that do not concern the strategy are ignored; all have defaults.
        averaged: Names of the variables that are not trained: no strategy takes steps of its own on them.

    Raises:
        FederationError: It is wrong; the message tells everything that is.
    """
    problems = problems_of_strategy(federated)
    if problems:
        raise FederationError(_told(problems))
    kind = _kind(federated.get("strategy", "FedAvg"))
    options = {**_given(kind, federated), **(federated.get("options") or {})}
    try:
        strategy = kind(**options)
        if (privacy := federated.get("differential_privacy")) is not None:
            strategy = privately(strategy, privacy, _least(federated))
    except (ValueError, TypeError) as error:
        raise FederationError(f"Flower refuses the setting `federated`: {error} Correct its options.") from error
    return ServerStrategy(strategy, averaged)


def checked_strategy(strategy: Any, averaged: Collection[str] = ()) -> ServerStrategy:
    """Return what the hook `federated_strategy` returned, as the strategy that a server works with.

    Args:
        strategy: What it returned.
        averaged: As for `server_strategy`.

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
    inner = strategy
    while inner is not None:
        for name, expected in _WORDS.items():
            if (got := getattr(inner, name, expected)) != expected:
                raise FederationError(
                    f"The strategy of the hook `federated_strategy` cannot read what clients send. Expected {name} = "
                    f"{expected!r}, got {got!r}. Leave {name} out."
                )
        inner = getattr(inner, "strategy", None)
    return ServerStrategy(strategy, averaged)


def _problem_of_name(name: Any) -> str | None:
    names = strategy_names()
    if name in names:
        return None
    if isinstance(name, str) and name.startswith(_OF_TREES):
        return f"federated['strategy'] cannot be {name!r}: it is for trees of XGBoost, and clients train Keras models."
    if isinstance(name, str) and name.startswith("DifferentialPrivacy"):
        instead = "Set federated['differential_privacy'] instead."
        return f"federated['strategy'] cannot be {name!r}, which wraps another. {instead}"
    hint = did_you_mean(name, names) if isinstance(name, str) else ""
    return f"federated['strategy'] is wrong. Expected one of {', '.join(names)}; got {name!r}. {hint}".rstrip()


def _kind(name: str) -> type[FedAvg]:
    return _OURS.get(name) or getattr(flower_strategies, name)


def _given(kind: type, federated: Mapping[str, Any]) -> dict[str, Any]:
    least = _least(federated)
    given = {
        "fraction_train": federated.get("fraction_train", 1.0),
        "fraction_evaluate": federated.get("fraction_evaluate", 1.0),
        "min_train_nodes": least,
        "min_evaluate_nodes": least,
        "min_available_nodes": least,
        "train_loss_key": "loss",  # under this name clients tell their loss; some strategies weight by it
    }
    if issubclass(kind, Clustered):
        del given["train_loss_key"]
    return accepted(kind, given)


def _least(federated: Mapping[str, Any]) -> int:
    return federated.get("min_clients", 2)


def _problems_of_numbers(name: str, options: Mapping[str, Any], federated: Mapping[str, Any]) -> list[str]:
    """Return why a strategy could never aggregate as few replies as may come."""
    bad = options.get("num_malicious_nodes", 0)
    needed = {"Bulyan": 4 * bad + 3, "Krum": 2 * bad + 3, "MultiKrum": 2 * bad + 3}.get(name, 0)
    if not needed or (name != "Bulyan" and not bad) or _least(federated) >= needed:
        return []
    return [
        f"federated['min_clients'] is too small. Expected at least {needed} for {name} with "
        f"num_malicious_nodes = {bad}, got {_least(federated)}."
    ]


def _told(problems: list[str]) -> str:
    if len(problems) == 1:
        return problems[0]
    return f"The setting `federated` has {len(problems)} problems:\n" + "\n".join(f"- {each}" for each in problems)

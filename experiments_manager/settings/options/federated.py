"""How a federation trains: the keys of the setting `federated`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import annotated_types
import pydantic

from experiments_manager.common.suggestions import did_you_mean
from experiments_manager.settings.options.options import Options, option
from experiments_manager.settings.options.secure_aggregation import LEAST_CLIENTS, secure_aggregation_problems
from experiments_manager.settings.problems import shown
from experiments_manager.settings.types import Positive, PositiveCount

_COMMON_OF_CLUSTERS = ("split_rounds", "min_separation", "min_members", "ignored")
STRATEGIES: dict[str, tuple[str, ...]] = {
    "Bulyan": ("num_malicious_nodes", "selection_rule"),
    "ClusteredCosine": ("eps1", "eps2", "gamma_max", "centred", *_COMMON_OF_CLUSTERS),
    "ClusteredSpectral": ("clusters_wanted", "most_clusters", *_COMMON_OF_CLUSTERS),
    "FedAdagrad": ("eta", "eta_l", "tau"),
    "FedAdam": ("eta", "eta_l", "beta_1", "beta_2", "tau"),
    "FedAvg": (),
    "FedAvgM": ("server_learning_rate", "server_momentum"),
    "FedMedian": (),
    "FedProx": ("proximal_mu",),
    "FedTrimmedAvg": ("beta",),
    "FedYogi": ("eta", "eta_l", "beta_1", "beta_2", "tau"),
    "Krum": ("num_malicious_nodes",),
    "MultiKrum": ("num_malicious_nodes", "num_nodes_to_select"),
    "QFedAvg": ("client_learning_rate", "q", "train_loss_key"),
}
"""The strategies that settings may name, each with its own options."""

_FIXED = ("noise_multiplier", "clipping_norm", "num_sampled_clients")
_ADAPTIVE = (
    *("noise_multiplier", "num_sampled_clients", "initial_clipping_norm", "target_clipped_quantile"),
    *("clip_norm_lr", "clipped_count_stddev"),
)
_LOCAL = ("clipping_norm", "sensitivity", "epsilon", "delta")
PRIVACY: dict[str, tuple[str, ...]] = {
    **{f"{side} fixed": _FIXED for side in ("server", "client")},
    **{f"{side} adaptive": _ADAPTIVE for side in ("server", "client")},
    "local fixed": _LOCAL,
}
"""Options of differential privacy by its side and way of clipping."""

RANGES: dict[str, Any] = {
    "eta": pydantic.Field(gt=0),
    "eta_l": pydantic.Field(gt=0),
    "tau": pydantic.Field(gt=0),
    "beta_1": pydantic.Field(ge=0, lt=1),
    "beta_2": pydantic.Field(ge=0, lt=1),
    "beta": pydantic.Field(ge=0, lt=0.5),
    "server_learning_rate": pydantic.Field(gt=0),
    "server_momentum": pydantic.Field(ge=0, lt=1),
    "client_learning_rate": pydantic.Field(gt=0),
    "proximal_mu": pydantic.Field(ge=0),
    "q": pydantic.Field(ge=0),
    "num_malicious_nodes": pydantic.Field(ge=0),
    "num_nodes_to_select": pydantic.Field(ge=1),
    "noise_multiplier": pydantic.Field(ge=0),
    "clipping_norm": pydantic.Field(gt=0),
    "initial_clipping_norm": pydantic.Field(gt=0),
    "num_sampled_clients": pydantic.Field(ge=1),
    "target_clipped_quantile": pydantic.Field(ge=0, le=1),
    "clip_norm_lr": pydantic.Field(gt=0),
    "sensitivity": pydantic.Field(ge=0),
    "epsilon": pydantic.Field(gt=0),
    "delta": pydantic.Field(gt=0, lt=1),
}
"""Ranges of options of strategies and of differential privacy, which their signatures do not tell."""

_NUMBERS = pydantic.ConfigDict(strict=True, allow_inf_nan=False)

Fraction = Annotated[float, annotated_types.Ge(0), annotated_types.Le(1)]


def _groups(value: Any) -> Any:
    if not isinstance(value, (list, tuple)) or not all(isinstance(group, (int, str)) for group in value):
        raise ValueError("no groups")
    return value


class FederatedOptions(Options):
    """How a federation trains. The rows read: name, type, what it may be in words."""

    clients: PositiveCount = option(1, "an integer of at least 1")
    rounds: PositiveCount = option(20, "an integer of at least 1")
    local_epochs: PositiveCount = option(1, "an integer of at least 1")
    round_timeout: Positive | None = option(None, "seconds, or None")
    keep_optimizer: bool = option(False, "True or False")
    max_examples: PositiveCount | None = option(None, "an integer from 1 on, or None")
    true_groups: Annotated[Any, pydantic.AfterValidator(_groups)] = option((), "a list with a group for each client")
    strategy: Any = option("FedAvg", f"one of {', '.join(STRATEGIES)}")
    options: dict[str, Any] | None = option(None, "a dictionary")
    fraction_train: Fraction = option(1.0, "a number from 0 to 1")
    fraction_evaluate: Fraction = option(0.0, "a number from 0 to 1")
    min_clients: PositiveCount = option(2, "an integer of at least 1")
    differential_privacy: dict[str, Any] | None = option(None, "a dictionary")
    secure_aggregation: Any = option(False, "True, False, or a dictionary")


OWN = frozenset({"clients", "rounds", "local_epochs", "round_timeout", "keep_optimizer", "max_examples", "true_groups"})
"""Keys that do not concern the strategy."""


def federated_problems(given: Mapping[str, Any], with_strategy: bool = True) -> dict[Any, str]:
    """Return what is wrong with the setting `federated`, as far as it can be told without Flower, by its keys.

    Args:
        given: The setting.
        with_strategy: Whether it chooses the strategy, and no hook does.
    """
    found = FederatedOptions.problems({k: v for k, v in given.items() if v is not None or k in _NEVER_NONE}, _PLACE)
    groups, clients = given.get("true_groups"), given.get("clients")
    if groups is not None and not {"true_groups", "clients"} & {*found} and clients and len(groups) != clients:
        text = f"Expected a group for each of {clients} clients, got {len(groups)}."
        found["true_groups"] = f"federated['true_groups'] is wrong. {text}"
    if with_strategy:
        for key, text in {**_strategy_problems(given), **_secure_problems(given)}.items():
            found.setdefault(key, text)
    return found


_PLACE = "federated['{}']"
_NEVER_NONE = (
    "clients",
    "rounds",
    "local_epochs",
    "keep_optimizer",
    "fraction_train",
    "fraction_evaluate",
    "min_clients",
)


def _strategy_problems(given: Mapping[str, Any]) -> dict[Any, str]:
    found: dict[Any, str] = {}
    name, options, privacy = given.get("strategy", "FedAvg"), given.get("options"), given.get("differential_privacy")
    if name not in tuple(STRATEGIES):
        hint = did_you_mean(name, STRATEGIES) if isinstance(name, str) else ""
        text = f"federated['strategy'] is wrong. Expected one of {', '.join(STRATEGIES)}; got {shown(name)}. {hint}"
        found["strategy"] = text.rstrip()
    elif isinstance(options, Mapping):
        for key, value in options.items():
            if key not in STRATEGIES[name]:
                hint = did_you_mean(str(key), STRATEGIES[name], f"It has {', '.join(STRATEGIES[name]) or 'none'}.")
                found[key] = f"federated['options'][{key!r}] is not an option of {name}. {hint}"
            elif not in_range(key, value):
                found[key] = f"federated['options'][{key!r}] is wrong. Expected {_range(key)}, got {shown(value)}."
    if isinstance(privacy, Mapping):
        for key, choices in (("side", ("server", "client", "local")), ("clipping", ("fixed", "adaptive"))):
            if (got := privacy.get(key, choices[0])) not in choices:
                hint = did_you_mean(got, choices, shown="'{}'") if isinstance(got, str) else ""
                expected = ", ".join(map(repr, choices))
                text = f"federated['differential_privacy'][{key!r}] is wrong. Expected one of {expected}; got {got!r}."
                found[key] = f"{text} {hint}".rstrip()
        kind = f"{privacy.get('side', 'server')} {privacy.get('clipping', 'fixed')}"
        known = ("side", "clipping", *PRIVACY.get(kind, ()))
        for key, value in privacy.items():
            where = f"federated['differential_privacy'][{key!r}]"
            if key not in known and len(known) > 2:
                hint = did_you_mean(str(key), known, f"It has {', '.join(known)}.")
                found[key] = f"{where} is not an option of this kind of privacy. {hint}"
            elif key in RANGES and not in_range(key, value):
                found[key] = f"{where} is wrong. Expected {_range(key)}, got {shown(value)}."
    return found


def _secure_problems(given: Mapping[str, Any]) -> dict[Any, str]:
    least = given.get("min_clients", LEAST_CLIENTS)
    problems = secure_aggregation_problems(given, given.get("strategy", "FedAvg"), least)
    return {("secure_aggregation", number): text for number, text in enumerate(problems)}


def in_range(option_name: str, value: Any) -> bool:
    """Return whether a number is one that an option may have; true for options of which no range is known."""
    limits = RANGES.get(option_name)
    if limits is None:
        return True
    try:
        pydantic.TypeAdapter(Annotated[float, limits], config=_NUMBERS).validate_python(value)
    except pydantic.ValidationError:
        return False
    return True


def _range(name: str) -> str:
    words = {"Gt": "above {}", "Ge": "of {} or more", "Lt": "below {}", "Le": "up to {}"}
    limits = [words[type(item).__name__].format(next(iter(limits_of(item)))) for item in RANGES[name].metadata]
    return f"a number {' and '.join(limits)}"


def limits_of(bound: Any) -> tuple[Any, ...]:
    """Return the limit that a bound of `annotated_types` holds."""
    return tuple(getattr(bound, name) for name in ("gt", "ge", "lt", "le") if hasattr(bound, name))

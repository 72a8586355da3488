"""How a federation trains: the keys of the setting `federated`, and the options of each strategy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import annotated_types
import pydantic

from experiments_manager.common.suggestions import did_you_mean
from experiments_manager.settings.options.options import Options, option
from experiments_manager.settings.options.secure_aggregation import (
    LEAST_CLIENTS,
    SecureAggregation,
    secure_aggregation_problems,
)
from experiments_manager.settings.problems import shown
from experiments_manager.settings.types import Positive, PositiveCount

Fraction = Annotated[float, annotated_types.Ge(0), annotated_types.Le(1)]
_NotNegative = Annotated[float, annotated_types.Ge(0)]
_Decay = Annotated[float, annotated_types.Ge(0), annotated_types.Lt(1)]
_Several = Annotated[int, annotated_types.Ge(2)]
_BELOW_ONE = "a number of 0 or more and below 1"
_NO_OPTION = "Leave it out: return a strategy from the hook `federated_strategy` to choose it."


class StrategyOptions(Options):
    """Options that any strategy has: none. Those of others are named as their constructors name them."""

    REMEDIES: ClassVar[Mapping[str, str]] = {
        "fraction_train": "Set federated['fraction_train'] instead.",
        "fraction_evaluate": "Set federated['fraction_evaluate'] instead.",
        "min_train_nodes": "Set federated['min_clients'] instead.",
        "min_evaluate_nodes": "Set federated['min_clients'] instead.",
        "min_available_nodes": "Set federated['min_clients'] instead.",
        "weighted_by_key": "Leave it out: clients are always weighted by their number of samples.",
        "arrayrecord_key": "Leave it out: the words of messages are fixed.",
        "configrecord_key": "Leave it out: the words of messages are fixed.",
        "train_metrics_aggr_fn": _NO_OPTION,
        "evaluate_metrics_aggr_fn": _NO_OPTION,
    }


class _FedAdagrad(StrategyOptions):
    eta: Positive = option(0.1, "a number above 0")
    eta_l: Positive = option(0.1, "a number above 0")
    tau: Positive = option(0.001, "a number above 0")


class _FedAdam(_FedAdagrad):
    beta_1: _Decay = option(0.9, _BELOW_ONE)
    beta_2: _Decay = option(0.99, _BELOW_ONE)


class _FedAvgM(StrategyOptions):
    server_learning_rate: Positive = option(1.0, "a number above 0")
    server_momentum: _Decay = option(0.0, _BELOW_ONE)


class _FedProx(StrategyOptions):
    proximal_mu: _NotNegative = option(0.0, "a number of 0 or more")


class _FedTrimmedAvg(StrategyOptions):
    beta: Annotated[float, annotated_types.Ge(0), annotated_types.Lt(0.5)] = option(
        0.2, "a number of 0 or more and below 0.5"
    )


class _Krum(StrategyOptions):
    num_malicious_nodes: Annotated[int, annotated_types.Ge(0)] = option(0, "an integer of 0 or more")


class _MultiKrum(_Krum):
    num_nodes_to_select: PositiveCount = option(1, "an integer of at least 1")


class _Bulyan(_Krum):
    selection_rule: Any = option(None, "a function")


class _QFedAvg(StrategyOptions):
    client_learning_rate: Positive = option(..., "a number above 0")
    q: _NotNegative = option(0.1, "a number of 0 or more")
    train_loss_key: str = option("loss", "a string")


class _Clustered(StrategyOptions):
    split_rounds: Sequence[PositiveCount] = option((3,), "a list of rounds, from 1 on")
    min_separation: Positive = option(0.4, "a number above 0")
    min_members: PositiveCount = option(2, "an integer of at least 1")
    ignored: Sequence[str] = option(("*moving_mean", "*moving_variance"), "a list of patterns of names of variables")


class _ClusteredCosine(_Clustered):
    split_rounds: Sequence[PositiveCount] | None = option(None, "a list of rounds, from 1 on, or None")
    min_members: PositiveCount | None = option(None, "an integer of at least 1, or None")
    eps1: Positive | None = option(None, "a number above 0, or None")
    eps2: _NotNegative = option(0.0, "a number of 0 or more")
    gamma_max: _Decay = option(0.0, _BELOW_ONE)
    centred: bool | None = option(None, "True, False or None")


class _ClusteredSpectral(_Clustered):
    clusters_wanted: _Several | None = option(None, "an integer of at least 2, or None")
    most_clusters: _Several = option(8, "an integer of at least 2")


STRATEGIES: dict[str, type[StrategyOptions]] = {
    "Bulyan": _Bulyan,
    "ClusteredCosine": _ClusteredCosine,
    "ClusteredSpectral": _ClusteredSpectral,
    "FedAdagrad": _FedAdagrad,
    "FedAdam": _FedAdam,
    "FedAvg": StrategyOptions,
    "FedAvgM": _FedAvgM,
    "FedMedian": StrategyOptions,
    "FedProx": _FedProx,
    "FedTrimmedAvg": _FedTrimmedAvg,
    "FedYogi": _FedAdam,
    "Krum": _Krum,
    "MultiKrum": _MultiKrum,
    "QFedAvg": _QFedAvg,
}
"""The strategies that settings may name, each with its own options."""


class _FixedClipping(Options):
    noise_multiplier: _NotNegative = option(..., "a number of 0 or more")
    clipping_norm: Positive = option(..., "a number above 0")
    num_sampled_clients: PositiveCount = option(2, "an integer of at least 1")


class _AdaptiveClipping(Options):
    noise_multiplier: _NotNegative = option(..., "a number of 0 or more")
    num_sampled_clients: PositiveCount = option(2, "an integer of at least 1")
    initial_clipping_norm: Positive = option(0.1, "a number above 0")
    target_clipped_quantile: Fraction = option(0.5, "a number from 0 to 1")
    clip_norm_lr: Positive = option(0.2, "a number above 0")
    clipped_count_stddev: float | None = option(None, "a number, or None")


class _LocalPrivacy(Options):
    clipping_norm: Positive = option(..., "a number above 0")
    sensitivity: _NotNegative = option(..., "a number of 0 or more")
    epsilon: Positive = option(..., "a number above 0")
    delta: Annotated[float, annotated_types.Gt(0), annotated_types.Lt(1)] = option(..., "a number between 0 and 1")


PRIVACY: dict[tuple[str, str], type[Options]] = {
    **{(side, "fixed"): _FixedClipping for side in ("server", "client")},
    **{(side, "adaptive"): _AdaptiveClipping for side in ("server", "client")},
    ("local", "fixed"): _LocalPrivacy,
}
"""Options of differential privacy by its side and way of clipping."""
_CHOICES = {"side": ("server", "client", "local"), "clipping": ("fixed", "adaptive")}


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
    options: dict[str, Any] = option({}, "a dictionary")
    fraction_train: Fraction = option(1.0, "a number from 0 to 1")
    fraction_evaluate: Fraction = option(0.0, "a number from 0 to 1")
    min_clients: PositiveCount = option(2, "an integer of at least 1")
    differential_privacy: dict[str, Any] | None = option(None, "a dictionary")
    secure_aggregation: Any = option(False, "True, False, or a dictionary")

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> FederatedOptions:
        """Return the options of a checked setting; `min_clients` follows from the others where it is not given."""
        least = LEAST_CLIENTS if SecureAggregation.of(given) else 2
        least = min(least, given.get("clients", least))
        return cls(**{"min_clients": least, **{key: value for key, value in given.items() if value is not None}})

    @property
    def masks(self) -> SecureAggregation | None:
        """How updates are masked; `None`: they are sent as they are."""
        return SecureAggregation.of({"secure_aggregation": self.secure_aggregation})


_PLACE = "federated['{}']"
_MAY_BE_NONE = ("round_timeout", "max_examples", "true_groups", "strategy", "options", "differential_privacy")


def federated_problems(given: Mapping[str, Any], with_strategy: bool = True) -> dict[Any, str]:
    """Return what is wrong with the setting `federated`, as far as it can be told without Flower, by its keys.

    Args:
        given: The setting.
        with_strategy: Whether it chooses the strategy, and no hook does.
    """
    told = {key: value for key, value in given.items() if value is not None or key not in _MAY_BE_NONE}
    found = FederatedOptions.problems(told, _PLACE)
    groups, clients = told.get("true_groups"), told.get("clients")
    if groups is not None and not {"true_groups", "clients"} & {*found} and clients and len(groups) != clients:
        text = f"Expected a group for each of {clients} clients, got {len(groups)}."
        found["true_groups"] = f"federated['true_groups'] is wrong. {text}"
    if with_strategy:
        name, least = told.get("strategy", "FedAvg"), told.get("min_clients", LEAST_CLIENTS)
        secure = secure_aggregation_problems(told, name, least)
        masks = {("secure_aggregation", number): text for number, text in enumerate(secure)}
        for key, text in {**_strategy_problems(told), **_privacy_problems(told), **masks}.items():
            found.setdefault(key, text)
    return found


def _strategy_problems(given: Mapping[str, Any]) -> dict[Any, str]:
    name, options = given.get("strategy", "FedAvg"), given.get("options", {})
    if name not in tuple(STRATEGIES):
        return {"strategy": _unknown_strategy(name)}
    if not isinstance(options, Mapping):
        return {}
    found = _problems_of(STRATEGIES[name], options, f"federated['options']['{{}}'] of {name}")
    bad = options.get("num_malicious_nodes", 0)
    needed = {"Bulyan": lambda: 4 * bad + 3, "Krum": lambda: 2 * bad + 3, "MultiKrum": lambda: 2 * bad + 3}.get(name)
    least = given.get("min_clients")
    if needed is None or found or not isinstance(least, int) or (name != "Bulyan" and not bad):
        return found
    if least < needed():
        found["min_clients"] = (
            f"federated['min_clients'] is too small. Expected at least {needed()} for {name} with "
            f"num_malicious_nodes = {bad}, got {least}."
        )
    return found


def _unknown_strategy(name: Any) -> str:
    if isinstance(name, str) and name.startswith("FedXgb"):
        return f"federated['strategy'] cannot be {name!r}: it is for trees of XGBoost, and clients train Keras models."
    if isinstance(name, str) and name.startswith("DifferentialPrivacy"):
        instead = "Set federated['differential_privacy'] instead."
        return f"federated['strategy'] cannot be {name!r}, which wraps another. {instead}"
    hint = did_you_mean(name, STRATEGIES) if isinstance(name, str) else ""
    text = f"federated['strategy'] is wrong. Expected one of {', '.join(STRATEGIES)}; got {shown(name)}. {hint}"
    return text.rstrip()


def _privacy_problems(given: Mapping[str, Any]) -> dict[Any, str]:
    privacy = given.get("differential_privacy")
    if not isinstance(privacy, Mapping):
        return {}
    place = "federated['differential_privacy']"
    found: dict[Any, str] = {}
    for key, choices in _CHOICES.items():
        if (got := privacy.get(key, choices[0])) not in choices:
            hint = did_you_mean(got, choices, shown="'{}'") if isinstance(got, str) else ""
            expected = ", ".join(map(repr, choices))
            found[key] = f"{place}[{key!r}] is wrong. Expected one of {expected}; got {got!r}. {hint}".rstrip()
    if found:
        return found
    side, clipping = (privacy.get(key, choices[0]) for key, choices in _CHOICES.items())
    is_local = side == "local"
    kind = PRIVACY[side, "fixed" if is_local else clipping]
    own = {key: value for key, value in privacy.items() if key != "side" and (is_local or key != "clipping")}
    found = _problems_of(kind, own, f"{place}['{{}}']")
    if str(given.get("strategy", "")).startswith("Clustered") and not is_local:
        found["side"] = (
            f"{place}['side'] must be 'local' with a clustered strategy: noise that the server adds to the mean of all "
            "models does not protect the model of a cluster."
        )
    return found


def _problems_of(kind: type[Options], given: Mapping[str, Any], place: str) -> dict[Any, str]:
    """Return what is wrong with options, and what is missing where nothing is.

    A key that the setting `federated` itself has, too, is not the key by which its line is found.
    """
    problems = kind.problems(given, place)
    found = {("option", key) if key in FederatedOptions.model_fields else key: text for key, text in problems.items()}
    missing = [name for name, field in kind.model_fields.items() if field.is_required() and name not in given]
    return found or {
        name: f"{place.format(name)} is missing. Expected {kind.expected(name)}. Add it." for name in missing
    }

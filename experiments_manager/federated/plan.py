"""What a settings module says of its federation, with the defaults of what it does not say."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from experiments_manager.common.suggestions import did_you_mean
from experiments_manager.federated.errors import FederationError
from experiments_manager.settings import Settings

OF_STRATEGY = (
    "strategy",
    "options",
    "fraction_train",
    "fraction_evaluate",
    "min_clients",
    "differential_privacy",
    "secure_aggregation",
)


@dataclasses.dataclass(frozen=True)
class FederationPlan:
    """The setting `federated`, checked but for what concerns the strategy.

    Attributes:
        clients: How many there are in a simulation.
        rounds: How often the clients train and their models become one.
        local_epochs: How often a client goes through its data in a round.
        round_timeout: Seconds that clients have for a round; `None`: as long as it takes.
        keep_optimizer: Whether a client's optimizer goes on where its last round ended.
        true_groups: The group that each client belongs to in truth, by its number; clusters are scored by them.
        strategy: What concerns the strategy, as it is given.
    """

    clients: int
    rounds: int = 20
    local_epochs: int = 1
    round_timeout: float | None = None
    keep_optimizer: bool = False
    true_groups: Sequence[Hashable] | None = None
    strategy: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, settings: Settings) -> FederationPlan:
        """Read the setting.

        Raises:
            FederationError: It is wrong; the message tells everything that is.
        """
        given, own = settings.federated, {field.name for field in dataclasses.fields(cls)} - {"strategy"}
        problems = [
            f"federated[{key!r}] is unknown. {did_you_mean(str(key), [*own, *OF_STRATEGY])}".rstrip()
            for key in given
            if key not in own and key not in OF_STRATEGY
        ]
        for name, least in (("clients", 1), ("rounds", 1), ("local_epochs", 1)):
            value = given.get(name, 1)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                problems.append(
                    f"federated[{name!r}] is wrong. Expected an integer of at least {least}, got {value!r}."
                )
        timeout = given.get("round_timeout")
        if timeout is not None and (isinstance(timeout, bool) or not isinstance(timeout, int | float) or timeout <= 0):
            problems.append(f"federated['round_timeout'] is wrong. Expected seconds, or None; got {timeout!r}.")
        if not isinstance(given.get("keep_optimizer", False), bool):
            problems.append(
                f"federated['keep_optimizer'] is wrong. Expected True or False, got {given['keep_optimizer']!r}."
            )
        problems += _problems_of_groups(given)
        if settings.consume_data_from_kafka and settings.kafka_group is not None:
            problems.append(
                f"kafka_group is wrong: clients of a federation do not share a topic. Expected None, got "
                f"{settings.kafka_group!r}. Name a topic for each by hparams['procID'] in kafka_topics."
            )
        if "clients" not in given:
            problems.append("federated['clients'] is missing. Expected the number of clients. Add --clients N.")
        if problems:
            raise FederationError(" ".join([f"{settings.file}:", *problems]))
        strategy = {"fraction_evaluate": 0.0, **{key: given[key] for key in OF_STRATEGY if key in given}}
        strategy["min_clients"] = given.get("min_clients", min(2, given["clients"]))
        return cls(strategy=strategy, **{name: given[name] for name in own if name in given})


def _problems_of_groups(given: Mapping[str, Any]) -> list[str]:
    groups, clients = given.get("true_groups"), given.get("clients")
    if groups is None:
        return []
    if not isinstance(groups, list | tuple) or not all(isinstance(group, int | str) for group in groups):
        return [f"federated['true_groups'] is wrong. Expected a list with a group for each client, got {groups!r}."]
    if isinstance(clients, int) and len(groups) != clients:
        return [
            f"federated['true_groups'] is wrong. Expected a group for each of {clients} clients, got {len(groups)}."
        ]
    return []

"""What a settings module says of its federation, with the defaults of what it does not say."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from experiments_manager.federated.errors import FederationError
from experiments_manager.settings import Settings
from experiments_manager.settings.options.federated import federated_problems

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
        max_examples: How many samples a client may tell; `None`: what is plausible.
        strategy: What concerns the strategy, as it is given.
    """

    clients: int
    rounds: int = 20
    local_epochs: int = 1
    round_timeout: float | None = None
    keep_optimizer: bool = False
    true_groups: Sequence[Hashable] | None = None
    max_examples: int | None = None
    strategy: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, settings: Settings) -> FederationPlan:
        """Read the setting.

        Raises:
            FederationError: It is wrong; the message tells everything that is.
        """
        given, own = settings.federated, {field.name for field in dataclasses.fields(cls)} - {"strategy"}
        wrong = federated_problems(given, with_strategy=False)
        problems = [text for key, text in wrong.items() if key not in OF_STRATEGY]
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
        strategy["min_clients"] = given.get(
            "min_clients", min(3 if given.get("secure_aggregation") else 2, given["clients"])
        )
        return cls(strategy=strategy, **{name: given[name] for name in own if name in given})

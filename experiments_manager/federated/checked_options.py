"""What a settings module says of its federation, checked as far as it is not when settings are loaded."""

from __future__ import annotations

from experiments_manager.federated.errors import FederationError
from experiments_manager.settings import Settings
from experiments_manager.settings.options.federated import FederatedOptions, federated_problems


def checked_options(settings: Settings) -> FederatedOptions:
    """Return the setting `federated`.

    Raises:
        FederationError: It is wrong; the message tells everything that is.
    """
    given = settings.federated
    options = None if federated_problems(given, with_strategy=False) else FederatedOptions.of(given)
    least = {} if options is None else {"min_clients": options.min_clients}
    problems = list(federated_problems({**given, **least}, not settings.has("federated_strategy")).values())
    if settings.consume_data_from_kafka and settings.kafka_group is not None:
        problems.append(
            f"kafka_group is wrong: clients of a federation do not share a topic. Expected None, got "
            f"{settings.kafka_group!r}. Name a topic for each by hparams['procID'] in kafka_topics."
        )
    if "clients" not in given:
        problems.append("federated['clients'] is missing. Expected the number of clients. Add --clients N.")
    if problems:
        raise FederationError(" ".join([f"{settings.file}:", *problems]))
    return options

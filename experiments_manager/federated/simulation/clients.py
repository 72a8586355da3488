"""A client of a federation whose settings say what it is: its data, its hooks."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments_manager.federated.local.client import HOST_RANDOM, ClientData, FederatedClient
from experiments_manager.federated.local.kept import Kept
from experiments_manager.settings import Settings, load_settings
from experiments_manager.training.errors import TrainingError
from experiments_manager.training.seeds import derive
from experiments_manager.training.setup.class_weights import class_weights_of
from experiments_manager.training.setup.datasets import feed_for


def client_of(
    settings: Settings, number: int, clients: int, *, run: Any = None, kept: Kept | None = None
) -> FederatedClient:
    """Return a client with its own data: that of the settings module where `hparams["procID"]` is its number.

    Args:
        settings: Those of the federation.
        number: Of the client, from 0.
        clients: How many there are.
        run: The run, for hooks that ask for it.
        kept: What the client goes on from.

    Raises:
        TrainingError: It has no training data.
    """
    overrides = dict(settings.overrides) | {"hparams.procID": number}
    overrides["federated"] = {**settings.federated, "clients": clients}
    own = load_settings(settings.file, overrides, start_dir=settings.start_dir)
    remake = functools.partial(_data, own, number, run)
    data = remake(kept.topics if kept else {})
    return FederatedClient(number, data, settings=own, run=run, kept=kept, remake=remake)


def _data(settings: Settings, number: int, run: Any, topics: Mapping[str, Any]) -> ClientData:
    record = _TopicRecord(number, run, topics)
    seed = derive(settings.random_seed, "client", number)
    with HOST_RANDOM:
        train = feed_for(settings, "train", record, seed=seed)
        if train is None:
            raise TrainingError(
                f'dataset: client {number} has no training data. Expected data for `dataset("train")`, got None.'
            )
        evaluates = bool(settings.federated.get("fraction_evaluate"))
        validation = feed_for(settings, "validation", record) if evaluates else None
        return ClientData(train, validation, class_weights_of(settings, train), record.manifest.get("kafka", {}))


class _TopicRecord:
    """Keeps what a client reads of topics, as a run does in its manifest."""

    def __init__(self, number: int, run: Any, topics: Mapping[str, Any]) -> None:
        name = f"client-{number}" if run is None else f"{run.path.name}-client-{number}"
        self.path = Path(name)
        self.manifest: dict[str, Any] = {"kafka": dict(topics)} if topics else {}

    def update(self, **values: Any) -> None:
        """Keep values of the manifest in memory, as a run does on disk."""
        self.manifest |= values

"""A client of a simulation: its settings and its data."""

from __future__ import annotations

from experiments_manager.settings import Settings, load_settings
from experiments_manager.training.errors import TrainingError
from experiments_manager.training.feeds.array_feed import ArrayFeed
from experiments_manager.training.local.trainer import Client
from experiments_manager.training.setup.experiment import dataset_feed
from experiments_manager.training.setup.seeds import derive


def client_of(settings: Settings, number: int, clients: int) -> Client:
    """Return a client with its own data: that of `dataset` where `hparams["procID"]` is its number.

    Args:
        settings: Those of the federation.
        number: Of the client, from 0.
        clients: How many there are.

    Raises:
        TrainingError: It has no training data.
    """
    overrides = dict(settings.overrides) | {"hparams.procID": number}
    own = load_settings(settings.file, overrides | {"federated": {**settings.federated, "clients": clients}})
    train = dataset_feed(own, "train")
    if train is None:
        raise TrainingError(
            f'dataset: client {number} has no training data. Expected data for `dataset("train")`, got None.'
        )
    if isinstance(train, ArrayFeed):
        train.seed = derive(settings.random_seed, "client", number)
    return Client(number, train)

"""The variables of a model that trains for clients in turn: what is put into them before, and taken out afterwards.

Weights of some layers may stay at the clients: Arivazhagan et al.,
Federated Learning with Personalization Layers (2019).
"""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from experiments_manager.common.suggestions import did_you_mean
from experiments_manager.compat.keras import seed_states
from experiments_manager.settings import Settings
from experiments_manager.training.errors import TrainingError
from experiments_manager.training.hook_calls import hook_error
from experiments_manager.training.seeds import derive
from experiments_manager.training.setup.experiment import Experiment

_SETTING = "federated_local_layers"


@dataclasses.dataclass(frozen=True)
class InitialVariables:
    """What a model of these settings begins with; the same for all trainers of a process.

    Attributes:
        local: Which weights stay at the clients, by their place in `model.weights`.
        layers: These weights by name, for clients that trained none yet.
        others: Values of the optimizer's variables and of others that are no weights.
        rate: The learning rate.
    """

    local: frozenset[int]
    layers: Mapping[str, np.ndarray]
    others: Sequence[np.ndarray]
    rate: float


class ModelVariables:
    """Everything in a model that decides what it trains.

    Args:
        experiment: Whose training step is traced.
        like: What another model of the same settings began with, whose layers have the names that the settings know.

    Raises:
        SettingsError: `federated_local_layers` does not suit the model.
    """

    def __init__(self, experiment: Experiment, like: InitialVariables | None = None) -> None:
        self._model, self._seed = experiment.model, experiment.settings.random_seed
        # Numbers and not paths: Keras counts layers of the same kind over all models of a process.
        self._weights = {f"{number:04d}/{w.name}": w.value for number, w in enumerate(self._model.weights)}
        local = like.local if like else _local_weights(experiment.settings, self._model)
        self._sent = {name: w for number, (name, w) in enumerate(self._weights.items()) if number not in local}
        self._layers = {name: w for number, (name, w) in enumerate(self._weights.items()) if number in local}
        self._seeds = [variable.value for variable in seed_states(self._model)]
        known = {id(variable) for variable in [*self._weights.values(), *self._seeds]}
        averages = experiment.state.averages
        self._averages = list(zip(averages.averages, averages.weights, strict=True)) if averages else []
        known |= {id(average) for average, _ in self._averages}
        self._others = [v for v in experiment.state.variables.values() if id(v) not in known]
        self.beginning = like or InitialVariables(local, self.layers(), self.others(), experiment.state.learning_rate)
        self._assign_all = tf.function(self._assign, autograph=False)

    @property
    def not_trained(self) -> frozenset[str]:
        """The names of the shared weights that no gradient changes."""
        trained = {id(variable.value) for variable in self._model.trainable_variables}
        return frozenset(name for name, variable in self._sent.items() if id(variable) not in trained)

    def sent(self) -> dict[str, np.ndarray]:
        """Return the weights that clients share."""
        return {name: variable.numpy() for name, variable in self._sent.items()}

    def layers(self) -> dict[str, np.ndarray]:
        """Return the weights that stay at the clients."""
        return {name: variable.numpy() for name, variable in self._layers.items()}

    def others(self) -> list[np.ndarray]:
        """Return the optimizer's variables, and others that are no weights."""
        return [variable.numpy() for variable in self._others]

    def begin(
        self,
        weights: Mapping[str, np.ndarray],
        *,
        client: int,
        round: int,  # noqa: A002
        layers: Mapping[str, np.ndarray] | None = None,
        others: Sequence[np.ndarray] = (),
    ) -> None:
        """Put weights in their place, and all else as it is at the beginning, but for what is given.

        Args:
            weights: Those that clients share.
            client: The client's number; random numbers follow from it and from the round.
            round: The round.
            layers: Weights that stay at the client.
            others: The optimizer's variables and others.
        """
        values = {**weights, **self.beginning.layers, **(layers or {})}
        seeds = [
            np.array([derive(self._seed, "client", client, round, number, part) for part in range(state.shape[0])])
            for number, state in enumerate(self._seeds)
        ]
        self._assign_all([values[name] for name in self._weights], list(others or self.beginning.others), seeds)

    def check(self, weights: Mapping[str, np.ndarray]) -> None:
        """Raise where weights are not those that clients share."""
        ours = {name: tuple(variable.shape) for name, variable in self._sent.items()}
        theirs = {name: tuple(value.shape) for name, value in weights.items()}
        if ours != theirs:
            name = next(name for name in [*ours, *theirs] if ours.get(name) != theirs.get(name))
            raise TrainingError(
                f"The weights are those of another model: {name}. Expected shape {ours.get(name, 'none')}, got "
                f"{theirs.get(name, 'none')}. Let server and clients use the same `model` and hparams."
            )

    def _assign(self, weights: Sequence[Any], others: Sequence[Any], seeds: Sequence[Any]) -> None:
        variables = [*self._weights.values(), *self._others, *self._seeds]
        for variable, value in zip(variables, [*weights, *others, *seeds], strict=True):
            variable.assign(tf.cast(value, variable.dtype))
        for average, weight in self._averages:
            average.assign(weight)


def _local_weights(settings: Settings, model: keras.Model) -> frozenset[int]:
    """Return which of the model's weights stay at the clients, by their place in `model.weights`.

    Raises:
        SettingsError: The setting names no layer of the model, one without weights, or all that have some.
    """
    patterns: Sequence[str] = settings.federated_local_layers
    if not patterns:
        return frozenset()
    layers = dict(_layers(model, ""))
    local: set[int] = set()
    for pattern in patterns:
        found = [layer for path, layer in layers.items() if _matches(pattern, path)]
        if not found:
            names = list(dict.fromkeys(path.rpartition("/")[2] for path in layers))
            near = did_you_mean(pattern, names, otherwise="Name one of these, or a pattern such as 'head*'.")
            text = f"The model has no such layer. Expected some of {', '.join(names)}; got {pattern!r}. {near}"
            raise hook_error(settings, _SETTING, text)
        weights = {id(weight) for layer in found for weight in layer.weights}
        if not weights:
            text = f"Layer {pattern!r} has no weights, so nothing of it can stay at a client. Remove it."
            raise hook_error(settings, _SETTING, text)
        local |= {number for number, weight in enumerate(model.weights) if id(weight) in weights}
    if len(local) == len(model.weights):
        text = (
            "All weights of the model would stay at the clients. Expected some that are trained together. Name fewer."
        )
        raise hook_error(settings, _SETTING, text)
    return frozenset(local)


def _matches(pattern: str, path: str) -> bool:
    return fnmatch.fnmatchcase(path, pattern) or fnmatch.fnmatchcase(path.rpartition("/")[2], pattern)


def _layers(model: keras.Model, prefix: str) -> Iterator[tuple[str, keras.layers.Layer]]:
    """Give the layers of a model and of models in it, each under its path."""
    for layer in model.layers:
        yield f"{prefix}{layer.name}", layer
        if isinstance(layer, keras.Model):
            yield from _layers(layer, f"{prefix}{layer.name}/")

"""Layers whose weights stay at the clients of a federation: personalised layers.

Arivazhagan et al., Federated Learning with Personalization Layers, 2019.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Sequence

import keras

from experiments_manager.common.suggestions import did_you_mean
from experiments_manager.settings import Settings
from experiments_manager.training.hook_calls import hook_error

SETTING = "federated_local_layers"


def local_weights(settings: Settings, model: keras.Model) -> frozenset[int]:
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
            raise hook_error(settings, SETTING, text)
        weights = {id(weight) for layer in found for weight in layer.weights}
        if not weights:
            text = f"Layer {pattern!r} has no weights, so nothing of it can stay at a client. Remove it."
            raise hook_error(settings, SETTING, text)
        local |= {number for number, weight in enumerate(model.weights) if id(weight) in weights}
    if len(local) == len(model.weights):
        text = (
            "All weights of the model would stay at the clients. Expected some that are trained together. Name fewer."
        )
        raise hook_error(settings, SETTING, text)
    return frozenset(local)


def _matches(pattern: str, path: str) -> bool:
    return fnmatch.fnmatchcase(path, pattern) or fnmatch.fnmatchcase(path.rpartition("/")[2], pattern)


def _layers(model: keras.Model, prefix: str) -> Iterator[tuple[str, keras.layers.Layer]]:
    """Give the layers of a model and of models in it, each under its path."""
    for layer in model.layers:
        yield f"{prefix}{layer.name}", layer
        if isinstance(layer, keras.Model):
            yield from _layers(layer, f"{prefix}{layer.name}/")

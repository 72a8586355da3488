"""What a model of the user's holds that Keras does not list: variables, optimisers and random generators.

Keras tracks its own variables. A `tf.Variable`, a `tf.random.Generator`, or an optimiser in a list or dictionary is an
attribute like any other to it, and decides all the same how training goes on.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from experiments_manager.common.generators import HostGenerator
from experiments_manager.training.state.plain_restore import Unpacker
from experiments_manager.training.state.plain_state import Packer

_DEEPEST = 12
_MOST_ITEMS = 10_000
"""Items up to which a list or a dictionary is looked through; a longer one is data."""
_FOREIGN = ("keras", "tensorflow", "numpy", "builtins", "collections", "threading", "logging", "experiments_manager")
_CLOSED = (str, bytes, np.ndarray, tf.Tensor, tf.data.Dataset, types.ModuleType, type, types.FunctionType)


@dataclasses.dataclass
class Reachable:
    """What was found, each by its path of attributes, e.g. `model.noise[0].scale`."""

    variables: dict[str, tf.Variable] = dataclasses.field(default_factory=dict)
    generators: dict[str, HostGenerator] = dataclasses.field(default_factory=dict)


def reachable(model: keras.Model) -> Reachable:
    """Look through the attributes of a model, of its layers, and of what these hold."""
    found = Reachable()
    seen: set[int] = set()
    pending: list[tuple[str, Any, int]] = [("model", model, 0)]
    while pending:
        path, value, depth = pending.pop(0)
        if id(value) in seen or isinstance(value, _CLOSED):
            continue
        seen.add(id(value))
        if isinstance(value, tf.Variable):
            found.variables[path] = value
        elif isinstance(value, keras.Variable):
            found.variables[path] = value.value
        elif isinstance(value, tf.random.Generator):
            found.variables[f"{path}.state"] = value.state
        elif isinstance(value, keras.optimizers.Optimizer):
            found.variables |= {f"{path}.{number}": part.value for number, part in enumerate(value.variables)}
        elif isinstance(value, HostGenerator):
            found.generators[path] = value
        elif depth < _DEEPEST:
            pending += [(path + step, part, depth + 1) for step, part in _parts(value)]
    return found


def optimizers_of(model: keras.Model) -> dict[str, keras.optimizers.Optimizer]:
    """Return the optimizer of a model, and those that are attributes of it, such as an adversarial model's, by name."""
    named = {"optimizer": model.optimizer} | {f"optimizer.{name}": value for name, value in sorted(vars(model).items())}
    found: dict[str, keras.optimizers.Optimizer] = {}
    for name, value in named.items():
        if isinstance(value, keras.optimizers.Optimizer) and not any(value is other for other in found.values()):
            found[name] = value
    return found


def innermost(optimizer: Any) -> list[Any]:
    """Return the optimizers that do the work, behind a loss scale or a division among variables."""
    inner = [optimizer.inner_optimizer] if hasattr(optimizer, "inner_optimizer") else None
    inner = inner or list(getattr(optimizer, "optimizers", ()))
    return [one for each in inner for one in innermost(each)] if inner else [optimizer]


def generators_of(modules: Iterable[types.ModuleType]) -> dict[str, HostGenerator]:
    """Find the random generators that are global names of modules, e.g. `mysettings.rng`."""
    found: dict[str, HostGenerator] = {}
    for module in modules:
        for name, value in sorted(vars(module).items()):
            if isinstance(value, HostGenerator) and not any(value is other for other in found.values()):
                found[f"{module.__name__}.{name}"] = value
    return found


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        yield from ((f"[{key!r}]", part) for key, part in list(value.items())[:_MOST_ITEMS])
    elif isinstance(value, list | tuple):
        yield from ((f"[{number}]", part) for number, part in enumerate(value[:_MOST_ITEMS]))
    elif _is_looked_into(value):
        yield from ((f".{name}", part) for name, part in list(vars(value).items()))


def _is_looked_into(value: Any) -> bool:
    if isinstance(value, keras.layers.Layer | tf.Module | keras.metrics.Metric | keras.losses.Loss):
        return True
    return hasattr(value, "__dict__") and type(value).__module__.partition(".")[0] not in _FOREIGN


def packed_generators(experiment: Any) -> tuple[dict[str, Any], dict[str, tf.Tensor]]:
    """Return the states of the random generators that the user's modules and model hold, as plain data and tensors."""
    packer = Packer(PREFIX)
    found = _generators(experiment)
    return {name: packer.attribute(generator) for name, generator in found.items()}, packer.tensors


def restore_generators(experiment: Any, packed: Mapping[str, Any], tensors: Mapping[str, tf.Tensor]) -> None:
    """Put back what `packed_generators` gave, in place."""
    unpacker, found = Unpacker(tensors), _generators(experiment)
    for name, state in packed.items():
        unpacker.unpack(state, found.get(name))


def _generators(experiment: Any) -> dict[str, HostGenerator]:
    return generators_of(experiment.settings.user_modules) | experiment.state.reachable.generators


PREFIX = "generators/"
"""Begins the names of tensors in a checkpoint that belong to random generators."""

"""What lies before the outputs of a model: its features, which tell more of a sample than one number does."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import keras

NARROWEST = 3
"""Numbers a sample that a layer's output has at least; fewer show nothing that the model's outputs do not show."""
WIDEST = 2048
"""Numbers a sample that it has at most, unless it has more dimensions than one, which are reduced."""

_IDLE = (
    keras.layers.AlphaDropout,
    keras.layers.Dropout,
    keras.layers.GaussianDropout,
    keras.layers.GaussianNoise,
)
"""Layers that hand on what they get once training is over."""


def features_before_outputs(model: keras.Model) -> dict[str, keras.KerasTensor]:
    """Find what the layers before a model's last ones give.

    The last layer of an output is the last one with weights, so that neither logits before a softmax nor one number
    before a scaling count as features.

    Args:
        model: Any model; where its layers form no graph, as in most subclassed ones, nothing is found.

    Returns:
        Tensors in the graph of the model by the name of the layer that makes them; none that is an input or an output
        of the model, of fewer than three numbers a sample, or of more than 2048 in one dimension.
    """
    outputs, inputs = (getattr(model, name, None) for name in ("outputs", "inputs"))
    if not outputs or not inputs or has_own_call(model):
        return {}
    makers = _makers(model)
    found: dict[str, keras.KerasTensor] = {}
    for output in outputs:
        tensor = _without_idle(_before(output, makers, inputs), makers)
        outer = [*outputs, *inputs]
        if tensor is not None and not any(tensor is other for other in outer) and _fits(tensor):
            maker = makers.get(id(tensor))
            found[maker.name if maker else f"before_{makers[id(output)].name}"] = tensor
    return found


def has_own_call(model: keras.Model) -> bool:
    """Return whether a class of the user's defines `call`, so that the graph need not be what it computes."""
    return any("call" in vars(kind) for kind in type(model).__mro__ if kind.__module__.partition(".")[0] != "keras")


def _makers(model: keras.Model) -> dict[int, keras.layers.Layer]:
    """Return the layers of a model by the `id` of the one tensor that each makes."""
    makers = {}
    for layer in model.layers:
        with contextlib.suppress(AttributeError, ValueError):  # it is called more than once, or not in this graph
            makers |= {id(tensor): layer for tensor in _listed(layer.output)}
    return makers


def _before(tensor: Any, makers: dict[int, keras.layers.Layer], inputs: list[Any]) -> Any:
    """Return the input of the last layer with weights before a tensor; `None` where there is no single way to it."""
    while not any(tensor is other for other in inputs):
        maker = makers.get(id(tensor))
        given = _listed(maker.input) if maker else []
        if len(given) != 1:
            return None
        tensor = given[0]
        if maker.weights:
            return tensor
    return None


def _without_idle(tensor: Any, makers: dict[int, keras.layers.Layer]) -> Any:
    """Return the same numbers by the name of the layer that makes them, and not of one that hands them on."""
    while isinstance(makers.get(id(tensor)), _IDLE):
        [tensor] = _listed(makers[id(tensor)].input)
    return tensor


def _listed(tensors: Any) -> list[Any]:
    return list(keras.tree.flatten(tensors))


def _fits(tensor: keras.KerasTensor) -> bool:
    dimensions = tensor.shape[1:]
    width = math.prod(size or 1 for size in dimensions)
    return width >= NARROWEST and (len(dimensions) != 1 or width <= WIDEST)

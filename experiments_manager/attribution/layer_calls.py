"""What the layers of a model give while its call is traced, also inside of nested and subclassed models."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import keras

from experiments_manager.attribution.errors import ExplainError
from experiments_manager.common.suggestions import did_you_mean


class Call(NamedTuple):
    """A layer, what it was given, and what it gave."""

    layer: keras.layers.Layer
    given: Sequence[Any]
    result: Any


CONVOLUTIONS = tuple(
    getattr(keras.layers, f"{kind}{rank}D{ending}")
    for kind, rank, ending in (
        *(("Conv", rank, ending) for rank in (1, 2, 3) for ending in ("", "Transpose")),
        *((kind, rank, "") for kind in ("SeparableConv", "DepthwiseConv") for rank in (1, 2)),
    )
)
_FOLLOWING = (
    keras.layers.Activation,
    keras.layers.BatchNormalization,
    keras.layers.Dropout,
    keras.layers.ELU,
    keras.layers.GroupNormalization,
    keras.layers.LayerNormalization,
    keras.layers.LeakyReLU,
    keras.layers.PReLU,
    keras.layers.ReLU,
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D,
    keras.layers.SpatialDropout3D,
)
"""Layers that belong to the convolution before them."""


@contextlib.contextmanager
def recorded_calls(model: keras.Model) -> Iterator[list[Call]]:
    """Note what each layer gives, in the order of the calls, while a call of the model is traced."""
    calls: list[Call] = []
    layers = {id(layer): layer for layer in _leaves(model)}
    for layer in layers.values():
        layer.call = _noting(layer, layer.call, calls)
    try:
        yield calls
    finally:
        for layer in layers.values():
            del layer.call


def calls_with_places(calls: Sequence[Call], axes: int) -> list[Call]:
    """Return the calls that gave floats [n, …, channels] with so many axes in between, not all of one place."""
    return [call for call in calls if _has_places(call.result, axes) and call.result.dtype.is_floating]


def chosen_features(
    calls: Sequence[Call], axes: int, name: str | None, *, coarse: bool, output: keras.layers.Layer | None
) -> Any:
    """Choose the features that stand for what a model has seen where.

    Args:
        calls: From `calls_with_places`, of these such as lie between the input and the score.
        axes: Axes of the input without samples and channels.
        name: Of the layer that is wanted; `None` takes a convolution.
        coarse: Whether the coarsest convolutions are wanted instead of the last one.
        output: The layer that makes the model's output, which is not taken.

    Returns:
        A tensor [n, …, channels].

    Raises:
        ExplainError: There is none.
    """
    if name is not None:
        named = [call.result for call in calls if call.layer.name == name]
        if named:
            return named[-1]
        names = list(dict.fromkeys(call.layer.name for call in calls))
        raise ExplainError(
            f"Grad-CAM cannot look at layer {name!r}. Expected one between the input and the head whose output has "
            f"{axes} axes beside samples and channels: {', '.join(names) or 'there is none'}. "
            f"{did_you_mean(name, names)}".rstrip()
        )
    usable = [(number, call) for number, call in enumerate(calls) if call.layer is not output]
    convolutions = [(number, call.result) for number, call in usable if isinstance(call.layer, CONVOLUTIONS)]
    if not convolutions:
        raise ExplainError(
            f"Grad-CAM needs a convolution over the {axes} axes of the input; this model has none. "
            "Name a layer with such an output by --layer, or use integrated-gradients or occlusion."
        )
    number, tensor = convolutions[-1]
    if coarse:
        number, tensor = min(reversed(convolutions), key=lambda found: _places(found[1]))
    for call in calls[number + 1 :]:
        if not any(given is tensor for given in call.given):  # of another branch
            continue
        if not isinstance(call.layer, _FOLLOWING) or call.result.shape != tensor.shape or call.layer is output:
            break
        tensor = call.result
    return tensor


def _leaves(model: keras.Model) -> Iterator[keras.layers.Layer]:
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _leaves(layer)
        else:
            yield layer


def _noting(layer: keras.layers.Layer, call: Callable[..., Any], calls: list[Call]) -> Callable[..., Any]:
    def noting(*arguments: Any, **options: Any) -> Any:
        result = call(*arguments, **options)
        calls.append(Call(layer, [*arguments, *options.values()], result))
        return result

    return noting


def _has_places(tensor: Any, axes: int) -> bool:
    shape = getattr(tensor, "shape", None)
    return axes > 0 and shape is not None and len(shape) == axes + 2 and any(side != 1 for side in shape[1:-1])


def _places(tensor: Any) -> float:
    size = 1.0
    for side in tensor.shape[1:-1]:
        size *= float("inf") if side is None else side
    return size

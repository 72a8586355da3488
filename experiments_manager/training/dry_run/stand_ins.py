"""What a dry run goes on with where a hook failed: data in shapes of the model, a model for shapes of the data."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from experiments_manager.training.feeds.array_feed import ArrayFeed
from experiments_manager.training.feeds.feed import Feed, x_and_y
from experiments_manager.training.setup.fitting import kind_of_loss, symbolic

_SAMPLES, _FREE = 4, 8
"""Samples of stand-in data, and its size along axes that the model leaves open."""
_MOST_UNITS = 100_000
_MOST_NUMBERS = 2**28


def array_feed(arrays: Any, split: str) -> Feed:
    """Return a feed of one batch."""
    tensors = tf.nest.map_structure(tf.convert_to_tensor, arrays)
    return ArrayFeed(tensors, split=split, batch_size=_SAMPLES, shuffle=False, seed=0)


def data_for(model: keras.Model, loss: Any, split: str = "train") -> Feed | None:
    """Return data of the shapes and types that a model takes and its loss wants.

    It is `None` where the model does not tell them, or they would take gigabytes.
    """
    inputs, names = symbolic(model, "inputs")
    if not inputs or any(math.prod(_shape_like(tensor)) > _MOST_NUMBERS for tensor in inputs):
        return None
    parts = [_array_like(tensor) for tensor in inputs]
    x = parts[0] if len(parts) == 1 else dict(zip(names, parts, strict=True))
    try:
        outputs = model(x, training=False)
    except Exception:  # the model fails on data of its own shapes, which is told elsewhere
        return None
    y = tf.nest.map_structure(lambda output: _target_like(output, loss), outputs)
    return array_feed((x, y), split)


def any_data() -> Feed:
    """Return data for where there is neither data nor a model: four numbers a sample, and one to tell from them."""
    x = np.random.default_rng(0).normal(size=(_SAMPLES, 4)).astype("float32")
    return array_feed((x, x[:, :1]), "train")


def _shape_like(tensor: Any) -> list[int]:
    return [_SAMPLES, *(size or _FREE for size in tensor.shape[1:])]


def _array_like(tensor: Any) -> np.ndarray:
    shape = _shape_like(tensor)
    if tensor.dtype == "string":
        return np.full(shape, "text")
    if "int" in tensor.dtype or tensor.dtype == "bool":
        return np.zeros(shape, tensor.dtype)
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def _target_like(output: Any, loss: Any) -> tf.Tensor:
    if kind_of_loss(loss) == "sparse_categorical_crossentropy":
        return tf.zeros(output.shape[:-1], tf.int32)
    hot = np.zeros(output.shape, "float32")
    hot[..., 0] = 1.0
    return tf.constant(hot)


def model_for(feed: Feed, classes: int | None = None) -> keras.Model | None:
    """Return a small model for the shapes of some data; `None` where there is none that would do."""
    x, y = x_and_y(feed.sample_batch())
    leaves, targets = tf.nest.flatten(x), tf.nest.flatten(y)
    if not leaves or any(not leaf.dtype.is_floating and not leaf.dtype.is_integer for leaf in leaves):
        return None
    if any(leaf.shape.rank is None for leaf in [*leaves, *targets] if leaf is not None):
        return None
    names = sorted(x) if isinstance(x, dict) and len(x) == len(leaves) else [f"x{n}" for n in range(len(leaves))]
    inputs = {
        name: keras.Input(tuple(leaf.shape[1:]), name=name, dtype=leaf.dtype.name)
        for name, leaf in zip(names, leaves, strict=True)
    }
    flat = [_flat(tensor) for tensor in inputs.values()]
    joined = flat[0] if len(flat) == 1 else keras.layers.Concatenate()(flat)
    keys = sorted(y) if isinstance(y, dict) else [None] * len(targets)
    outputs = [_output(joined, target, key, classes) for target, key in zip(targets, keys, strict=True)]
    if not outputs or any(output is None for output in outputs):
        return None
    as_inputs: Any = inputs if isinstance(x, dict) else list(inputs.values())
    as_inputs = as_inputs[0] if isinstance(as_inputs, list) and len(as_inputs) == 1 else as_inputs
    as_outputs: Any = dict(zip(keys, outputs, strict=True)) if isinstance(y, dict) else outputs
    return keras.Model(as_inputs, outputs[0] if len(outputs) == 1 and not isinstance(y, dict) else as_outputs)


def _flat(tensor: Any) -> Any:
    axes = tuple(range(1, max(1, len(tensor.shape) - 1)))

    def mean(value: Any) -> Any:
        value = keras.ops.cast(value, "float32")
        value = keras.ops.mean(value, axis=axes) if axes else value
        return keras.ops.reshape(value, (-1, tensor.shape[-1] if len(tensor.shape) > 1 else 1))

    return keras.layers.Lambda(mean, output_shape=(tensor.shape[-1] if len(tensor.shape) > 1 else 1,))(tensor)


def _output(joined: Any, target: Any, name: str | None, classes: int | None) -> Any:
    sizes = [int(size) for size in target.shape[1:]]
    if target.dtype.is_integer and math.prod(sizes) == 1:
        units = max(classes or 0, 1 + max(0, int(tf.reduce_max(target))))
        return keras.layers.Dense(min(max(units, 2), _MOST_UNITS), activation="softmax", name=name)(joined)
    if math.prod(sizes) > _MOST_UNITS or not (target.dtype.is_floating or target.dtype.is_integer):
        return None
    return keras.layers.Reshape(sizes or [1], name=name)(keras.layers.Dense(math.prod(sizes))(joined))

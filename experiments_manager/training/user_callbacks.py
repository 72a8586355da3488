"""Keras callbacks of the user's, called as `fit` calls them, and their plain state kept in checkpoints."""

from __future__ import annotations

import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

_TEST_BATCH_HOOKS = ("on_test_batch_begin", "on_test_batch_end")
_BATCH_HOOKS = ("on_train_batch_begin", "on_train_batch_end", "on_batch_begin", "on_batch_end")


class UserCallbacks:
    """The user's callbacks behind Keras' own `CallbackList`.

    Args:
        callbacks: The callbacks, possibly none.
        model: The model that they are told of.
        epochs: Epochs that the run takes at most.
        steps: Steps in an epoch, or `None`.
    """

    def __init__(
        self, callbacks: Sequence[keras.callbacks.Callback], model: keras.Model, epochs: int, steps: int | None
    ) -> None:
        self._callbacks = list(callbacks)
        self._restored: Sequence[Mapping[str, Any]] = ()
        self._has_begun = False
        self._model = model
        model.stop_training = False
        self.list = keras.callbacks.CallbackList(
            self._callbacks, add_history=False, add_progbar=False, model=model, verbose=0, epochs=epochs, steps=steps
        )

    def __bool__(self) -> bool:
        return bool(self._callbacks)

    @property
    def want_batches(self) -> bool:
        """Whether a callback looks at single batches; the loop then goes back to Python for each."""
        return self._any_defines(_BATCH_HOOKS)

    @property
    def want_test_batches(self) -> bool:
        """The same for batches of the validation."""
        return self._any_defines(_TEST_BATCH_HOOKS)

    def _any_defines(self, hooks: Sequence[str]) -> bool:
        base = keras.callbacks.Callback
        return any(  # asked of the instance: `LambdaCallback` holds its functions as attributes
            getattr(getattr(callback, hook), "__func__", None) is not getattr(base, hook)
            for callback in self._callbacks
            for hook in hooks
        )

    @property
    def stop_training(self) -> bool:
        """Whether a callback set `model.stop_training`."""
        return bool(self._model.stop_training)

    def state(self) -> tuple[list[dict[str, Any]], dict[str, tf.Tensor]]:
        """Each callback's attributes that are numbers, texts, arrays, or lists and dictionaries of these.

        Returns:
            Plain data (JSON), and the larger arrays that it refers to by name, such as weights that a callback keeps.
        """
        large: dict[str, tf.Tensor] = {}
        states = [
            {name: _pack(value, large) for name, value in vars(callback).items() if _is_plain(name, value)}
            for callback in self._callbacks
        ]
        return states, large

    def restore(self, states: Sequence[Mapping[str, Any]], tensors: Mapping[str, tf.Tensor]) -> None:
        """Puts back what `state` gave; before training, `begin` does it.

        Callbacks that were added or taken away since are left alone.
        """
        self._restored = [{name: _unpack(value, tensors) for name, value in state.items()} for state in states]
        if self._has_begun:
            self._put_back()

    def begin(self) -> None:
        """Calls `on_train_begin`, in which many callbacks reset themselves, and then puts back what was restored."""
        self.list.on_train_begin()
        self._has_begun = True
        self._put_back()

    def _put_back(self) -> None:
        for callback, state in zip(self._callbacks, self._restored, strict=False):
            for name, value in state.items():
                setattr(callback, name, value)


PREFIX = "callbacks/"
"""Begins the names of tensors in a checkpoint that belong to callbacks."""
_SMALL = 64
"""Elements up to which an array is written as text."""

# Keras' callbacks turn the sign of their `min_delta` when they first look at an epoch, so it must be as it was given.
_NOT_STATE = ("params", "model", "_model", "validation_data", "min_delta")


def _is_plain(name: str, value: Any) -> bool:
    return name not in _NOT_STATE and _plain_value(value)


def _plain_value(value: Any) -> bool:
    if value is None or isinstance(value, bool | str | numbers.Real | np.generic):
        return not isinstance(value, np.generic) or value.dtype.kind in "fiub"
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "fiub"
    if isinstance(value, dict):
        return all(isinstance(key, str) for key in value) and all(map(_plain_value, value.values()))
    return isinstance(value, list | tuple) and all(map(_plain_value, value))


def _pack(value: Any, large: dict[str, tf.Tensor]) -> Any:
    """Turns a plain value into JSON that `_unpack` turns back; larger arrays go into `large`."""
    if isinstance(value, np.ndarray) and value.size > _SMALL:
        name = f"{PREFIX}{len(large):04d}"
        large[name] = tf.constant(value)
        return {"__tensor__": name}
    if isinstance(value, np.ndarray | np.generic):
        return {"__array__": value.tolist(), "dtype": value.dtype.name, "scalar": isinstance(value, np.generic)}
    if isinstance(value, dict):
        return {key: _pack(item, large) for key, item in value.items()}
    if isinstance(value, tuple):
        return {"__tuple__": [_pack(item, large) for item in value]}
    if isinstance(value, list):
        return [_pack(item, large) for item in value]
    return value if not isinstance(value, numbers.Real) or isinstance(value, bool | int | float) else float(value)


def _unpack(value: Any, tensors: Mapping[str, tf.Tensor]) -> Any:
    if isinstance(value, dict) and "__tensor__" in value:
        return tensors[value["__tensor__"]].numpy()
    if isinstance(value, dict) and "__array__" in value:
        array = np.asarray(value["__array__"], value["dtype"])
        return array[()] if value["scalar"] else array
    if isinstance(value, dict) and "__tuple__" in value:
        return tuple(_unpack(item, tensors) for item in value["__tuple__"])
    if isinstance(value, dict):
        return {key: _unpack(item, tensors) for key, item in value.items()}
    if isinstance(value, list):
        return [_unpack(item, tensors) for item in value]
    return value

"""Keras callbacks of the user's, called as `fit` calls them, and their attributes kept in checkpoints."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from experiments_manager.training.state.plain_restore import Unpacker
from experiments_manager.training.state.plain_state import LIVE, NotSerializableError, Packer, attributes
from experiments_manager.training.state.plain_values import is_users

logger = logging.getLogger(__name__)

_TEST_HOOKS = ("on_test_begin", "on_test_end")
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
        self._restored: tuple[Sequence[Mapping[str, Any]], Mapping[str, tf.Tensor]] = (), {}
        self._lost: dict[str, str] = {}
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

    @property
    def see_within_epochs(self) -> bool:
        """Whether a callback looks at a run between the beginning and the end of an epoch."""
        return self._any_defines((*_BATCH_HOOKS, *_TEST_BATCH_HOOKS, *_TEST_HOOKS))

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

    def state(
        self, in_state: Callable[[Any], bool] = lambda variable: False
    ) -> tuple[list[dict[str, Any]], dict[str, tf.Tensor]]:
        """Return the attributes of each callback, as far as they can be written; `lost` names the others.

        Args:
            in_state: Says of a variable whether it is part of the state of the run anyway.

        Returns:
            Plain data (JSON), and the larger arrays that it refers to by name, such as weights that a callback keeps.
        """
        packer, self._lost = Packer(PREFIX, in_state), {}
        states = [dict(self._packed(callback, packer)) for callback in self._callbacks]
        return states, packer.tensors

    def _packed(self, callback: keras.callbacks.Callback, packer: Packer) -> Iterator[tuple[str, Any]]:
        for name, value in attributes(callback):
            try:
                packed = packer.attribute(value)
                if packed != LIVE:
                    yield name, packed
            except NotSerializableError as error:
                if is_users(type(callback)):  # Keras' own begin again as they always did
                    self._lost[f"{type(callback).__name__}.{name}"] = str(error)

    @property
    def lost(self) -> dict[str, str]:
        """Attributes that the last `state` had to leave out, and why: `{"Noise.source": "is an iterator …"}`."""
        return dict(self._lost)

    @property
    def user_made(self) -> list[keras.callbacks.Callback]:
        """Those whose code, or functions, are the user's."""
        is_lambda = keras.callbacks.LambdaCallback
        return [one for one in self._callbacks if is_users(type(one)) or isinstance(one, is_lambda)]

    def restore(self, states: Sequence[Mapping[str, Any]], tensors: Mapping[str, tf.Tensor]) -> None:
        """Put back what `state` gave; before training, `begin` does it.

        Callbacks that were added or taken away since are left alone.
        """
        self._restored = states, tensors
        if self._has_begun:
            self._put_back()

    def put_back(self, states: Sequence[Mapping[str, Any]], tensors: Mapping[str, tf.Tensor]) -> None:
        """Put back what `state` gave, at once: before `on_train_begin` of another training with the same callbacks."""
        self._restored = states, tensors
        self._put_back()
        self._restored = (), {}

    def begin(self) -> None:
        """Call `on_train_begin`, in which many callbacks reset themselves, and then put back what was restored."""
        self.list.on_train_begin()
        self._has_begun = True
        self._put_back()

    def _put_back(self) -> None:
        states, tensors = self._restored
        unpacker = Unpacker(tensors)
        for callback, state in zip(self._callbacks, states, strict=False):
            for name, value in state.items():
                try:
                    setattr(callback, name, unpacker.unpack(value, getattr(callback, name, None)))
                except (NotSerializableError, KeyError, TypeError, ValueError, AttributeError) as error:
                    logger.warning("%s.%s could not be restored: %s.", type(callback).__name__, name, error)


PREFIX = "callbacks/"
"""Begins the names of tensors in a checkpoint that belong to callbacks."""

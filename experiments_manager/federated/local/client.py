"""A client of a federation: its data, its callbacks, and what it keeps from round to round."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from experiments_manager.federated.local.kept import Kept
from experiments_manager.settings import Settings
from experiments_manager.training.engine.exactness import of_callbacks
from experiments_manager.training.engine.user_callbacks import UserCallbacks
from experiments_manager.training.feeds.array_feed import ArrayFeed
from experiments_manager.training.feeds.feed import Feed
from experiments_manager.training.setup.callbacks import callbacks_of

HOST_RANDOM = threading.RLock()
"""Held while hooks or data draw from the generators of Python and NumPy, which all threads share."""
_NOWHERE = Path("not-saved")


class ClientData(NamedTuple):
    """What the hooks of a client's own settings gave."""

    train: Feed
    validation: Feed | None = None
    class_weight: Mapping[int, float] | None = None
    topics: Mapping[str, Any] = {}
    """What is read of topics (JSON); a later round and a resume read the same."""


class FederatedClient:
    """A client, which one trainer at a time trains.

    Args:
        number: Its number.
        data: Its data.
        settings: Its own, for its callbacks; `None`: it has none.
        run: The run, for hooks that ask for it.
        kept: What it goes on from.
        remake: Makes data again that a round left in the middle, given what is read of topics.
    """

    def __init__(
        self,
        number: int,
        data: ClientData,
        *,
        settings: Settings | None = None,
        run: Any = None,
        kept: Kept | None = None,
        remake: Callable[[Mapping[str, Any]], ClientData] | None = None,
    ) -> None:
        self.number, self._settings, self._data = number, settings, data
        self._run, self._remake = run, remake
        self._kept = kept
        self._callbacks: Sequence[keras.callbacks.Callback] | None = None
        self._is_spoilt = False
        self.should_stop: Callable[[], bool] = lambda: False
        """Asked between calls of the compiled loop."""
        self.inexact_reasons: Sequence[str] = ()
        """Why it would not go on after a resume as if there had been none."""
        self._find_place()

    @property
    def train(self) -> Feed:
        """Feed of the training data of this client."""
        return self._data.train

    @property
    def validation(self) -> Feed | None:
        """Feed of the validation data of this client; `None` without any."""
        return self._data.validation

    @property
    def class_weight(self) -> Mapping[int, float] | None:
        """Weight of each class in this client's loss."""
        return self._data.class_weight

    @property
    def kept(self) -> Kept | None:
        """What it goes on from; `None` before its first round, or where nothing is kept."""
        return self._kept

    @property
    def reads_alone(self) -> bool:
        """Whether reading its data draws from generators that all threads share."""
        return self.train.draws_from_host

    def state(self) -> Mapping[str, np.ndarray]:
        """Return what it keeps, for a checkpoint."""
        return self._kept.arrays if self._kept else {}

    def restore(self, arrays: Mapping[str, np.ndarray] | Kept | None) -> None:
        """Go back to what `state` gave; nothing of it is the state before the first round."""
        if not self._is_spoilt and not isinstance(arrays, Kept) and _equal(self.state(), arrays or {}):
            return
        kept = arrays if isinstance(arrays, Kept) else Kept.of(arrays) if arrays else None
        self._kept, self._is_spoilt = kept, True

    def keep(self, kept: Kept) -> None:
        """Take note of what a round left."""
        self._kept = kept or None

    def spoil(self) -> None:
        """Begin again, in the next round, where the last one that counts ended."""
        self._is_spoilt = True

    def prepare(self, model: keras.Model) -> UserCallbacks | None:
        """Get ready to train on a model: data and callbacks are where the last round that counts left them.

        Returns:
            The callbacks, told of the model; `None` where there are none.
        """
        with HOST_RANDOM:
            if self._is_spoilt:
                self._put_back()
            if self._settings is None or not self._settings.has("callbacks"):
                return None
            is_new = self._callbacks is None
            if is_new:
                self._callbacks = callbacks_of(self._settings, model, self.train, self.validation, self._run)
            callbacks = UserCallbacks(self._callbacks, model, self._settings.epochs, self.train.steps)
            if is_new and self._kept is not None:
                tensors = {name: tf.constant(value) for name, value in self._kept.callback_arrays.items()}
                callbacks.put_back(self._kept.callbacks, tensors)
            return callbacks

    def what_is_kept(self, callbacks: UserCallbacks | None, in_state: Callable[[Any], bool], **others: Any) -> Kept:
        """Return what it goes on from after a round, with `others` of the trainer's."""
        feed = self.train
        reasons = list(feed.inexact_reasons)
        if callbacks:
            states, tensors = callbacks.state(in_state)
            others |= {"callbacks": states, "callback_arrays": {name: v.numpy() for name, v in tensors.items()}}
            reasons += of_callbacks(callbacks)
        self.inexact_reasons = [f"client {self.number}: {reason}" for reason in reasons]
        position = feed.position() if feed.goes_on or feed.never_ends else {}
        return Kept(position=position, topics=self._data.topics, **others)

    def close(self) -> None:
        """Let go of what reads ahead."""
        for feed in filter(None, (self.train, self.validation)):
            feed.close()

    def _put_back(self) -> None:
        self._callbacks, self._is_spoilt = None, False
        if isinstance(self.train, ArrayFeed):
            return
        if self._remake is not None:
            self.close()
            self._data = self._remake(self._kept.topics if self._kept else self._data.topics)
        self._find_place()

    def _find_place(self) -> None:
        """Go on in the data where the last round that counts ended."""
        if self._kept is not None and self._kept.position:
            self.train.require(dict(self._kept.position))
            self.train.restore(dict(self._kept.position), _NOWHERE)


def _equal(first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray]) -> bool:
    return first.keys() == second.keys() and all(
        first[name].tobytes() == np.asarray(second[name]).tobytes() for name in first
    )

"""A client of a federation: its data, its callbacks, and what it keeps from round to round."""

from __future__ import annotations

import dataclasses
import functools
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from experiments_manager.federated.message_records import grouped, ungrouped
from experiments_manager.settings import Settings, load_settings
from experiments_manager.training.engine.exactness import of_callbacks
from experiments_manager.training.engine.user_callbacks import UserCallbacks
from experiments_manager.training.errors import TrainingError
from experiments_manager.training.feeds.array_feed import ArrayFeed
from experiments_manager.training.feeds.feed import Feed
from experiments_manager.training.seeds import derive
from experiments_manager.training.setup.callbacks import callbacks_of
from experiments_manager.training.setup.class_weights import class_weights_of
from experiments_manager.training.setup.datasets import feed_for

HOST_RANDOM = threading.RLock()
"""Held while hooks or data draw from the generators of Python and NumPy, which all threads share."""
_NOWHERE = Path("not-saved")
_PLAIN = "plain"
"""Name of the array that holds the plain data of a client's state."""


@dataclasses.dataclass(frozen=True)
class ClientState:
    """What a client goes on from; nothing in it is changed afterwards.

    Attributes:
        others: Variables of the optimizer and others that are no weights; nothing where each round begins anew.
        layers: Weights that stay at the client, by name.
        rate_scale: What the learning rate in `others` is multiplied with.
        position: Where the client is in its training data, where that does not follow from the round.
        callbacks: Attributes of each callback, plain data (JSON).
        callback_arrays: The larger arrays that these refer to.
        topics: What is read of topics (JSON), as a run keeps it in its manifest.
    """

    others: Sequence[np.ndarray] = ()
    layers: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    rate_scale: float = 1.0
    position: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    callbacks: Sequence[Mapping[str, Any]] = ()
    callback_arrays: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    topics: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.others or self.layers or self.position or self.callbacks or self.topics)

    @functools.cached_property
    def arrays(self) -> Mapping[str, np.ndarray]:
        """The state as arrays by name, for a checkpoint."""
        plain = {name: getattr(self, name) for name in ("rate_scale", "position", "callbacks", "topics")}
        optimizer = {f"{number:06d}": value for number, value in enumerate(self.others)}
        arrays = ungrouped({"optimizer": optimizer, "layers": self.layers, "callbacks": self.callback_arrays})
        return {**arrays, _PLAIN: np.frombuffer(json.dumps(plain).encode(), np.uint8)}

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray]) -> ClientState:
        """Make the state of a client of what `arrays` returned."""
        plain = json.loads(np.asarray(arrays[_PLAIN], np.uint8).tobytes())
        groups = grouped({name: value for name, value in arrays.items() if name != _PLAIN})
        others = [value for _, value in sorted(groups.get("optimizer", {}).items())]
        layers, callback_arrays = groups.get("layers", {}), groups.get("callbacks", {})
        return cls(others=others, layers=layers, callback_arrays=callback_arrays, **plain)

    def equals(self, other: ClientState) -> bool:
        """Return whether another state has the same bits."""
        first, second = self.arrays, other.arrays
        return first.keys() == second.keys() and all(
            first[name].tobytes() == np.asarray(second[name]).tobytes() for name in first
        )


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
        kept: ClientState | None = None,
        remake: Callable[[Mapping[str, Any]], ClientData] | None = None,
    ) -> None:
        self.number, self._settings, self._data = number, settings, data
        self._run, self._remake = run, remake
        self.kept = kept or None
        """What it goes on from; `None` before its first round, or where nothing is kept."""
        self._callbacks: Sequence[keras.callbacks.Callback] | None = None
        self._is_stale = False
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
    def reads_alone(self) -> bool:
        """Whether reading its data draws from generators that all threads share."""
        return self.train.draws_from_host

    def restore(self, kept: ClientState | None) -> None:
        """Go back to a state; `None` is that before the first round."""
        is_same = self.kept is kept or bool(self.kept and kept and self.kept.equals(kept))
        if self._is_stale or not is_same:
            self.kept, self._is_stale = kept or None, True

    def invalidate(self) -> None:
        """Begin again, in the next round, where the last one that counts ended."""
        self._is_stale = True

    def prepare(self, model: keras.Model) -> UserCallbacks | None:
        """Get ready to train on a model: data and callbacks are where the last round that counts left them.

        Returns:
            The callbacks, told of the model; `None` where there are none.
        """
        with HOST_RANDOM:
            if self._is_stale:
                self._go_back()
            if self._settings is None or not self._settings.has("callbacks"):
                return None
            is_new = self._callbacks is None
            if is_new:
                self._callbacks = callbacks_of(self._settings, model, self.train, self.validation, self._run)
            callbacks = UserCallbacks(self._callbacks, model, self._settings.epochs, self.train.steps)
            if is_new and self.kept is not None:
                tensors = {name: tf.constant(value) for name, value in self.kept.callback_arrays.items()}
                callbacks.put_back(self.kept.callbacks, tensors)
            return callbacks

    def keep(self, callbacks: UserCallbacks | None, in_state: Callable[[Any], bool], **others: Any) -> None:
        """Take note of what a round left.

        Args:
            callbacks: From `prepare`.
            in_state: Says of an object with variables whether these are written elsewhere.
            others: What the trainer knows: `others`, `layers` and `rate_scale` of the state.
        """
        feed = self.train
        reasons = list(feed.inexact_reasons)
        if callbacks:
            states, tensors = callbacks.state(in_state)
            others |= {"callbacks": states, "callback_arrays": {name: v.numpy() for name, v in tensors.items()}}
            reasons += of_callbacks(callbacks)
        self.inexact_reasons = [f"client {self.number}: {reason}" for reason in reasons]
        position = feed.position() if feed.goes_on or feed.never_ends else {}
        self.kept = ClientState(position=position, topics=self._data.topics, **others) or None

    def close(self) -> None:
        """Let go of what reads ahead."""
        for feed in filter(None, (self.train, self.validation)):
            feed.close()

    def _go_back(self) -> None:
        self._callbacks, self._is_stale = None, False
        if isinstance(self.train, ArrayFeed):
            return
        if self._remake is not None:
            self.close()
            self._data = self._remake(self.kept.topics if self.kept else self._data.topics)
        self._find_place()

    def _find_place(self) -> None:
        """Go on in the data where the last round that counts ended."""
        if self.kept is not None and self.kept.position:
            self.train.require(dict(self.kept.position))
            self.train.restore(dict(self.kept.position), _NOWHERE)


def client_of(
    settings: Settings, number: int, clients: int, *, run: Any = None, kept: ClientState | None = None
) -> FederatedClient:
    """Return a client with its own data: that of the settings module where `hparams["procID"]` is its number.

    Args:
        settings: Those of the federation.
        number: Of the client, from 0.
        clients: How many there are.
        run: The run, for hooks that ask for it.
        kept: What the client goes on from.

    Raises:
        TrainingError: It has no training data.
    """
    overrides = dict(settings.overrides) | {"hparams.procID": number}
    overrides["federated"] = {**settings.federated, "clients": clients}
    own = load_settings(settings.file, overrides, start_dir=settings.start_dir)
    remake = functools.partial(_data, own, number, run)
    data = remake(kept.topics if kept else {})
    return FederatedClient(number, data, settings=own, run=run, kept=kept, remake=remake)


def _data(settings: Settings, number: int, run: Any, topics: Mapping[str, Any]) -> ClientData:
    record = _TopicRecord(number, run, topics)
    seed = derive(settings.random_seed, "client", number)
    with HOST_RANDOM:
        train = feed_for(settings, "train", record, seed=seed)
        if train is None:
            raise TrainingError(
                f'dataset: client {number} has no training data. Expected data for `dataset("train")`, got None.'
            )
        evaluates = bool(settings.federated.get("fraction_evaluate"))
        validation = feed_for(settings, "validation", record) if evaluates else None
        return ClientData(train, validation, class_weights_of(settings, train), record.manifest.get("kafka", {}))


class _TopicRecord:
    """Keeps what a client reads of topics, as a run does in its manifest."""

    def __init__(self, number: int, run: Any, topics: Mapping[str, Any]) -> None:
        name = f"client-{number}" if run is None else f"{run.path.name}-client-{number}"
        self.path = Path(name)
        self.manifest: dict[str, Any] = {"kafka": dict(topics)} if topics else {}

    def update(self, **values: Any) -> None:
        """Keep values of the manifest in memory, as a run does on disk."""
        self.manifest |= values

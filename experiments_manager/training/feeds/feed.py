"""A source of batches as the loop sees it, and what every kind of source shares."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from experiments_manager.training.errors import DataError
from experiments_manager.training.seeds import derive

HOST_BYTES = 256 * 2**20
"""Arrays larger than this stay in the host's memory where there is a GPU, and are copied batch by batch."""


class OptionalBatch:
    """In the graph: a batch, or none where the data has ended; a `tf.experimental.Optional` without what that costs.

    Args:
        has_value: Whether there is one, bool.
        get_value: Makes it.
    """

    def __init__(self, has_value: tf.Tensor, get_value: Callable[[], Any]) -> None:
        self._has_value, self.get_value = has_value, get_value

    def has_value(self) -> tf.Tensor:
        """Return whether there is a batch."""
        return self._has_value


class Feed(abc.ABC):
    """A source of batches, as the loop sees it."""

    split: str
    kind: str
    """What the manifest says of the position in the data, a key of `POSITIONS`."""
    steps: int | None
    """Batches in an epoch; `None` where that shows only at its end."""
    spec: Any
    """Nested `tf.TensorSpec` of one batch."""
    goes_on: bool = False
    """Whether an epoch continues with `next_pass` where the data ends."""

    in_memory: bool = False
    """Whether a batch is a part of arrays that are there, so that none is waited for."""
    whole_batches: int = 0
    """Batches of an epoch that `take_whole` gives, where `in_memory`: all of one size, that of `whole_spec`."""
    whole_spec: Any = None
    batches_can_be_held: bool = False
    """Whether `take` returns tensors or an optional of TensorFlow, which a loop can take along from step to step."""
    takes_ahead: bool = False
    """Whether such a batch is taken while the step before it runs: taking it must see nothing of what that changes."""
    never_ends: bool = False
    """Whether it follows a stream."""
    topic: str | None = None
    """The Kafka topic from which it comes; `None` where it comes from `dataset`."""
    agree: Callable[[Any], list[Any]] = staticmethod(lambda value: [value])
    """Returns the values of all processes that train together; for what depends on when data arrives."""

    inexact_reasons: Sequence[str] = ()
    """Why a resume does not find exactly the same data; nothing where it does."""
    opens_pass: Callable[[], None] = staticmethod(lambda: None)
    """Called when a pass through the data begins, before anything of the user's is called for it."""
    forget_looks: Callable[[], None] = staticmethod(lambda: None)
    """Puts back what looking at the data, before the training, changed of the user's: how far that read is chance."""
    replays: bool = False
    """Whether `open` reads again what comes before the place in its pass, for what that does to the user's objects."""
    draws_from_host: bool = False
    """Whether reading draws from Python's or NumPy's global generators."""

    @property
    def python(self) -> Sequence[Any]:
        """What of the user's is called while the data is read, ahead of the steps."""
        return ()

    @property
    def reads_in_parallel(self) -> bool:
        """Whether that runs in several threads, whose order is a matter of chance."""
        return False

    @property
    def calls_hook(self) -> bool:
        """Whether the `dataset` hook is called again for later passes."""
        return False

    @abc.abstractmethod
    def open(self, epoch: int, step: int = 0) -> Any:
        """Return the source for `epoch` (counted from 0), placed before its batch `step`."""

    @abc.abstractmethod
    def take(self, source: Any, step: tf.Tensor) -> Any:
        """In the graph: the next batch; or an optional one (TensorFlow's or ours), empty where the data ends."""

    @abc.abstractmethod
    def sample_batch(self) -> Any:
        """Return a first batch, for building the model and for looking at shapes."""

    def content(self) -> dict[str, Any] | None:
        """Return what tells this data from others when a run goes on: nests of arrays by names; see `fingerprint`.

        Nothing is in it where no two processes would read the same; it is `None` where the data tells in another way.
        """
        if self.topic is not None:
            return None  # its offsets do
        return {} if self.kind in BY_CHANCE else {"of the first batch": self.sample_batch()}

    @abc.abstractmethod
    def as_dataset(self) -> tf.data.Dataset:
        """Return the data in batches, not augmented, for hooks that want to look at it."""

    def next_pass(self) -> Any:
        """Begin the data again within an epoch, and return the source."""
        raise DataError(f"dataset: the {self.split} split ended within an epoch and cannot begin again.")

    def ready(self, wanted: int) -> int:
        """Return how many of the batches wanted can be taken without waiting long.

        A source that may have to wait for its data waits here for a moment and returns 0 where none came, so that the
        loop can see to signals and checkpoints meanwhile. Where the data has ended it is 1, for finding that out.
        """
        return wanted

    def current(self, source: Any) -> Any:
        """Return the source of the batches that `ready` has announced: the one that `open` gave, if not another."""
        return source

    @property
    def must_release(self) -> bool:
        """Whether a part of the data is to be given to another run; nothing is ready until `release` was called."""
        return False

    def release(self) -> Any:
        """Give it away, after a checkpoint that holds what was trained on of it; return the source of what stays."""
        raise NotImplementedError

    def require(self, position: dict[str, Any]) -> None:
        """Raise where the data is not there any more to which a saved position points."""

    def news(self) -> str | None:
        """Return what is to be said while nothing is ready."""

    @property
    def end_reason(self) -> str | None:
        """Why a stream that might have gone on has ended; training ends with it."""

    def measures(self) -> dict[str, float]:
        """Return what the feed has measured since the last call, to be logged with an epoch."""
        return {}

    def saved(self, position: dict[str, Any]) -> None:
        """Take note that a checkpoint with this position is whole and on disk."""

    def is_ours(self, position: dict[str, Any]) -> bool:
        """Return whether no other run can train on the samples that led to a position."""
        return True

    def close(self) -> None:
        """Let go of what reads ahead; `open` begins again."""

    def took(self, batches: int) -> None:
        """Take note that so many batches were trained on."""

    def close_epoch(self) -> None:
        """Take note that the epoch is over."""

    # The epoch and the step in it are in the state of the run anyway. A feed for which these two numbers are the whole
    # position has nothing to add.

    def position(self) -> dict[str, Any]:
        """Plain numbers that `restore` takes."""
        return {}

    def save(self) -> tuple[tf.Tensor | None, str | None]:
        """Copy what does not fit in plain numbers: an iterator's buffers.

        Returns:
            The state of the iterator, where it is needed, and what is to be said, if anything.
        """
        return None, None

    def restore(self, position: dict[str, Any], prefix: Path) -> bool:
        """Go back to a saved position; the next `open` continues there.

        Returns:
            Whether Python code read the data up to there again, which leaves Python's and NumPy's generators as they
            were then. It may be reading ahead already, so they must not be touched any more.
        """
        return False


BY_CHANCE = ("inexact", "irreproducible")
"""Kinds of position of data that need not be the same in another process."""
POSITIONS = {
    "arrays": "two numbers, epoch and step: a resume finds it exactly and replays nothing",
    "indexed": "two numbers, epoch and step: a resume finds it exactly and replays nothing",
    "saved iterator": "the pipeline's iterator is saved: a resume finds it exactly and replays nothing",
    "offsets": "offsets of the topic: a resume finds it exactly and replays nothing",
    "replayed": "batches are counted: a resume builds the pipeline again from the seed and skips what was seen",
    "inexact": "the data changes in a way that cannot be put back: after a resume it differs",
    "irreproducible": "the order or the numbers of the data are a matter of chance: no two runs are equal",
}
"""Kinds of position in the data, and what a resume makes of them."""


@dataclasses.dataclass(frozen=True)
class Shape:
    """How a batch looks, for messages."""

    text: str

    @classmethod
    def of(cls, batch: Any) -> Shape:
        """Describe a batch or its spec, e.g. `x (32, 28, 28, 1) float32, y (32,) int64`."""
        parts = batch if isinstance(batch, tuple) else (batch,)
        names = ("x", "y", "sample_weight")
        return cls(", ".join(f"{name} {_describe(part)}" for name, part in zip(names, parts, strict=False)))


def leaf_names(data: Any) -> list[str]:
    """Name such as `x[left]` for messages, in the order of `tf.nest.flatten`, which sorts dictionaries by key."""
    parts = data if isinstance(data, tuple) else (data,)
    labelled = zip(("x", "y", "sample_weight"), parts, strict=False)
    return [name for label, part in labelled for name in _names_below(part, label)]


def _names_below(part: Any, name: str) -> list[str]:
    if isinstance(part, Mapping):
        inner = [(key, part[key]) for key in sorted(part)]
    elif isinstance(part, list | tuple):
        inner = list(enumerate(part))
    else:
        return [name]
    return [path for key, value in inner for path in _names_below(value, f"{name}[{key}]")]


def x_and_y(batch: Any) -> tuple[Any, Any]:
    """Return inputs and targets of a batch, or of its spec; `None` where there are no targets."""
    if not isinstance(batch, tuple):
        return batch, None
    return batch[0], batch[1] if len(batch) > 1 else None


def _describe(part: Any) -> str:
    if isinstance(part, dict):
        return "{" + ", ".join(f"{key}: {_describe(value)}" for key, value in part.items()) + "}"
    if isinstance(part, list | tuple):
        return "[" + ", ".join(map(_describe, part)) + "]"
    if part is None:
        return "none"
    shape = tuple(part.shape) if part.shape.rank is not None else "of unknown rank"
    return f"{shape} {part.dtype.name}"


def epoch_order(samples: int, seed: int, epoch: tf.Tensor) -> tf.Tensor:
    """In the graph: a permutation of `range(samples)` that follows from `(seed, epoch)` alone; int32 or int64 `[n]`."""
    kind = tf.int32 if samples < np.iinfo(np.int32).max else tf.int64
    return shuffled_order(tf.constant(samples, kind), tf.constant(derive(seed, "order"), tf.int32), epoch)


def shuffled_order(samples: tf.Tensor, key: tf.Tensor, epoch: tf.Tensor) -> tf.Tensor:
    """In the graph: the same for a number of samples that is a tensor, and a key that was derived from the seed."""
    seed = tf.stack([key, tf.cast(epoch, tf.int32)])
    return tf.random.experimental.stateless_shuffle(tf.range(samples, dtype=samples.dtype), seed=seed)


def require_batches(steps: int | None, split: str) -> None:
    """Raise `DataError` where there is nothing to feed."""
    if steps == 0:
        raise DataError(
            f"dataset: the {split} split is empty. Expected at least one sample, got none. "
            f'Look at what `dataset("{split}")` returns.'
        )

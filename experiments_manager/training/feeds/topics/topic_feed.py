"""A Kafka topic as a feed: samples go from a reading thread through `tf.data` into the loop; their place is kept."""

from __future__ import annotations

import contextlib
import gc
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import tensorflow as tf

from experiments_manager.kafka.errors import TopicError
from experiments_manager.kafka.reading.sample_reader import SamplePosition, SampleReader
from experiments_manager.training.errors import STREAM_ENDED
from experiments_manager.training.feeds.augmentation import augmented_batch, augmented_batches
from experiments_manager.training.feeds.feed import Feed, require_batches
from experiments_manager.training.feeds.topics.batch_buffer import BatchBuffer, LoadedBatches
from experiments_manager.training.feeds.topics.topic_source import TopicSource

_SWITCH_SECONDS = 0.0005
"""How long a thread may keep Python to itself while others wait for it: reading and training hand over batches."""
_switch_seconds_before: list[float] = []
"""One entry for each feed that reads."""


@contextlib.contextmanager
def reading_records() -> Iterator[None]:
    """Let threads take turns often, and the garbage collector leave alone what is there already.

    Records are many objects; for every few thousands of them it would look through all objects of TensorFlow and of the
    model, which takes a quarter of a second.
    """
    _switch_seconds_before.append(sys.getswitchinterval())
    sys.setswitchinterval(_SWITCH_SECONDS)
    gc.freeze()
    try:
        yield
    finally:
        seconds = _switch_seconds_before.pop()
        if not _switch_seconds_before:
            sys.setswitchinterval(seconds)
            gc.unfreeze()


SECONDS_UNTIL_SAID = 5.0
"""Without a new sample, until that is said."""


class TopicFeed(Feed):
    """The samples of a topic: a range of it, read again and shuffled in each pass, or all that comes.

    The position is that of the samples which were trained on: what was read ahead is read again after a resume.

    Args:
        source: The topic.
        split: `train`, `validation` or `test`.
        batch_size: Samples in a batch.
        seed: The run's seed.
        steps_per_epoch: Batches in an epoch; needed for a live topic.
        shuffle: Samples among which a pass is shuffled; 0: not at all.
        augment: Hook `augment(x, y, seed)` to apply to each sample, or `None`.
    """

    kind = "offsets"

    def __init__(
        self,
        source: TopicSource,
        *,
        split: str,
        batch_size: int,
        seed: int,
        steps_per_epoch: int | None = None,
        shuffle: int = 0,
        augment: Callable[..., Any] | None = None,
    ) -> None:
        self.split, self.source, self.batch_size = split, source, batch_size
        self.topic, self.never_ends = source.topic, source.is_live
        self._seed, self._shuffle = seed, shuffle
        self._augmented = tf.function(augmented_batch(augment), autograph=False) if augment else None
        self._in_pass = None if source.is_live else -(-source.expected_samples // batch_size)
        require_batches(self._in_pass, split)
        self.steps = steps_per_epoch or self._in_pass
        if self._in_pass is not None:
            self.steps = min(self.steps, self._in_pass)
        self._most_steps = steps_per_epoch
        self.goes_on = split == "train" and self._in_pass is not None and self.steps < self._in_pass
        self.spec = source.batch_spec()
        self._reader: SampleReader | None = None
        self._buffer = BatchBuffer(source, batch_size) if source.is_plain and not augment else None
        self._source: Any = None
        self._reading = contextlib.ExitStack()
        self._step = self._loaded = self._used = 0
        self._pass, self._taken = 0, 0
        self._resume: SamplePosition | None = None
        self._next: tuple[int, SampleReader] | None = None
        self._said: str | None = None
        self._since, self._samples = time.monotonic(), 0

    def open(self, epoch: int, step: int = 0) -> Any:
        """Return what batches come from: of the pass that goes on, or of a new one."""
        self._step = step
        if self._reader is None:
            goes_on = self.goes_on or self.source.is_live
            self._begin(self._pass if goes_on or self._resume else epoch, self._resume)
        return self._source

    def next_pass(self) -> Any:
        """Begin the range again, in another order."""
        self._begin(self._pass + 1, None)
        return self._source

    def _begin(self, number: int, position: SamplePosition | None) -> None:
        self._end_reading()
        self._reading.enter_context(reading_records())
        self._pass, self._resume = number, None
        self._taken = self._taken if position else 0
        if position is None and self._next is not None and self._next[0] == number:
            self._reader, self._next = self._next[1], None
        else:
            self._reader = self._new_reader(number, position)
        self._connect()

    def _connect(self) -> None:
        """Let samples come that the reader has not handed over."""
        self._loaded = self._used = 0
        self._source = iter(self._dataset(self._reader, self._taken)) if self._buffer is None else None

    def _new_reader(self, number: int, position: SamplePosition | None = None) -> SampleReader:
        return self.source.reader(
            position, shuffle=self._shuffle, seed=self._seed, epoch=number, least_ahead=2 * self.batch_size
        )

    def _read_next_pass_ahead(self) -> None:
        """Begin to read the next pass while the rest of this one is trained on."""
        if self._next is None and self.split == "train" and self._in_pass is not None and self._reader.is_finished:
            self._next = (self._pass + 1, self._new_reader(self._pass + 1))

    def _dataset(self, reader: SampleReader, first: int) -> tf.data.Dataset:
        dataset = self.source.dataset(reader, self.batch_size)
        if self._augmented is not None:
            dataset = augmented_batches(dataset, self._augmented, self._seed, self._pass, first)
        return dataset if self.source.is_dense and self._augmented is None else dataset.prefetch(2)

    def ready(self, wanted: int) -> int:
        """Return how many batches all processes can take without waiting; 0 where one has none for a moment."""
        return min(self.agree(self._ready(wanted)))

    def _ready(self, wanted: int) -> int:
        ready = self._reader.ready(self.batch_size, wanted if self._buffer is None else self._buffer.capacity)
        if self._buffer is None or ready == 0:
            return ready
        if self._loaded == 0:
            self._loaded, self._used = ready, 0
            self._source = self._buffer.load(self._reader.samples(ready * self.batch_size))
        return min(wanted, self._loaded)

    def current(self, source: Any) -> Any:
        """Return what the batches that are ready come from."""
        if self._buffer is None:
            return self._source
        return self._buffer.placed(self._source, self._step - self._used)  # an epoch may have ended in between

    @property
    def must_release(self) -> bool:
        """Whether partitions are to be given to another run, once a checkpoint is whole."""
        return self._reader is not None and self._reader.must_release

    def release(self) -> Any:
        """Give them away; return what the batches of what stays come from."""
        self._reader.release()
        self._connect()
        return self._source

    def news(self) -> str | None:
        """Return what is to be said of waiting, once."""
        reader, topic = self._reader, self.source.topic
        waited = time.monotonic() - reader.idle_since
        text = None
        if reader.trouble is not None:
            text = f"Training waits: {reader.trouble}."
        elif waited > SECONDS_UNTIL_SAID and not reader.is_finished:
            new = "new samples in" if self.source.is_live else "samples of"
            text = f"Training waits for {new} topic {topic}."
        if text is not None and text != self._said:
            self._said = text
            return text
        return None

    def took(self, batches: int) -> None:
        """Note that so many batches were trained on."""
        self._taken += batches
        self._step += batches
        self._loaded, self._used = max(0, self._loaded - batches), self._used + batches
        self._samples += batches * self.batch_size
        self._reader.took(batches * self.batch_size)
        self._correct_steps()
        if batches:
            self._said = None
            self._read_next_pass_ahead()

    def _correct_steps(self) -> None:
        """Let an epoch last until the range ends: records may hold more samples than the first one, or fewer."""
        if self._in_pass is None or self.goes_on or self._taken < self.steps:
            return
        if all(self.agree(self._reader.is_exhausted)):  # a reader may not have seen the end yet
            return
        if self._most_steps is None or self.steps < self._most_steps:
            self.steps = self._taken + 1

    def take(self, source: Any, step: tf.Tensor) -> Any:
        """In the graph: the next batch, or an optional that is empty at the end."""
        if isinstance(source, LoadedBatches):
            return self._buffer.take(source, step)
        return source.get_next_as_optional()

    @property
    def end_reason(self) -> str | None:
        """Why there will be no more batches, where the stream has ended; `None` where there will be."""
        if self._reader is None or not self._reader.has_ended:
            return None
        return f"{STREAM_ENDED} {self.source.topic} for {self.source.idle_timeout:g} s"

    def close_epoch(self) -> None:
        """End the pass too, where epochs and pass are the same."""
        if not (self.goes_on or self.source.is_live):
            if self._reader is not None and self._reader.is_exhausted and self._taken:
                self.steps = self._taken
            self._end_reading()
            self._taken = 0

    def close(self) -> None:
        """Stop reading, and leave the group."""
        self._end_reading()
        if self._next is not None:
            self._next[1].close()
            self._next = None
        self.source.close()

    def _end_reading(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reading.close()
        self._reader = self._source = None

    def measures(self) -> dict[str, float]:
        """Return what is logged of the stream after an epoch: rate, lag, and records that could not be decoded."""
        now = time.monotonic()
        values = {"kafka/samples_per_second": self._samples / max(now - self._since, 1e-6)}
        self._since, self._samples = now, 0
        if self._reader is not None:
            position = self._reader.position()
            values["kafka/bad_records"] = float(position.bad)
            if self.source.is_live:
                values["kafka/lag"] = float(self._reader.lag_after(position))
        return values

    def sample_batch(self) -> Any:
        """Return a first batch, for building the model and for looking at shapes."""
        return self.source.sample_batch(self.batch_size)

    def as_dataset(self) -> tf.data.Dataset:
        """Return the range in batches, not shuffled; of a live topic what came since the run began."""
        return tf.data.Dataset.from_generator(lambda: self.source.look(self.batch_size), output_signature=self.spec)

    def position(self) -> dict[str, Any]:
        """Return the pass, the batches of it that were trained on, and the place in the topic after them."""
        place = self._reader.position() if self._reader is not None else self._resume
        place = place and place.to_json()
        return {"topic": self.source.topic, "pass": self._pass, "taken": self._taken, "place": place}

    def restore(self, position: dict[str, Any], prefix: Path) -> bool:
        """Go back to a saved position; what is there must still be in the topic."""
        self._end_reading()
        self._pass, self._taken = position["pass"], position["taken"]
        self._resume = SamplePosition.from_json(position["place"]) if position["place"] else None
        return False

    def require(self, position: dict[str, Any]) -> None:
        """Raise where the topic does not hold what a saved position points to."""
        if position.get("topic") != self.source.topic:
            raise TopicError(
                f"The checkpoint does not belong to topic {self.source.topic}. Expected a place in it, got "
                f"{position.get('topic') or 'one in other data'}. Resume with the settings that the run was started "
                "with, or start a new run."
            )
        if position["place"]:
            self.source.require_offsets(SamplePosition.from_json(position["place"]).records.offsets)

    def saved(self, position: dict[str, Any]) -> None:
        """Commit the offsets of a whole checkpoint to the consumer group, for whoever watches the lag."""
        if not position["place"]:
            return
        offsets = SamplePosition.from_json(position["place"]).records.offsets
        if self.source.shared_group is None:
            self.source.commit(offsets)
        elif self._reader is not None:
            self._reader.commit(offsets)

    def is_ours(self, position: dict[str, Any]) -> bool:
        """Return whether the group knows that the samples up to a position are trained on."""
        reader = self._reader
        if self.source.shared_group is None or reader is None or not position["place"]:
            return self.source.shared_group is None
        return reader.is_committed(SamplePosition.from_json(position["place"]).records.offsets)

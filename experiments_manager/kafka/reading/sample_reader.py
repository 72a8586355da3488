"""Samples of a topic, read, decoded and shuffled in a thread while training goes on, each with its place."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from experiments_manager.kafka.dead_letters import BadRecords
from experiments_manager.kafka.errors import PartitionsLostError, TopicError
from experiments_manager.kafka.reading.decoding import DecodedSamples, Decoder, decode
from experiments_manager.kafka.reading.reader import TopicReader
from experiments_manager.kafka.reading.rotation import Position
from experiments_manager.kafka.reading.shuffling import Shuffle, ShuffleWindows
from experiments_manager.kafka.records.buffers import BufferPool


@dataclasses.dataclass(frozen=True)
class SamplePosition:
    """A place between two samples of a topic.

    Attributes:
        records: The place between two records at which reading goes on.
        skip: Samples after it that were used already.
        window: Number of the shuffled window that begins there.
        records_read: Records before it that were read; of a bounded topic in this pass.
        bad: Those of them that could not be decoded.
    """

    records: Position
    skip: int = 0
    window: int = 0
    records_read: int = 0
    bad: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return plain data that `from_json` takes."""
        return {**dataclasses.asdict(self), "records": self.records.to_json()}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> SamplePosition:
        """Make a position of what `to_json` returned."""
        return cls(**{**data, "records": Position.from_json(data["records"])})


@dataclasses.dataclass
class Chunk:
    """Some samples on their way to training.

    Attributes:
        leaves: Their arrays.
        first: Number of the first sample since the reader began; negative where it was used before.
        start: The place before it.
        samples: To find a place inside, where they are in the order of the topic; `None` in a shuffled window.
    """

    leaves: list[Any]
    count: int
    first: int
    start: SamplePosition
    samples: DecodedSamples | None
    nbytes: int

    def place(self, taken: int) -> SamplePosition:
        """Return the place after so many samples of the reader."""
        inside = taken - self.first
        if self.samples is None or inside == 0:
            return dataclasses.replace(self.start, skip=self.start.skip + inside)
        records, skip = self.samples.place(inside)
        read = int((self.samples.ends <= inside).sum())
        bad = sum(index < read for index in self.samples.bad)
        return SamplePosition(records, skip, records_read=self.start.records_read + read, bad=self.start.bad + bad)


_BYTES_AHEAD = 2**25
"""Samples that wait for training; reading pauses while there are more."""
_PIECE_BYTES = 2**21
"""Of a shuffled window, that are handed over at once."""
_POLL_SECONDS = 0.05
_SECONDS_FOR_SEVERAL = 0.02
_SECONDS_BETWEEN_LOOKS = 1.0


class SampleReader:
    """Reads samples ahead of training, from a position on.

    The thread that trains calls `ready`, `took` and `position`; `chunks` may be iterated in another one.

    Args:
        make_reader: Gives a reader of the topic from a position on; called in the thread. Its second argument is for
            a `GroupReader`, which calls it before it gives partitions away.
        decoder: Turns records into samples.
        start: Where to begin.
        bad_records: Takes records that cannot be decoded.
        shuffle: How samples are shuffled; `None`: they come in the order of the topic.
        idle_timeout: Seconds without a new record after which a topic that is followed counts as ended.
        least_ahead: Samples that are read ahead, however large they are.
        buffers: Memory for shuffled samples.
    """

    def __init__(
        self,
        make_reader: Callable[[Position, Callable[[], Position | None]], TopicReader],
        decoder: Decoder,
        start: SamplePosition,
        bad_records: BadRecords,
        *,
        shuffle: Shuffle | None = None,
        idle_timeout: float | None = None,
        least_ahead: int = 1,
        buffers: BufferPool | None = None,
    ) -> None:
        self._make_reader, self._decoder, self._bad = make_reader, decoder, bad_records
        self._windows = ShuffleWindows(shuffle, start.window, buffers) if shuffle else None
        self._shuffle, self._idle_timeout, self._least_ahead = shuffle, idle_timeout, least_ahead
        self._chunks: collections.deque[Chunk] = collections.deque()
        self._handed_over, self._produced, self._taken = 0, -start.skip, 0
        self._bytes, self._last_place, self._next_place = 0, start, dataclasses.replace(start, skip=0)
        self._changed, self._closed = threading.Condition(), False
        self._reader: TopicReader | None = None
        self._generation, self._released = 0, False
        self.must_release = False
        """Whether partitions are to be given away, once a checkpoint is whole and `release` was called."""
        self.is_finished, self._error = False, None
        self.trouble: str | None = None
        """Why the broker cannot be reached at present; `None` while it can."""
        self.idle_since = time.monotonic()
        self._is_idle = self._is_caught_up = self._gives_chunks = False
        self._awaited = 0
        self.ends: dict[int, int] = {}
        """Where each partition ended when the thread last looked."""
        self._thread = threading.Thread(target=self._run, name=f"kafka {bad_records.topic}", daemon=True)
        self._thread.start()

    # In the thread that trains

    def ready(self, batch_size: int, wanted: int, seconds: float = 0.1) -> int:
        """Return how many batches can be taken at once; 0 where there is none within so many seconds.

        After the end of the range it is 1, for the rest, or for finding out that there is none.

        Raises:
            TopicError: The topic cannot be read.
        """
        with self._changed:
            # A call of the compiled loop for each batch would cost more than a moment's wait for several.
            self._awaited = wanted * batch_size
            self._changed.wait_for(
                lambda: (
                    self._available() >= wanted * batch_size
                    or self._bytes > _BYTES_AHEAD // 2
                    or self._is_caught_up
                    or self._is_over()
                ),
                _SECONDS_FOR_SEVERAL,
            )
            self._awaited = batch_size
            self._changed.wait_for(
                lambda: self._available() >= batch_size or self._is_over() or self.must_release, seconds
            )
            if self.must_release:
                return 0
            is_lost = isinstance(self._error, PartitionsLostError)  # what was read ahead belongs to others now
            if self._error is not None and (is_lost or self._available() < batch_size):
                raise self._error
            ready = self._available() // batch_size
            return min(wanted, ready) if ready or not self.is_finished else 1

    @property
    def is_exhausted(self) -> bool:
        """Whether everything was read and trained on."""
        with self._changed:
            return self.is_finished and self._available() == 0

    @property
    def has_ended(self) -> bool:
        """Whether nothing new has come for so long that the stream counts as ended, and all was trained on."""
        with self._changed:
            return self._is_idle and self.is_finished and self._available() == 0

    def took(self, samples: int) -> None:
        """Note that so many samples more were trained on."""
        with self._changed:
            self._taken += min(samples, self._available())
            while self._chunks and self._chunks[0].first + self._chunks[0].count <= self._taken:
                if self._handed_over == 0:
                    break
                done = self._chunks.popleft()
                self._handed_over -= 1
                self._bytes -= done.nbytes
            self._changed.notify_all()

    def samples(self, count: int) -> list[list[Any]]:
        """Hand over the next samples at once, instead of by `chunks`; fewer where there are no more.

        Returns:
            The leaves, in pieces.
        """
        pieces = []
        with self._changed:
            while count and len(self._chunks) > self._handed_over:
                chunk = self._chunks[self._handed_over]
                pieces.append([leaf[:count] for leaf in chunk.leaves])
                if len(chunk.leaves) and len(chunk.leaves[0]) > count:
                    chunk.leaves, count = [leaf[count:] for leaf in chunk.leaves], 0
                else:
                    count -= len(chunk.leaves[0]) if chunk.leaves else 0
                    chunk.leaves = []
                    self._handed_over += 1
        return [piece for piece in pieces if piece]

    def position(self) -> SamplePosition:
        """Return the place after the samples that were trained on."""
        with self._changed:
            for chunk in self._chunks:
                if chunk.first + chunk.count > self._taken:
                    return chunk.place(self._taken)
            return self._next_place if self._produced >= 0 else self._last_place

    def release(self) -> None:
        """Let partitions be given away now that a checkpoint is whole; what was read ahead is forgotten."""
        with self._changed:
            place = self.position()
            self._chunks.clear()
            self._handed_over, self._bytes, self._generation = 0, 0, self._generation + 1
            self._produced, self._taken = -place.skip, 0
            self._last_place, self._next_place = place, dataclasses.replace(place, skip=0)
            self._released, self.must_release = True, False
            self._changed.notify_all()

    def commit(self, offsets: Mapping[int, int]) -> None:
        """Commit the offsets of a whole checkpoint, where the reader is a member of a group."""
        if self._reader is not None and not self._closed:
            self._reader.commit(offsets)

    def is_committed(self, offsets: Mapping[int, int]) -> bool:
        """Return whether the reader's group knows that everything before these offsets is done."""
        reader = self._reader
        return reader is not None and reader.is_committed(offsets)

    def lag_after(self, position: SamplePosition) -> int:
        """Return how many records the topic held after a position when the thread last looked."""
        return sum(max(0, end - position.records.offsets.get(number, 0)) for number, end in self.ends.items())

    def require_success(self) -> None:
        """Raise what ended reading before its end, if anything did.

        Raises:
            TopicError: The topic cannot be read.
        """
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """End the thread that reads ahead, and close its consumer."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()
        self._bad.close()

    # In the thread that hands the samples to TensorFlow

    def chunks(self) -> Iterator[list[Any]]:
        """Yield the leaves of all samples that were not handed over yet, as they come, until the end."""
        generation, self._gives_chunks = self._generation, True
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: len(self._chunks) > self._handed_over or self._is_over() or generation != self._generation
                )
                if len(self._chunks) <= self._handed_over or generation != self._generation:
                    return
                chunk = self._chunks[self._handed_over]
                self._handed_over += 1
                leaves = chunk.leaves
                chunk.leaves = []
            yield leaves

    def _available(self) -> int:
        return max(0, self._produced) - self._taken

    def _is_over(self) -> bool:
        return self.is_finished or self._closed or self._error is not None

    # In the thread that reads

    def _run(self) -> None:
        try:
            with contextlib.closing(self._make_reader(self._last_place.records, self._wait_for_release)) as reader:
                self._reader = reader
                self._read(reader)
                with self._changed:  # the reader stays open, for the offsets of the last checkpoint
                    self.is_finished = not self._closed
                    self._changed.notify_all()
                    self._changed.wait_for(lambda: self._closed)
        except BaseException as error:
            with self._changed:
                self._error = error if isinstance(error, TopicError) else _unexpected(self._bad.topic, error)
                self._changed.notify_all()

    def _read(self, reader: TopicReader) -> None:
        looked = 0.0
        while not self._closed and not reader.is_finished:
            records = reader.read(_POLL_SECONDS)
            self.trouble = reader.trouble
            if time.monotonic() - looked > _SECONDS_BETWEEN_LOOKS:
                self.ends, looked = reader.known_ends(), time.monotonic()
            if records is not None:
                self._is_caught_up = reader.is_caught_up
                samples = decode(self._decoder, records)
                self._bad.take(samples)
                self._hand_over(samples)
                self.idle_since = time.monotonic()
            elif self.trouble is not None or reader.holds_back:
                self.idle_since = time.monotonic()  # the broker is silent, or one partition, and not the stream
            elif self._idle_timeout is not None and time.monotonic() - self.idle_since > self._idle_timeout:
                self._is_idle = True
                break
        if self._windows and not self._closed:
            for number, window in self._windows.rest():
                self._hand_over_window(number, window)

    def _wait_for_release(self) -> Position | None:
        """Let the thread that trains write a checkpoint; return its place, or `None` where reading ends."""
        with self._changed:
            self.must_release, self._released = True, False
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._released or self._closed)
            self.must_release = False
            self.idle_since = time.monotonic()
            if self._closed:
                return None
            if self._last_place.skip:
                raise TopicError(
                    f"kafka_group: a record of topic {self._bad.topic} holds several samples, and some of them were "
                    "trained on when its partition was to be given away. Expected one sample a record. Produce the "
                    "topic without --samples-per-record, or set kafka_group = None."
                )
            return self._last_place.records

    def _hand_over(self, samples: DecodedSamples) -> None:
        samples = samples.without_values()
        if self._windows:
            for number, window in self._windows.add(samples):
                self._hand_over_window(number, window)
            return
        count, start = len(samples), self._next_place
        after = SamplePosition(
            samples.records.end,
            records_read=start.records_read + len(samples.ends),
            bad=start.bad + len(samples.bad),
        )
        places = dataclasses.replace(samples, leaves=[])
        self._put(Chunk(samples.leaves, count, self._produced, start, places, samples.nbytes), after)

    def _hand_over_window(self, number: int, window: DecodedSamples) -> None:
        size = max(1, window.nbytes // max(1, len(window)))
        step, before = max(1, _PIECE_BYTES // size), self._next_place
        start = dataclasses.replace(before, records=window.records.start, window=number)
        after = SamplePosition(
            window.records.end,
            window=number + bool(len(window)),
            records_read=before.records_read + len(window.ends),
            bad=before.bad + len(window.bad),
        )
        if not len(window):
            self._put(Chunk([], 0, self._produced, start, None, 0), after)
        for first in range(0, len(window), step):
            place = dataclasses.replace(start, skip=first)
            leaves = [leaf[first : first + step] for leaf in window.leaves]
            is_last, count = first + step >= len(window), len(leaves[0])
            chunk = Chunk(leaves, count, self._produced, place, None, size * count)
            self._put(chunk, after if is_last else dataclasses.replace(start, skip=first + step))

    def _put(self, chunk: Chunk, after: SamplePosition) -> None:
        """Let a chunk wait for training, without the samples that were used before the reader began."""
        used = min(chunk.count, max(0, -chunk.first))
        with self._changed:
            self._changed.wait_for(
                lambda: self._bytes < _BYTES_AHEAD or self._available() < self._least_ahead or self._closed
            )
            self._produced += chunk.count
            self._next_place = after
            if used == chunk.count:
                return
            chunk.leaves = [leaf[used:] for leaf in chunk.leaves] if used else chunk.leaves
            self._chunks.append(chunk)
            self._bytes += chunk.nbytes
            is_enough = self._available() >= self._awaited or self._bytes > _BYTES_AHEAD // 2 or self._is_caught_up
            if is_enough or self._gives_chunks:  # waking a thread that has to wait on costs more than decoding
                self._changed.notify_all()


def _unexpected(topic: str, error: BaseException) -> TopicError:
    wrapped = TopicError(f"Topic {topic} cannot be read: {error!r}.")
    wrapped.__cause__ = error
    return wrapped

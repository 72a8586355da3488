"""A shuffle whose order follows from a seed and the records alone, and that can be begun again at any window.

The records are cut into windows of about so many samples, and each window is shuffled for itself. Where it begins is a
position in the topic, so a resume reads one window again and nothing before it; a buffer that is refilled sample by
sample (as `tf.data.Dataset.shuffle` has) would have to be stored or replayed. The first window of a pass has a random
length, so that the windows of two passes overlap and samples meet others each time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from experiments_manager.kafka.reading.decoding import DecodedSamples
from experiments_manager.kafka.records.buffers import BufferPool
from experiments_manager.kafka.records.composite import concatenated

MOST_BYTES = 2**26
"""Size of a window, whatever the number of its samples."""


@dataclasses.dataclass(frozen=True)
class Shuffle:
    """How a pass is shuffled.

    Attributes:
        samples: Samples of a window.
        seed: Of the run.
        epoch: Number of the pass.
    """

    samples: int
    seed: int
    epoch: int

    def length(self, window: int) -> int:
        """Return how many samples a window has at least; the record that completes it belongs to it."""
        return self.samples if window else int(self._random(0, 1).integers(1, self.samples + 1))

    def order(self, window: int, samples: int) -> np.ndarray:
        """Return the permutation of a window."""
        return self._random(window, 0).permutation(samples)

    def _random(self, window: int, purpose: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, self.epoch, window, purpose])


class ShuffleWindows:
    """Collects samples until a window is complete.

    Args:
        shuffle: How long windows are.
        first: Number of the first one.
        buffers: Memory for shuffled samples.
    """

    def __init__(self, shuffle: Shuffle, first: int = 0, buffers: BufferPool | None = None) -> None:
        self._shuffle, self.number, self._buffers = shuffle, first, buffers or BufferPool()
        self._parts: list[DecodedSamples] = []
        self._samples = self._bytes = 0

    def add(self, part: DecodedSamples) -> Iterator[tuple[int, DecodedSamples]]:
        """Take further samples; yield the number and the shuffled samples of each window that they complete."""
        while part is not None:
            missing = self._shuffle.length(self.number) - self._samples
            totals = self._bytes + part.record_bytes.cumsum()
            by_samples = int(np.searchsorted(part.ends, missing)) + 1
            by_bytes = int(np.searchsorted(totals, MOST_BYTES)) + 1
            cut = min(by_samples, by_bytes)
            if cut > len(part.ends):
                self._keep(part)
                return
            head, part = part.split(cut)
            self._keep(head)
            yield from self.rest()

    def rest(self) -> Iterator[tuple[int, DecodedSamples]]:
        """Yield the window that was begun, if any; bad records alone are one without samples and without a number."""
        if self._parts:
            order = self._shuffle.order(self.number, sum(map(len, self._parts)))
            window = DecodedSamples.concatenated(self._parts, lambda arrays: self._shuffled(arrays, order))
            yield self.number, window
            self.number += bool(len(window))
        self._parts, self._samples, self._bytes = [], 0, 0

    def _shuffled(self, arrays: list[Any], order: np.ndarray) -> Any:
        """Return the array of a leaf in its new order."""
        first = arrays[0]
        if not all(isinstance(array, np.ndarray) and array.dtype == first.dtype != object for array in arrays):
            return concatenated(arrays)[order]
        # Each sample is written to its new place at once, instead of joining all and then picking them.
        whole, places = self._buffers.empty((len(order), *first.shape[1:]), first.dtype), np.empty_like(order)
        places[order] = np.arange(len(order))
        for array, into in zip(arrays, np.split(places, np.cumsum([len(array) for array in arrays])[:-1]), strict=True):
            whole[into] = array
        return whole

    def _keep(self, part: DecodedSamples) -> None:
        self._parts.append(part)
        self._samples, self._bytes = self._samples + len(part), self._bytes + int(part.record_bytes.sum())

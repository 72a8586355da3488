"""Batches of ragged and sparse arrays as NumPy holds them, without TensorFlow; and joining batches of any kind."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Ragged:
    """A batch of arrays with rows of different lengths, as `tf.RaggedTensor` has it.

    Attributes:
        values: All innermost rows, one after the other, `[values, …]`; their own dimensions are uniform.
        row_lengths: int64 lengths of the rows of each ragged dimension, the outermost first: that has one a sample.
    """

    values: np.ndarray
    row_lengths: tuple[np.ndarray, ...]

    def __len__(self) -> int:
        return len(self.row_lengths[0])

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays in memory."""
        return self.values.nbytes + sum(level.nbytes for level in self.row_lengths)

    @property
    def sizes(self) -> np.ndarray:
        """How many innermost rows each sample has, int64 `[batch]`."""
        return functools.reduce(lambda sizes, level: sums(level, sizes), self.row_lengths[1:], self.row_lengths[0])

    @classmethod
    def concatenated(cls, parts: Sequence[Ragged]) -> Ragged:
        """Return one batch of several."""
        levels = zip(*(part.row_lengths for part in parts), strict=True)
        return cls(np.concatenate([part.values for part in parts]), tuple(map(np.concatenate, levels)))

    def __getitem__(self, chosen: slice | np.ndarray) -> Ragged:
        """Return some of the samples, in the order of their numbers; of a slice without steps, views."""
        if isinstance(chosen, slice) and chosen.step in (None, 1):
            return self._run(*chosen.indices(len(self))[:2])
        numbers, lengths = np.arange(len(self))[chosen], []
        for level in self.row_lengths:
            lengths.append(level[numbers])
            numbers = runs(starts_of(level)[:-1][numbers], level[numbers])
        return Ragged(self.values[numbers], tuple(lengths))

    def _run(self, start: int, stop: int) -> Ragged:
        lengths = []
        for level in self.row_lengths:
            lengths.append(level[start:stop])
            before, count = int(level[:start].sum()), int(level[start:stop].sum())
            start, stop = before, before + count
        return Ragged(self.values[start:stop], tuple(lengths))


@dataclasses.dataclass(frozen=True, eq=False)
class Sparse:
    """A batch of sparse arrays, as `tf.SparseTensor` has it.

    Attributes:
        indices: int64 `[values, rank]`, those of the batch first and ascending.
        values: What is at these places, `[values]`.
        shape: Sizes of the dense array, that of the batch first.
    """

    indices: np.ndarray
    values: np.ndarray
    shape: tuple[int, ...]

    def __len__(self) -> int:
        return int(self.shape[0])

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays in memory."""
        return self.values.nbytes + self.indices.nbytes

    @property
    def sizes(self) -> np.ndarray:
        """How many values each sample has, int64 `[batch]`."""
        return np.bincount(self.indices[:, 0], minlength=len(self)).astype(np.int64)

    @classmethod
    def concatenated(cls, parts: Sequence[Sparse]) -> Sparse:
        """Return one batch of several; its dense shape is the largest of them."""
        firsts = starts_of(np.array([len(part) for part in parts])).tolist()
        indices = np.concatenate([part.indices for part in parts])
        indices[:, 0] += np.repeat(firsts[:-1], [len(part.values) for part in parts])
        sizes = np.max([part.shape[1:] for part in parts], axis=0).tolist()
        return cls(indices, np.concatenate([part.values for part in parts]), (firsts[-1], *sizes))

    def __getitem__(self, chosen: slice | np.ndarray) -> Sparse:
        """Return some of the samples, in the order of their numbers."""
        if isinstance(chosen, slice) and chosen.step in (None, 1):
            return self._run(*chosen.indices(len(self))[:2])
        numbers, sizes = np.arange(len(self))[chosen], self.sizes
        places = runs(starts_of(sizes)[:-1][numbers], sizes[numbers])
        of_sample = np.repeat(np.arange(len(numbers)), sizes[numbers])
        indices = np.column_stack([of_sample, self.indices[places, 1:]])
        return Sparse(indices, self.values[places], (len(numbers), *self.shape[1:]))

    def _run(self, start: int, stop: int) -> Sparse:
        first, end = np.searchsorted(self.indices[:, 0], [start, stop]).tolist()
        indices = self.indices[first:end].copy()
        indices[:, 0] -= start
        return Sparse(indices, self.values[first:end], (max(0, stop - start), *self.shape[1:]))


def starts_of(lengths: np.ndarray) -> np.ndarray:
    """Return where runs of these lengths begin, one after the other, and where the last one ends."""
    return np.concatenate([np.zeros(1, np.int64), lengths.cumsum(dtype=np.int64)])


def sums(values: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return the sums of runs of these lengths, one after the other; int64."""
    return np.diff(starts_of(values)[starts_of(lengths)])


def runs(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return the numbers of several runs, one run after the other."""
    return np.repeat(starts - starts_of(lengths)[:-1], lengths) + np.arange(lengths.sum())


def concatenated(parts: Sequence[Any]) -> Any:
    """Return one batch of several: arrays, arrays of objects where their samples differ in shape, ragged or sparse."""
    if len(parts) == 1:
        return parts[0]
    if not isinstance(parts[0], np.ndarray):
        return type(parts[0]).concatenated(parts)
    if len({(part.shape[1:], part.dtype) for part in parts}) == 1:
        return np.concatenate(parts)
    samples = np.empty(sum(map(len, parts)), object)
    for index, sample in enumerate(itertools.chain.from_iterable(parts)):
        samples[index] = sample
    return samples

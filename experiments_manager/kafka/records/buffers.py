"""Memory for the arrays of samples on their way to training, used again and again.

Fresh memory costs more than copying into it, since the operating system clears each of its pages first.
"""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Sequence

import numpy as np

ALIGNMENT = 64
"""Bytes; TensorFlow takes an array as it is where it begins at a multiple of it."""
_LEAST_BYTES = 2**16
"""The memory of smaller arrays is used again by `malloc`."""
_LARGEST_TO_SMALLEST = 4
"""Memory is not used for an array that needs less than this part of it."""


class BufferPool:
    """Gives arrays whose memory it takes back by itself once nothing refers to them or to views of them.

    Args:
        most: Pieces of memory that it keeps.
    """

    def __init__(self, most: int = 64) -> None:
        self._most = most
        self._pieces: list[np.ndarray] = []
        self._lock = threading.Lock()

    def empty(self, shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
        """Return an aligned, C-contiguous array with arbitrary contents; not for objects."""
        size = math.prod(shape) * dtype.itemsize
        with self._lock:
            is_small = size < _LEAST_BYTES
            memory = np.empty(size + ALIGNMENT, np.uint8) if is_small else self._unused(size + ALIGNMENT)
            start = -memory.__array_interface__["data"][0] % ALIGNMENT
            return memory[start : start + size].view(dtype).reshape(shape)

    def _unused(self, size: int) -> np.ndarray:
        for index, memory in enumerate(self._pieces):
            if size <= memory.size <= _LARGEST_TO_SMALLEST * size and sys.getrefcount(memory) == _UNUSED:
                self._pieces.append(self._pieces.pop(index))  # what fits least goes first
                return memory
        self._pieces.append(np.empty(size, np.uint8))
        del self._pieces[: -self._most]
        return self._pieces[-1]


def _references_of_unused() -> int:
    """Return what `sys.getrefcount` says of an array in a list that is looked at in a loop, and nowhere else."""
    for _, memory in enumerate([np.empty(1, np.uint8)]):
        return sys.getrefcount(memory)
    return 0


_UNUSED = _references_of_unused()

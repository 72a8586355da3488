"""Protobuf's variable-length integers, many at a time.

Source: https://protobuf.dev/programming-guides/encoding/#varints. Seven bits a byte, the lowest first; the highest
bit says that more bytes follow. A negative number is written as its 64 bits in two's complement, hence in ten bytes.
"""

from __future__ import annotations

import numpy as np

_LONGEST = 10  # bytes


def encode(values: np.ndarray) -> bytes:
    """Write integers one after the other.

    Args:
        values: Integers of any width, shape (n,).
    """
    if values.size == 0:
        return b""
    if values.dtype.kind == "i":
        values = values.astype(np.int64)
    bits = values.astype(np.uint64)
    if bits.max() < 0x80:
        return bits.astype(np.uint8).tobytes()
    lengths = np.ones(bits.shape, np.int64)
    for longer in range(1, _LONGEST):
        lengths += bits >= np.uint64(1 << (7 * longer))
    ends = np.cumsum(lengths)
    place = np.arange(ends[-1]) - np.repeat(ends - lengths, lengths)
    groups = np.repeat(bits, lengths) >> (7 * place).astype(np.uint64)
    encoded = groups.astype(np.uint8) | np.uint8(0x80)
    encoded[ends - 1] &= np.uint8(0x7F)
    return encoded.tobytes()


def decode(data: bytes) -> np.ndarray:
    """Read all integers of a packed field.

    Returns:
        uint64, shape (n,); `view(numpy.int64)` where they are signed.

    Raises:
        ValueError: The data ends within a number, or a number is longer than ten bytes.
    """
    encoded = np.frombuffer(data, np.uint8)
    if encoded.size == 0:
        return np.zeros(0, np.uint64)
    is_last = encoded < 0x80
    if not is_last[-1]:
        raise ValueError("the data end within a number")
    if is_last.all():
        return encoded.astype(np.uint64)
    ends = np.flatnonzero(is_last)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > _LONGEST:
        raise ValueError("a number is longer than ten bytes")
    place = np.arange(encoded.size) - np.repeat(starts, lengths)
    groups = (encoded & 0x7F).astype(np.uint64) << (7 * place).astype(np.uint64)
    return np.bitwise_or.reduceat(groups, starts)

"""Protobuf's variable-length integers, one or many at a time, and the heads of fields that are made of them.

Source: https://protobuf.dev/programming-guides/encoding/#varints. Seven bits a byte, the lowest first; the highest
bit says that more bytes follow. A negative number is written as its 64 bits in two's complement, hence in ten bytes.
"""

from __future__ import annotations

import numpy as np

LENGTH_DELIMITED = 2
"""Protobuf's wire type of text, bytes, messages and packed numbers."""
_LONGEST = 10  # bytes


def encode_one(value: int) -> bytes:
    """Write one integer that is not negative."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def decode_one(data: bytes | memoryview, at: int, end: int) -> tuple[int, int]:
    """Read one integer.

    Args:
        data: Where it is.
        at: Where it begins.
        end: Where the data end for it.

    Returns:
        The integer, and the place behind it.

    Raises:
        ValueError: The data end within the number, or it is longer than ten bytes.
    """
    value = 0
    for place in range(at, min(end, at + _LONGEST)):
        value |= (data[place] & 0x7F) << (7 * (place - at))
        if data[place] < 0x80:
            return value, place + 1
    raise ValueError("no whole number")


def field_head(number: int, size: int) -> bytes:
    """Return what comes before the content of a length-delimited field of so many bytes."""
    return encode_one(number << 3 | LENGTH_DELIMITED) + encode_one(size)


def field(number: int, content: bytes) -> bytes:
    """Return a length-delimited field."""
    return field_head(number, len(content)) + content


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

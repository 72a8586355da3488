"""Samples to try a model with: from requests that it got, and made up by types and shapes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from experiments_manager.serving.models.signatures import Arrays, Shapes, Signature

Row = dict[str, np.ndarray]
"""One sample: arrays by input name, whose first dimension is 1."""

_WORDS = ("alpha", "beta", "the", "of", "a", "1", "37", "0.5", "yes", "no", "red", "cat", "London")
_ODD = (b"", b"x" * 300, "naïve 🙂 漢字".encode(), b"\xff\x00\xfe", b"  ", b"2026-01-31", b'{"a": 1}')
_RANGES = (2, 3, 10, 30, 100, 256, 1000, 10**6)
"""Whole numbers are taken below each of these: an embedding answers those alone that it has."""
_SCALES = (1.0, 1.0, 10.0, 255.0, 0.01, 1e3)
_WILD = (1e6, -1e6, 1e30, -1e30, 1e-30, np.inf, np.nan)
"""Numbers that show in other samples' answers wherever these depend on them, be it ever so little."""


def tame(signature: Signature, shapes: Shapes, seeds: Sequence[Row], random: np.random.Generator) -> Iterator[Row]:
    """Make up samples that a model may well be asked, without end.

    Args:
        signature: What is asked.
        shapes: Shapes of a sample's arrays, without the first dimension.
        seeds: Samples that it was asked; they come first, and then others like them.
        random: Where numbers come from.
    """
    yield from seeds
    for number in itertools.count():
        if seeds and number % 4:
            yield {name: _like(array, random) for name, array in seeds[number % len(seeds)].items()}
            continue
        level = number // (4 if seeds else 1)
        yield {name: _made_up(signature.inputs[name].numpy_dtype, (1, *shapes[name]), level, random) for name in shapes}


def wild(rows: Sequence[Row], random: np.random.Generator) -> Iterator[Row]:
    """Make samples of extreme numbers from others; none where there are no floating-point inputs."""
    names = [name for name, array in rows[0].items() if array.dtype.kind not in "iubO"]
    if not names:
        return
    for number, value in enumerate(_WILD):
        row = dict(rows[number % len(rows)])
        for name in names:
            with np.errstate(all="ignore"):
                scaled = row[name] * row[name].dtype.type(value) if np.isfinite(value) else row[name].copy()
            if not np.isfinite(value):
                scaled.ravel()[random.integers(scaled.size) :][:1] = value
            row[name] = scaled
        yield row


def _made_up(dtype: np.dtype, shape: tuple[int, ...], level: int, random: np.random.Generator) -> np.ndarray:
    if dtype.kind == "O":
        return _filled(shape, lambda: _text(level, random))
    if dtype.kind == "b":
        return random.random(shape) < 0.5
    if dtype.kind in "iu":
        high = min(_RANGES[level % len(_RANGES)], int(np.iinfo(dtype).max))
        return random.integers(0, high, shape).astype(dtype)
    numbers = random.normal(size=shape) if level % 2 else random.random(shape)
    if dtype.kind == "c":
        return (numbers + 1j * random.normal(size=shape)).astype(dtype)
    return (numbers * _SCALES[level % len(_SCALES)]).astype(dtype)


def _like(array: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Return an array with the values of another, or near them, in another order."""
    mixed = random.choice(array.ravel(), array.size) if array.size else array.ravel()
    if array.dtype.kind in "fcV":
        with np.errstate(all="ignore"):
            factor = random.uniform(0.5, 2.0) if random.random() < 0.7 else 10.0 ** random.integers(-3, 4)
            mixed = (mixed * np.asarray(factor).astype(array.dtype)).astype(array.dtype)
    return np.ascontiguousarray(mixed.reshape(array.shape))


def _text(level: int, random: np.random.Generator) -> bytes:
    if level % 5 == 4:
        return _ODD[random.integers(len(_ODD))]
    if level % 5 == 3:
        return str(random.integers(0, 1000)).encode()
    return " ".join(random.choice(_WORDS, random.integers(1, 12))).encode()


def _filled(shape: tuple[int, ...], make: Callable[[], Any]) -> np.ndarray:
    array = np.empty(shape, object)
    for place in np.ndindex(shape):
        array[place] = make()
    return array


def first_row(inputs: Arrays) -> Row:
    """Return a copy of a request's first sample, which outlives the request."""
    return {name: array[:1].copy() for name, array in inputs.items()}

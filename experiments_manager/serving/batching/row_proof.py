"""Trying whether the samples of a call depend on each other, without which no two requests share a call.

A model may mix the samples of a call: by a mean over all of them, batch normalisation left in training mode, ragged
texts padded to the longest. Then, in a call that is shared, everybody's answer holds something of other people's. So a
model is tried before: samples alone and together, in different places, with different company, in calls of each size.

Two things are looked at apart. *Company*: in a call of the same size, at the same place, with other samples beside it,
a sample's answer must be the same bit for bit, however large or odd the others are; that holds for every kernel that
computes rows for themselves. *Size*: kernels for one row (a vector times a matrix) round otherwise than those for many.
Sizes at which every answer is bit for bit that of the sample alone are `exact`; where the last bits differ, `rounded`.

What a model does with values that were not tried is for its graph to say (`serving/models/row_analysis/row_flow.py`).
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from experiments_manager.protocol.status import Code, ServingError
from experiments_manager.serving.batching.row_samples import Row, tame, wild
from experiments_manager.serving.models.signatures import Arrays, Shapes, Signature

SIZES = (*range(2, 17), 24, 32, 48, 64)
"""Sizes of calls that are tried; none is larger, where calls are shared."""
MOST_SECONDS = 1.0
"""About so long a proof may take; a slow model is tried at fewer sizes."""
_PATIENCE = 5
"""How many times as long it may take where others have the processor."""
_DRAWS, _LEAST_DRAWS = 24, 2
_MOST_BYTES = 64 * 2**20
"""Bytes of inputs that are held, or computed at once."""
_POOL, _LEAST = 48, 4
"""Samples that are tried, and without how many that the model answers nothing is proved."""
_CANDIDATES = 400
_COMPANY_SIZES = (2, 3, 8)
_NEAR = 1e-3
"""Largest difference, relative to a sample's largest number, that rounding is taken to make."""

Call = Callable[[Arrays], Arrays]
"""Computes outputs of inputs, or raises a `ServingError`."""


@dataclasses.dataclass(frozen=True)
class RowProof:
    """What trying a model has shown.

    Attributes:
        exact: Sizes of calls at which each sample has the answer that it has alone, bit for bit.
        rounded: The same but for the last bits; `exact` ones among them.
        reason: Why not more sizes.
        unanswered: Whether nothing could be tried, because the model answered too few of the samples made up.
    """

    exact: tuple[int, ...] = ()
    rounded: tuple[int, ...] = ()
    reason: str = ""
    unanswered: bool = False

    def sizes(self, *, rounded: bool) -> tuple[int, ...]:
        """Return the sizes of calls that may be shared, 1 among them; empty where none may."""
        chosen = self.rounded if rounded else self.exact
        return (1, *chosen) if chosen else ()


class _TimeLimit:
    """Counts the thread's own work: on a busy machine a proof takes longer, and shows as much."""

    def __init__(self) -> None:
        self._work, self._start = time.thread_time(), time.monotonic()

    def over(self, share: float = 1.0) -> bool:
        """Return whether this share of the time is over."""
        spent = max(time.thread_time() - self._work, (time.monotonic() - self._start) / _PATIENCE)
        return spent > share * MOST_SECONDS


class _Depends(Exception):
    """The samples of a call depend on each other; the message says how that showed."""


@dataclasses.dataclass
class _Pool:
    """Samples that the model answered alone, with these answers; the first are tame ones."""

    rows: list[Row]
    answers: list[Arrays]
    tame: int
    refusal: str = ""
    """What the model said last to a sample that it did not answer."""

    def batch(self, indices: Iterable[int]) -> Row:
        chosen = [self.rows[index] for index in indices]
        return {name: np.concatenate([row[name] for row in chosen]) for name in chosen[0]}


def prove(call: Call, signature: Signature, shapes: Shapes, seeds: Sequence[Row] = ()) -> RowProof:
    """Try whether samples of different requests may share calls.

    Args:
        call: The model.
        signature: What is asked.
        shapes: Shapes of a sample's arrays by input name, without the first dimension.
        seeds: Samples that it was asked before.

    Raises:
        ServingError: UNAVAILABLE, where the model is not served any more.
    """
    if signature.alone:
        return RowProof(reason=signature.alone)
    random, limit = np.random.default_rng(7), _TimeLimit()
    size = _bytes(signature, shapes)
    if size > _MOST_BYTES // max(_COMPANY_SIZES):
        return RowProof(reason=f"a sample of {size / 2**20:.0f} MiB is too large to try many")
    try:
        pool = _answered(call, signature, shapes, seeds, random, limit)
        if problem := _shows_nothing(pool):
            return RowProof(reason=problem, unanswered=True)
        _check_repeats(call, pool)
        for size in _COMPANY_SIZES:
            if size <= 3 or not limit.over():
                _check_company(call, pool, size, random, limit)
        return _sizes(call, pool, random, limit)
    except _Depends as found:
        return RowProof(reason=str(found))


def _answered(
    call: Call,
    signature: Signature,
    shapes: Shapes,
    seeds: Sequence[Row],
    random: np.random.Generator,
    limit: _TimeLimit,
) -> _Pool:
    pool = _Pool([], [], 0)
    most = max(_LEAST, min(_POOL, _MOST_BYTES // max(1, _bytes(signature, shapes))))
    with np.errstate(all="ignore"):
        for number, row in enumerate(itertools.islice(tame(signature, shapes, seeds, random), _CANDIDATES)):
            enough = len(pool.rows) >= _LEAST + len(seeds)
            refused = number - len(pool.rows)
            if len(pool.rows) >= most or (limit.over(1 / 3) if enough else refused > 2 * _LEAST and limit.over()):
                break
            _try(call, pool, row)
        pool.tame = len(pool.rows)
        if pool.rows and not signature.loops:
            for row in wild(pool.rows, random):
                _try(call, pool, row)
    return pool


def _try(call: Call, pool: _Pool, row: Row) -> None:
    try:
        answer = call(row)
    except ServingError as error:
        if error.code == Code.UNAVAILABLE:
            raise
        pool.refusal = error.message[:200]
        return
    for name, array in answer.items():
        if array.ndim == 0 or len(array) != 1:
            raise _Depends(f"output {name} has the shape {list(array.shape)} for one sample")
    pool.rows.append(row)
    pool.answers.append(answer)


def _shows_nothing(pool: _Pool) -> str:
    """Return why nothing can be seen by these samples; empty where something can."""
    if pool.tame < _LEAST:
        said = f"; it said: {pool.refusal}" if pool.refusal else ""
        return f"it answered {pool.tame} of the samples made up, and {_LEAST} are needed{said}"
    first = pool.answers[0]
    if all(_same(answer[name], first[name]) for answer in pool.answers[: pool.tame] for name in first):
        return f"it gave all {pool.tame} samples that were tried the same answer"
    return ""


def _check_repeats(call: Call, pool: _Pool) -> None:
    for row, answer in zip(pool.rows[:4], pool.answers, strict=False):
        again = call(row)
        if any(not _same(again[name], answer[name]) for name in answer):
            raise _Depends("it gives different answers to the same sample")


def _check_company(call: Call, pool: _Pool, size: int, random: np.random.Generator, limit: _TimeLimit) -> None:
    """Give a sample other company, at the same place of a call of the same size."""
    everybody = len(pool.rows)
    for draw in range(_DRAWS):
        if draw >= _LEAST_DRAWS and limit.over():
            return
        place, row = draw % size, int(random.integers(pool.tame))
        companies = [random.integers(pool.tame, size=size), random.integers(everybody, size=size)]
        companies.append(np.full(size, random.integers(everybody)))  # many of one kind
        before: Arrays | None = None
        for company in companies:
            company[place] = row
            outputs = _together(call, pool, company)
            mine = {name: array[place : place + 1] for name, array in outputs.items()}
            for name in mine:
                if before is not None and not _same(mine[name], before[name]):
                    raise _Depends(_difference(name, mine[name], before[name], "with other samples in the same call"))
            before = mine


def _together(call: Call, pool: _Pool, indices: Sequence[int] | np.ndarray) -> Arrays:
    size = len(indices)
    try:
        outputs = call(pool.batch(indices))
    except ServingError as error:
        if error.code == Code.UNAVAILABLE:
            raise
        raise _Depends(f"it refuses {size} samples together that it answers alone: {error.message[:200]}") from error
    for name, array in outputs.items():
        alone = pool.answers[indices[0]][name]
        if array.ndim == 0 or len(array) != size or array.shape[1:] != alone.shape[1:]:
            raise _Depends(
                f"output {name} has the shape {list(array.shape)} for {size} samples, and {list(alone.shape)} for one"
            )
    return outputs


def _sizes(call: Call, pool: _Pool, random: np.random.Generator, limit: _TimeLimit) -> RowProof:
    exact, rounded, reason = [], [], ""
    most = _MOST_BYTES // max(1, sum(array.nbytes for array in pool.rows[0].values()))
    for size in (size for size in SIZES if size <= most):
        if rounded and limit.over():
            reason = reason or f"it is slow, and calls of more than {rounded[-1]} samples were not tried"
            break
        differs = _try_size(call, pool, size, random, limit)
        rounded.append(size)
        if not differs:
            exact.append(size)
        reason = reason or differs
    return RowProof(tuple(exact), tuple(rounded), reason)


def _try_size(call: Call, pool: _Pool, size: int, random: np.random.Generator, limit: _TimeLimit) -> str:
    """Compare answers of a call with those of the samples alone; return a difference in the last bits, if any."""
    differs = ""
    for draw in range(_DRAWS):
        if draw >= _LEAST_DRAWS and limit.over():
            break
        # Wild samples are in every other draw; only tame ones are near what they are alone, where rounding differs.
        indices = random.integers(pool.tame if draw % 2 == 0 else len(pool.rows), size=size)
        outputs = _together(call, pool, indices)
        for name, array in outputs.items():
            alone = np.concatenate([pool.answers[index][name] for index in indices])
            if _same(array, alone):
                continue
            for place, index in enumerate(indices):
                if index < pool.tame and not _near(array[place], alone[place]):
                    raise _Depends(_difference(name, array[place], alone[place], f"as one of {size} samples of a call"))
            differs = differs or _difference(name, array, alone, f"in calls of {size} samples")
    return differs


def _bytes(signature: Signature, shapes: Shapes) -> int:
    """Return the bytes of a sample's numbers."""
    return sum(math.prod(shape) * signature.inputs[name].numpy_dtype.itemsize for name, shape in shapes.items())


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    """Compare bit for bit; not-a-number is like not-a-number, whatever its bits."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if one.dtype == object:
        return bool(np.array_equal(one, other))
    if one.tobytes() == other.tobytes():
        return True
    if one.dtype.kind in "iub":
        return False
    both_nan = np.isnan(one) & np.isnan(other)
    same_sign = one.dtype.kind == "c" or bool(np.all((np.signbit(one) == np.signbit(other)) | both_nan))
    return same_sign and bool(np.all((one == other) | both_nan))


def _near(one: np.ndarray, other: np.ndarray) -> bool:
    if one.dtype.kind in "iubO":
        return _same(one, other)
    one, other = (array.astype(np.complex128 if array.dtype.kind == "c" else np.float64) for array in (one, other))
    sizes = np.abs(other[np.isfinite(other)])
    scale = float(sizes.max(initial=0.0))
    return bool(np.allclose(one, other, rtol=_NEAR, atol=_NEAR * scale, equal_nan=True))


def _difference(name: str, one: np.ndarray, other: np.ndarray, when: str) -> str:
    if one.shape != other.shape or one.dtype.kind in "iubO":
        return f"its output {name} differs {when}"
    with np.errstate(all="ignore"):
        apart = np.abs(one.astype(np.complex128) - other.astype(np.complex128))
        apart = apart[np.isfinite(apart)]
    return f"its output {name} differs {when}, by up to {float(apart.max(initial=0.0)):.3g}"

"""Which replies of clients may be aggregated, and why the others may not."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord

from experiments_manager.federated.message_records import CLIENT, ERROR, EXAMPLES, PROC_ID

MOST_EXAMPLES = 1e12
"""More samples no client trains on in a round; sums of them are exact."""
TIMES_EARLIER, TIMES_OTHERS = 10, 10_000
"""How many times as many samples a client may tell as it told in any earlier round, and as the median of the others.
Whoever tells more would own the model, whose clients are weighted by what they tell; so would one that tells ten times
more in each round, were it compared with itself alone."""


@dataclasses.dataclass(frozen=True)
class LeftOut:
    """A reply that is not aggregated.

    Attributes:
        proc_id: The client's number; `None` where it is not known.
        node_id: Flower's number of the node that sent it.
        reason: What is wrong with it, in one sentence.
    """

    proc_id: int | None
    node_id: int
    reason: str

    @property
    def name(self) -> str:
        """How a message names the client."""
        return f"client {self.proc_id}" if self.proc_id is not None else f"the client at node {self.node_id}"


@dataclasses.dataclass(frozen=True)
class Bounds:
    """How many samples a client may tell.

    Attributes:
        most: What the settings allow (`max_examples`); `None`: what is plausible.
        earlier: The largest number that each client told in the rounds before, by clients' numbers.
    """

    most: int | None = None
    earlier: Mapping[int, float] = dataclasses.field(default_factory=dict)

    def why_too_many(self, proc_id: int, examples: float, others: Sequence[float]) -> str | None:
        """Return why a client cannot have so many samples, in words that follow what it told; `None` where it can."""
        if self.most is not None:
            return None if examples <= self.most else f"Expected at most {self.most} (federated['max_examples'])."
        if examples > MOST_EXAMPLES:
            return f"Expected at most {MOST_EXAMPLES:g}."
        limits = []
        if proc_id in self.earlier:
            limits.append((TIMES_EARLIER * self.earlier[proc_id], f"{TIMES_EARLIER} times what it told before"))
        if others:
            limits.append((TIMES_OTHERS * statistics.median(others), f"{TIMES_OTHERS} times the median of the others"))
        limit, of = min(limits, default=(math.inf, ""))
        hint = "Set federated['max_examples'] if that is right."
        return None if examples <= limit else f"Expected at most {limit:g}, {of}. {hint}"


class _Refused(Exception):
    """A reply that cannot be used; the message says why."""


def checked_replies(
    replies: Iterable[Message],
    sent: ArrayRecord | None = None,
    known: Mapping[int, int] | None = None,
    must_differ: bool = False,
    bounds: Bounds | None = None,
) -> tuple[list[Message], list[LeftOut]]:
    """Return replies that may be aggregated, by the clients' numbers, and what is wrong with the others.

    Never raises for what a client sent. Variables that a client names in another order are put into the order of those
    that were sent.

    Args:
        replies: What the grid received.
        sent: The variables that were sent for training; `None` for replies to an evaluation, which have none.
        known: The number of the client at each node, as far as it is known, for replies that do not tell theirs.
        must_differ: Whether variables just as they were sent are refused (`ServerStrategy.needs_changes`).
        bounds: How many samples clients may tell.
    """
    good: list[tuple[int, Message]] = []
    left_out: list[LeftOut] = []
    expected = None if sent is None else {name: array.numpy() for name, array in sent.items()}
    for reply in sorted(replies, key=lambda reply: reply.metadata.src_node_id):
        node_id = reply.metadata.src_node_id
        proc_id = (known or {}).get(node_id)
        try:
            told = _proc_id(reply)
            proc_id = told
            _check_work(reply)
            _check_metrics(reply)
            if expected is not None:
                _check_arrays(reply, expected, must_differ)
            if any(other == told for other, _ in good):
                raise _Refused(
                    f"Another client answered as number {told} already. Give each client a number of its own."
                )
            good.append((told, reply))
        except _Refused as refused:
            left_out.append(LeftOut(proc_id, node_id, str(refused)))
        except Exception as error:  # whatever a client sends must not stop the server
            left_out.append(LeftOut(proc_id, node_id, f"Its reply cannot be read: {error}"))
    good.sort(key=lambda pair: pair[0])
    good, refused = _of_plausible_samples(good, bounds or Bounds())
    return _of_same_metrics(good, left_out + refused)


def arrays_in(reply: Message) -> ArrayRecord:
    """Return the variables of a reply, which has one record of them."""
    return next(iter(reply.content.array_records.values()))


def metrics_in(reply: Message) -> MetricRecord:
    """Return the metrics of a reply, which has one record of them."""
    return next(iter(reply.content.metric_records.values()))


def examples_of(reply: Message) -> float:
    """Return the number of samples that a checked reply tells."""
    return float(metrics_in(reply)[EXAMPLES])


def _of_plausible_samples(
    good: list[tuple[int, Message]], bounds: Bounds
) -> tuple[list[tuple[int, Message]], list[LeftOut]]:
    kept, left_out = [], []
    told = [examples_of(reply) for _, reply in good]
    for place, (proc_id, reply) in enumerate(good):
        why = bounds.why_too_many(proc_id, told[place], told[:place] + told[place + 1 :])
        if why is None:
            kept.append((proc_id, reply))
        else:
            reason = f"It tells an implausible number of samples, {told[place]:g}. {why}"
            left_out.append(LeftOut(proc_id, reply.metadata.src_node_id, reason))
    return kept, left_out


def proc_id_of(reply: Message) -> int | None:
    """Return the number that a client tells in its reply; `None` where there is none."""
    try:
        return _proc_id(reply)
    except _Refused:
        return None


def _proc_id(reply: Message) -> int:
    if reply.has_error():
        raise _Refused(f"It reports an error (code {reply.error.code}): {reply.error.reason}")
    told = reply.content.config_records.get(CLIENT, {}).get(PROC_ID)
    if isinstance(told, bool) or not isinstance(told, int):
        raise _Refused(
            f"It does not tell its number. Expected an integer `proc-id` in the record `client`, got {told!r}."
        )
    return told


def _check_work(reply: Message) -> None:
    error = reply.content.config_records.get(CLIENT, {}).get(ERROR)
    if error is not None:
        raise _Refused(f"It reports an error: {error}")


def _check_metrics(reply: Message) -> None:
    records = reply.content.metric_records
    if len(records) != 1:
        raise _Refused(f"Expected one record of metrics, got {len(records)}.")
    metrics = metrics_in(reply)
    examples = metrics.get(EXAMPLES)
    if not _is_number(examples) or not math.isfinite(examples) or examples <= 0:
        raise _Refused(f"Its number of samples must be positive. Got {EXAMPLES} = {examples!r}.")
    if examples != int(examples):
        raise _Refused(f"Its number of samples must be whole. Got {EXAMPLES} = {examples!r}.")
    loss = metrics.get("loss", 0.0)
    if not _is_number(loss) or not math.isfinite(loss):
        raise _Refused(f"Its loss is {loss!r}. Expected a finite number.")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _check_arrays(reply: Message, expected: Mapping[str, np.ndarray], must_differ: bool) -> None:
    records = reply.content.array_records
    if len(records) != 1:
        raise _Refused(f"Expected one record of variables, got {len(records)}.")
    key, record = next(iter(records.items()))
    _check_names(record, expected)
    changed = False
    for name, array in expected.items():
        if tuple(record[name].shape) != array.shape:
            raise _Refused(_other_shape(name, tuple(record[name].shape), array.shape))
        value = record[name].numpy()
        if value.shape != array.shape:
            raise _Refused(_other_shape(name, value.shape, array.shape))
        if value.dtype != array.dtype:
            raise _Refused(f"Variable {name!r} has dtype {value.dtype}. Expected {array.dtype}, which was sent.")
        if value.dtype.kind in "fc" and not np.isfinite(value).all():
            bad = int(value.size - np.isfinite(value).sum())
            raise _Refused(f"Variable {name!r} holds NaN or Inf in {bad} of {value.size} elements.")
        changed = changed or (value.dtype.kind == "f" and not np.array_equal(value, array))
    if must_differ and not changed:
        raise _Refused("Its variables are just those that were sent, so there is no update to clip.")
    if list(record) != list(expected):
        reply.content[key] = ArrayRecord({name: record[name] for name in expected})


def _other_shape(name: str, got: tuple[int, ...], expected: tuple[int, ...]) -> str:
    return f"Variable {name!r} has shape {got}. Expected {expected}, which was sent: does its model differ?"


def _check_names(record: ArrayRecord, expected: Mapping[str, np.ndarray]) -> None:
    missing = [name for name in expected if name not in record]
    unknown = [name for name in record if name not in expected]
    if missing or unknown:
        parts = [f"lack {_some(missing)}"] * bool(missing) + [f"have {_some(unknown)} more"] * bool(unknown)
        shapes = ", ".join(f"{name!r} {tuple(record[name].shape)}" for name in unknown[:3])
        wanted = ", ".join(f"{name!r} {expected[name].shape}" for name in missing[:3])
        raise _Refused(
            f"Its variables {' and '.join(parts)}. Expected {wanted or 'none more'}, got {shapes or 'none of them'}: "
            "does its model differ?"
        )


def _some(names: list[str]) -> str:
    return ", ".join(repr(name) for name in names[:3]) + (f" and {len(names) - 3} others" if len(names) > 3 else "")


def _of_same_metrics(good: list[tuple[int, Message]], left_out: list[LeftOut]) -> tuple[list[Message], list[LeftOut]]:
    """Leave out whose metrics are not those of most others: Flower aggregates none where names differ."""
    forms = [_form(metrics_in(reply)) for _, reply in good]
    if not forms:
        return [], left_out
    usual = Counter(forms).most_common(1)[0][0]
    kept = []
    for (proc_id, reply), form in zip(good, forms, strict=True):
        if form == usual:
            kept.append(reply)
        else:
            names = [", ".join(name for name, _ in each) for each in (usual, form)]
            reason = f"Its metrics are not those of most clients. Expected {names[0]}, got {names[1]}."
            left_out.append(LeftOut(proc_id, reply.metadata.src_node_id, reason))
    return kept, left_out


def _form(metrics: MetricRecord) -> tuple[tuple[str, int], ...]:
    """Return names of metrics, and how many numbers each has (0 for a plain number)."""
    return tuple(sorted((name, len(value) if isinstance(value, list) else 0) for name, value in metrics.items()))


class ProcIds:
    """Learns clients' numbers from what they answer, so that one that fails or is silent can be named.

    Args:
        grid: One that knows the numbers by itself has `proc_id_of`.
    """

    def __init__(self, grid: Any) -> None:
        self._by_rule = getattr(grid, "proc_id_of", None)
        self.known: dict[int, int] = {}
        """The number of the client at each node, as far as it was told."""

    def learn(self, replies: Iterable[Message]) -> None:
        """Note what clients tell of themselves."""
        for reply in replies:
            told = proc_id_of(reply)
            if told is not None:
                self.known[reply.metadata.src_node_id] = told

    def of_node(self, node_id: int) -> int | None:
        """Return the number of the client at a node; `None` where it never told it."""
        return self._by_rule(node_id) if self._by_rule is not None else self.known.get(node_id)

    def named(self, left_out: Iterable[LeftOut]) -> list[LeftOut]:
        """Return who is left out, in order, each with its number if that is known."""
        named = [
            dataclasses.replace(entry, proc_id=self.of_node(entry.node_id)) if entry.proc_id is None else entry
            for entry in left_out
        ]
        return sorted(named, key=lambda entry: (entry.proc_id is None, entry.proc_id or 0, entry.node_id))

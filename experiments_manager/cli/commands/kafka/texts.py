"""What is found in a topic, as text."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any

from experiments_manager.common.display.quantities import format_bytes

if TYPE_CHECKING:
    from experiments_manager.kafka.inspection.topic_report import TopicReport

_FIRST_BYTES = 24
_LONGEST = 60


def facts(report: TopicReport) -> list[tuple[str, str]]:
    """Return what is known of a topic, as rows of name and text."""
    rows = [("topic", report.topic)]
    for structure in report.structures:
        rows.append(("structure", f"{structure.id:08x}: {structure}"))
    for number, (start, end) in report.bounds.items():
        rows.append((f"partition {number}", f"offsets {start:,} to {end:,}"))
    rows.append(("records", f"{report.records:,}"))
    if report.measured:
        each, total = format_bytes(report.mean_bytes), format_bytes(report.bytes)
        rows.append(
            ("size", f"{each} a record (mean of {report.measured:,}), about {total} in all, before compression")
        )
    if report.first_time is not None and report.last_time is not None:
        rate = "" if report.rate is None else f", {report.rate:,.4g} records/s"
        rows.append(("written", f"{_time(report.first_time)} to {_time(report.last_time)}{rate}"))
    if report.groups is None:
        rows.append(("readers", "the broker does not say"))
    for group in report.groups or []:
        rows.append(("reader", f"{group.name}: {group.lag:,} records behind"))
    if report.problem:
        rows.append(("note", report.problem))
    return rows


def cell(sample: Any) -> str:
    """Return a value of a sample in few characters."""
    import numpy as np

    if isinstance(sample, bytes):
        text = repr(sample.decode(errors="backslashreplace"))
    else:
        text = np.array2string(np.asarray(sample), threshold=8, edgeitems=2, precision=4, max_line_width=10_000)
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def raw(value: bytes) -> str:
    """Return the size and the first bytes of a record."""
    more = " …" if len(value) > _FIRST_BYTES else ""
    return f"{len(value):,} bytes: {value[:_FIRST_BYTES].hex(' ')}{more}"


def _time(milliseconds: int) -> str:
    return datetime.datetime.fromtimestamp(milliseconds / 1000).isoformat(" ", "milliseconds")

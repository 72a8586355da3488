"""`experiments_manager kafka inspect`."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from experiments_manager.cli import options
from experiments_manager.cli.commands.kafka.options import Servers, server_list
from experiments_manager.common.display.quantities import format_bytes

if TYPE_CHECKING:
    import numpy as np

    from experiments_manager.kafka.inspection.topic_report import TopicReport

DEFAULT_SERVER = "localhost:9092"
TEMPLATE = Path(__file__).with_name("topic.html")
_FIRST_BYTES = 24
_LONGEST = 60


def inspect(
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="The topic.")],
    servers: Servers = None,
    settings: Annotated[
        Path | None,
        typer.Option(metavar="SETTINGS", help="Take brokers and kafka_options from this settings module."),
    ] = None,
    samples: Annotated[int, typer.Option(min=0, metavar="N", help="Show so many of the first samples.")] = 5,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write it, with pictures, into one HTML page.")
    ] = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Show what a topic holds, who reads it, and its first samples.

    Brokers are those of --servers, else of the settings, else localhost:9092.
    """
    from experiments_manager.cli.commands.kafka.options import connection_of
    from experiments_manager.cli.results import ResultLine
    from experiments_manager.kafka.connection import BrokerConnection
    from experiments_manager.kafka.inspection.topic_report import inspect_topic

    output = ResultLine() if json else None
    if settings is not None:
        from experiments_manager import api

        connection = connection_of(api.load_settings(settings), servers)
    else:
        connection = BrokerConnection(server_list(servers) or [DEFAULT_SERVER])
    report = inspect_topic(connection, topic, samples)
    if html is not None:
        from experiments_manager.common.console import warn

        write_page(report, html)
        warn(f"Page {html}")
    if output:
        output.write(as_json(report))
    elif html is None:
        _print(report)


def as_json(report: TopicReport) -> dict[str, Any]:
    """Return a report as plain data."""
    structure = report.structures[-1] if report.structures else None
    return {
        "topic": report.topic,
        "structure": [{"name": leaf.name, "dtype": leaf.dtype, "shape": list(leaf.shape)} for leaf in structure.leaves]
        if structure
        else None,
        "structures": len(report.structures),
        "partitions": {str(number): list(bounds) for number, bounds in report.bounds.items()},
        "records": report.records,
        "bytes_per_record": report.mean_bytes,
        "bytes": report.bytes,
        "rate": report.rate,
        "groups": report.groups
        and [{"name": group.name, "committed": group.committed, "lag": group.lag} for group in report.groups],
        "samples": len(report.samples[0]) if report.samples else 0,
        "problem": report.problem,
    }


def _print(report: TopicReport) -> None:
    from rich.console import Console
    from rich.markup import escape

    from experiments_manager.cli.tables import new_table, print_table
    from experiments_manager.kafka.inspection.thumbnails import is_picture, thumbnails

    rows = facts(report)
    width = max(len(name) for name, _ in rows)
    for name, text in rows:
        typer.echo(f"{name:<{width}}  {text}")
    if not report.samples:
        for number, value in enumerate(report.values):
            typer.echo(f"record {number}: {raw(value)}")
        return
    leaves = report.structures[-1].leaves
    table = new_table("sample", *(leaf.name for leaf in leaves))
    for number in range(len(report.samples[0])):
        table.add_row(str(number), *(escape(cell(values[number])) for values in report.samples))
    typer.echo("")
    print_table(table)
    console = Console(highlight=False)
    for leaf, values in zip(leaves, report.samples, strict=True):
        pictures: list[np.ndarray] = [sample for sample in values if _is_array(sample) and is_picture(sample)]
        if pictures and console.is_terminal:
            typer.echo(f"\n{leaf.name}")
            console.print(thumbnails(pictures, console.width))


def _is_array(sample: Any) -> bool:
    return hasattr(sample, "ndim")


def write_page(report: TopicReport, file: Path) -> None:
    """Write a report as one HTML page that needs no other file, with pictures where samples are some.

    Raises:
        OSError: The file cannot be written.
    """
    from experiments_manager.common.atomic import write_text
    from experiments_manager.common.pages.rendering import render_page

    page = render_page(
        TEMPLATE,
        title=f"Topic {report.topic}",
        facts=facts(report)[1:],
        records=[raw(value) for value in report.values],
        names=[leaf.name for leaf in report.structures[-1].leaves] if report.samples else [],
        samples=[[_content(value) for value in sample] for sample in zip(*report.samples, strict=True)],
    )
    write_text(file, page)


def _content(value: Any) -> str | bytes:
    """Return a value in few characters, or as a PNG where it is a picture."""
    from experiments_manager.kafka.inspection.thumbnails import as_png, is_picture

    return as_png(value) if _is_array(value) and is_picture(value) else cell(value)


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

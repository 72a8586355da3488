"""`experiments_manager kafka inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from experiments_manager.cli import options
from experiments_manager.cli.commands.kafka.options import Servers, server_list
from experiments_manager.cli.commands.kafka.texts import cell, facts, raw

if TYPE_CHECKING:
    import numpy as np

    from experiments_manager.kafka.inspection.topic_report import TopicReport

DEFAULT_SERVER = "localhost:9092"


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
        from experiments_manager.cli.commands.kafka.inspect_page import write_page
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
    from experiments_manager.kafka.inspection.pictures import is_picture, thumbnails

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

"""A topic as one HTML page that needs no other file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from experiments_manager.cli.commands.kafka.texts import cell, facts, raw
from experiments_manager.common.atomic import write_text
from experiments_manager.common.pages.rendering import render_page
from experiments_manager.kafka.inspection.pictures import as_png, is_picture
from experiments_manager.kafka.inspection.topic_report import TopicReport

TEMPLATE = Path(__file__).with_name("topic.html")


def write_page(report: TopicReport, file: Path) -> None:
    """Write a report, with pictures where samples are some.

    Raises:
        OSError: The file cannot be written.
    """
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
    return as_png(value) if hasattr(value, "ndim") and is_picture(value) else cell(value)

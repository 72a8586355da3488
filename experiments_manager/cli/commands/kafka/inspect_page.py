"""A topic as one HTML page that needs no other file."""

from __future__ import annotations

import base64
import html
from pathlib import Path
from typing import Any

from experiments_manager.cli.commands.kafka.texts import cell, facts, raw
from experiments_manager.common.atomic import write_text
from experiments_manager.kafka.inspection.pictures import as_png, is_picture
from experiments_manager.kafka.inspection.topic_report import TopicReport

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem; color: #222; background: #fff }
table { border-collapse: collapse; margin-bottom: 2rem }
th, td { text-align: left; vertical-align: top; padding: .2rem 1rem .2rem 0; border-bottom: 1px solid #ddd }
img { image-rendering: pixelated; min-width: 6rem; max-width: 24rem }
code { font-size: 90% }
@media (prefers-color-scheme: dark) { body { color: #ddd; background: #181818 } th, td { border-color: #444 } }
"""


def write_page(report: TopicReport, file: Path) -> None:
    """Write a report, with pictures where samples are some.

    Raises:
        OSError: The file cannot be written.
    """
    rows = "".join(f"<tr><th>{html.escape(name)}</th><td>{html.escape(text)}</td></tr>" for name, text in facts(report))
    title = html.escape(f"Topic {report.topic}")
    write_text(
        file,
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
        f"</head><body><h1>{title}</h1><table>{rows}</table>{_samples(report)}</body></html>\n",
    )


def _samples(report: TopicReport) -> str:
    if not report.samples:
        rows = "".join(f"<tr><td><code>{html.escape(raw(value))}</code></td></tr>" for value in report.values)
        return f"<h2>First records</h2><table>{rows}</table>"
    leaves = report.structures[-1].leaves
    head = "".join(f"<th>{html.escape(leaf.name)}</th>" for leaf in leaves)
    rows = "".join(
        f"<tr><td>{number}</td>{''.join(_cell(values[number]) for values in report.samples)}</tr>"
        for number in range(len(report.samples[0]))
    )
    return f"<h2>First samples</h2><table><tr><th>sample</th>{head}</tr>{rows}</table>"


def _cell(sample: Any) -> str:
    if hasattr(sample, "ndim") and is_picture(sample):
        return f'<td><img alt="picture" src="data:image/png;base64,{base64.b64encode(as_png(sample)).decode()}"></td>'
    return f"<td><code>{html.escape(cell(sample))}</code></td>"

"""A page from a template and its values.

A template `{% extends "layout.html" %}`, and gives the blocks `content` and `scripts`. Its values hold a `title`, and a
`place` where the page is about a folder or a file.
"""

from __future__ import annotations

import base64
import datetime
import json
import math
import shlex
from pathlib import Path
from typing import Any

from experiments_manager.common.display.quantities import format_duration
from experiments_manager.common.version import __version__

LAYOUT = Path(__file__).parent
LONGEST = 40
"""Characters of a value in a narrow cell."""


def render_page(template: Path, **values: Any) -> str:
    """Make a page as HTML.

    Args:
        template: Its file; others of its folder can be included by their names.
        **values: What the template names. Texts are escaped, unless they are `Markup`.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([template.parent, LAYOUT]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        shown=shown, short=short, duration=duration, picture=picture_address, shell=shlex.join, script=as_script
    )
    made = datetime.datetime.now().astimezone().isoformat(sep=" ", timespec="minutes")
    return environment.get_template(template.name).render(version=__version__, made=made, **values)


def shown(value: Any) -> str:
    """Write a value for a reader: numbers with six significant digits, and a dash where there is none."""
    if value is None:
        return "—"
    if isinstance(value, float):
        return f"{value:.6g}"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (list, dict)) else str(value)


def short(value: Any) -> str:
    """Write a value for a narrow cell: numbers with four significant digits."""
    if value is None or isinstance(value, float) and math.isnan(value):
        return "—"
    text = f"{value:.4g}" if isinstance(value, float) else shown(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def duration(seconds: float | None) -> str:
    """Write a duration as text, for templates."""
    return "—" if seconds is None else format_duration(seconds)


def picture_address(png: Path | bytes) -> str:
    """Put a PNG into an address; empty where its file cannot be read."""
    try:
        content = png if isinstance(png, bytes) else png.read_bytes()
    except OSError:
        return ""
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


def as_script(value: Any) -> str:
    """Return plain data as JSON that may stand inside of a script element."""
    from markupsafe import Markup

    return Markup(json.dumps(value).replace("<", "\\u003c"))  # noqa: S704  nothing in it ends the element

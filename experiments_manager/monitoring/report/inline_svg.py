"""Figures inside of the page."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from experiments_manager.monitoring.plots import canvas

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.figure import Figure


def inline_svg(figure: Figure, title: str) -> Markup:
    """Make an SVG that takes the colours and the font of the page around it."""
    from markupsafe import Markup, escape

    svg = canvas.encode(figure, ".svg", transparent=True).decode()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'<g id="(run-\w+)">', r'<g class="curve \1">', svg)
    svg = re.sub(r'<g id="[\w.]+_\d+">', "<g>", svg)  # such ids stand in every SVG, and nothing refers to them
    svg = re.sub(r' width="[\d.]+pt" height="[\d.]+pt"', "", svg, count=1)
    svg = svg.replace(canvas.INK, "currentColor")
    head, rest = svg.split(">", 1)
    return Markup(f'{head} role="img" aria-label="{escape(title)}">{rest}')  # noqa: S704  our own SVG

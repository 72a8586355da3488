"""The sheet that figures are drawn on: house style, panels placed in inches, and encoding as PNG, SVG or PDF.

Panels are placed by hand, because matplotlib's layout engines draw every figure twice or more to find out the same.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

INK = "#23272f"
"""Colour of text and axes; the report puts its own text colour in its place."""
FAINT = "#8a919e"
PALETTE = (
    "#2f6fbf",
    "#d9772b",
    "#2e9e6b",
    "#c2454f",
    "#7d5fb2",
    "#1a9db0",
    "#d167a4",
    "#8a6a4f",
    "#a0951c",
    "#5f6ee0",
)
RIGHT, WRONG = "#23804f", "#b8323d"
DPI = 110
FORMATS = (".png", ".svg", ".pdf")
"""Endings of the files that figures can be written to."""

_STYLE = {
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titley": 1.0,  # a title that looks for its place costs a third of the drawing
    "axes.edgecolor": FAINT,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.grid": False,
    "grid.color": FAINT,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "text.usetex": False,
    "text.parse_math": False,  # a class called "a$b$c" is a name
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "image.interpolation": "nearest",
    "svg.fonttype": "none",  # text stays text: it can be searched, copied and restyled
    "svg.hashsalt": "experiments_manager",  # the same figure is the same bytes
    "path.simplify": True,
    "agg.path.chunksize": 0,
}


@contextlib.contextmanager
def figure_style() -> Iterator[None]:
    """Put our style in force while a figure is drawn or encoded; matplotlib's settings are as before afterwards."""
    import matplotlib

    with matplotlib.rc_context(_STYLE):
        yield


def new_figure(width: float, height: float) -> Figure:
    """Make an empty figure.

    Args:
        width: In inches.
        height: In inches.
    """
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), facecolor="white")


def place(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Add axes at a place given in inches from the lower left corner of the figure."""
    across, up = figure.get_size_inches()
    return figure.add_axes((left / across, bottom / up, width / across, height / up))


def encode(figure: Figure, ending: str, *, dpi: int = DPI, transparent: bool = False) -> bytes:
    """Encode a figure; the same figure gives the same bytes.

    Args:
        figure: What was drawn.
        ending: `.png`, `.svg` or `.pdf`.
        dpi: Dots per inch of a PNG, and of the images inside of an SVG or PDF.
        transparent: Whether to leave the background away.

    Raises:
        ValueError: The ending is none of these.
    """
    if ending not in FORMATS:
        raise ValueError(f"Expected one of {', '.join(FORMATS)}, got {ending!r}.")
    undated = {".png": {"Software": None}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}[ending]
    content = io.BytesIO()
    with figure_style(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # a name in a script that the font lacks
        figure.savefig(content, format=ending[1:], dpi=dpi, transparent=transparent, metadata=undated)
    return content.getvalue()


def make_logarithmic(axis: Axis, low: float, high: float) -> None:
    """Give an axis a logarithmic scale with some labels, also within a decade or two.

    Labels are plain numbers: the style does not read mathematical text.

    Args:
        axis: Of x or of y.
        low: The least value that is drawn, above 0.
        high: The largest one.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    few_decades = high < 1000 * low
    beside = (1, 2, 5) if axis.axis_name == "y" else (1, 3)  # labels above each other need less space
    axis.set_major_locator(LogLocator(subs=beside if few_decades else (1,), numticks=12 if few_decades else 6))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def shortened(text: str, characters: int = 24) -> str:
    """Cut a name that is too long for its place; what of a file's name is no text is written in numbers."""
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= characters else f"{text[: characters - 1]}…"


def colour(number: int) -> str:
    """Give the colour of the number-th thing."""
    return PALETTE[number % len(PALETTE)]


def text_width(texts: Sequence[str], size: float) -> float:
    """Estimate the width of the longest of some texts in inches, at a font size in points."""
    return max(map(len, texts), default=0) * size * 0.6 / 72

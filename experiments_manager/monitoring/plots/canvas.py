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


import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
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


ACROSS = 5


def grid(
    chosen: np.ndarray,
    draw: Callable[[Axes, int], None],
    cell: tuple[float, float],
    *,
    across: int = ACROSS,
    gap: float = 0.25,
    title: str = "",
    legend: bool = False,
) -> Figure:
    """Draw small axes in rows, one for each of the chosen samples.

    Args:
        chosen: Numbers of the samples.
        draw: Fills the axes for a sample.
        cell: Width and height of the axes in inches.
        across: Axes in a row.
        gap: Inches between them.
        title: Stands above all.
        legend: Whether to explain the lines of truth and prediction.
    """
    across = min(across, len(chosen))
    down = math.ceil(len(chosen) / across)
    width, height = cell
    left, above, top, bottom = 0.5 if legend else gap, 0.38, 0.24 if title else 0.0, 0.55 if legend else 0.15
    figure = new_figure(max(left + across * (width + gap), 3.0), top + down * (height + above) + bottom)
    total = figure.get_size_inches()[1]
    for number, sample in enumerate(chosen):
        row, column = divmod(number, across)
        axes = place(figure, left + column * (width + gap), total - top - (row + 1) * (height + above), width, height)
        draw(axes, int(sample))
    if title:
        figure.text(left / figure.get_size_inches()[0], 1 - 0.06 / total, title, fontweight="bold", va="top")
    if legend:
        truth_legend(figure)
    return figure


def truth_legend(figure: Figure) -> None:
    """Explain the lines of truth and prediction at the foot of a figure."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=colour(0), label="truth"),
        Line2D([], [], color=colour(1), linestyle="--", label="prediction"),
    ]
    figure.legend(handles=handles, loc="lower left", bbox_to_anchor=(0.06, 0.0), ncols=2)


def table(columns: Sequence[tuple[str, np.ndarray]], rows: int, *, legend: bool = False) -> Figure:
    """Draw pictures in rows, one row a sample, one column a meaning.

    Args:
        columns: Title and pictures, bytes [n, height, width, 3], of each column.
        rows: Samples that are shown.
        legend: Whether to leave room for a legend at the foot.
    """
    side = fitted(columns[-1][1], 1.5)
    gap, top, bottom = 0.08, 0.3, 0.5 if legend else 0.1
    figure = new_figure(
        max(0.1 + len(columns) * (side[0] + gap), 4.2 if legend else 2.5), top + rows * (side[1] + gap) + bottom
    )
    total = figure.get_size_inches()[1]
    for column, (title, pictures) in enumerate(columns):
        for row in range(rows):
            spot = (0.1 + column * (side[0] + gap), total - top - (row + 1) * (side[1] + gap) + gap, *side)
            axes = place(figure, *spot)
            show(axes, pictures[row])
            if row == 0:
                axes.set_title(title)
    return figure


def fitted(pictures: np.ndarray, most: float) -> tuple[float, float]:
    """Give width and height in inches for pictures [n, height, width, …], so that neither is more than `most`."""
    height, width = pictures.shape[1:3]
    return most * width / max(height, width), most * height / max(height, width)


def show(axes: Axes, picture: np.ndarray) -> None:
    """Fill axes with a picture, bytes [height, width, 3]."""
    axes.imshow(picture)
    axes.set_axis_off()


def message(text: str) -> Figure:
    """Make a figure that says why there is none."""
    figure = new_figure(4.0, 1.0)
    figure.text(0.05, 0.5, text)
    return figure

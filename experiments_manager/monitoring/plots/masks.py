"""Classes of pixels as colours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from experiments_manager.monitoring.plots import canvas

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def coloured(masks: np.ndarray, classes: int) -> np.ndarray:
    """Give each class a colour; class 0 is dark where there are more than two, and what does not count is grey.

    Args:
        masks: Integers [n, height, width].
        classes: Number of classes; beyond the length of the palette, colours follow a scale.

    Returns:
        Bytes [n, height, width, 3].
    """
    colours = class_colours(classes)
    unknown = (masks < 0) | (masks >= classes)
    picture = colours[np.where(unknown, 0, masks)]
    picture[unknown] = 128
    return picture


def class_colours(classes: int) -> np.ndarray:
    """Give the colour of each class, bytes [classes, 3]; two classes are black and white."""
    from matplotlib import colormaps
    from matplotlib.colors import to_rgb

    if classes == 2:
        return np.array([[20, 22, 28], [245, 245, 245]], np.uint8)
    if classes > len(canvas.PALETTE) + 1:
        return (255 * colormaps["nipy_spectral"](np.linspace(0, 1, classes))[:, :3]).astype(np.uint8)
    chosen = [(0.08, 0.09, 0.11), *map(to_rgb, canvas.PALETTE)][:classes]
    return (255 * np.array(chosen)).astype(np.uint8)


def class_legend(figure: Figure, names: Sequence[str]) -> None:
    """Explain the colours of the classes at the foot of a figure."""
    from matplotlib.patches import Patch

    colours = class_colours(len(names)) / 255
    handles = [
        Patch(facecolor=colour, edgecolor=canvas.FAINT, linewidth=0.5, label=canvas.shortened(name, 18))
        for colour, name in zip(colours, names, strict=True)
    ]
    figure.legend(handles=handles, loc="lower left", ncols=4, handlelength=1.0, fontsize=7.5, columnspacing=1.0)

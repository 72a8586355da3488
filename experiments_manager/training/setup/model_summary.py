"""What the model looks like, for people: `model.txt`, and `model.png` where Graphviz is installed."""

from __future__ import annotations

import importlib.util
import logging
import shutil
from pathlib import Path

import keras

from experiments_manager.common import atomic

logger = logging.getLogger(__name__)


def describe_model(model: keras.Model, folder: Path) -> None:
    """Write `model.txt` and, with pydot and Graphviz, `model.png`; a model that cannot be drawn is no error.

    Args:
        model: Built model.
        folder: The run folder.
    """
    lines: list[str] = []
    try:
        model.summary(line_length=120, print_fn=lambda text, **_: lines.append(text), expand_nested=True)
        atomic.write_text(folder / "model.txt", "\n".join(lines) + "\n")
        if importlib.util.find_spec("pydot") and shutil.which("dot"):
            keras.utils.plot_model(model, str(folder / "model.png"), show_shapes=True, expand_nested=True)
    except Exception as error:  # Keras cannot sum up or draw every model, and a full disk must not end a run
        logger.warning("The model could not be described in %s: %s", folder, error)

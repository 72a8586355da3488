"""Explaining what the best weights of a run say of some samples, into the run's folder."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments_manager.attribution.asking import Wishes, ask
from experiments_manager.attribution.errors import ExplainError
from experiments_manager.attribution.explanation import Explanation, MethodOptions, explain
from experiments_manager.attribution.run_samples import draw_samples
from experiments_manager.common.atomic import write_bytes, write_json
from experiments_manager.common.jsonable import to_jsonable
from experiments_manager.export.servable import input_names_of
from experiments_manager.monitoring.plots.figures import FOLDER as FIGURES
from experiments_manager.runs import Run
from experiments_manager.training.engine.evaluation import best_experiment, split_feed

logger = logging.getLogger(__name__)

FOLDER = "explanations"
"""Where the numbers and maps are, in the run folder."""


@dataclasses.dataclass(frozen=True)
class RunExplanation:
    """An explanation and its files."""

    explanation: Explanation
    split: str
    epoch: int
    """The epoch whose weights these are, counted from 1."""
    figures: list[Path]
    """PNG files, which the report shows."""
    numbers: Path
    """What each method is worth, as JSON."""
    maps: Path
    """All maps and what they are of, as an archive of NumPy."""


def explain_run(
    run: Run,
    *,
    samples: int = 8,
    split: str = "validation",
    methods: Sequence[str] | None = None,
    wishes: Wishes | None = None,
    options: MethodOptions | None = None,
    tell: Callable[[str], None] = logger.info,
) -> RunExplanation:
    """Explain some samples of a split, and write figures, maps and numbers into the run folder.

    Args:
        run: A run with at least one checkpoint.
        samples: How many samples are explained.
        split: `train`, `validation` or `test`.
        methods: As for `explain`.
        wishes: Which input, head and class.
        options: How the methods work.
        tell: Called with what is being done.

    Raises:
        ExplainError: The model, data and methods do not go together, or files cannot be written.
        TrainingError: The run has no checkpoint, or there is no data for the split.
        UserCodeError: A hook raised.
    """
    options = options or MethodOptions()
    with best_experiment(run) as (experiment, epoch):
        settings = experiment.settings
        with contextlib.closing(split_feed(settings, split, run)) as feed:
            drawn = draw_samples(experiment, feed, samples, options.seed)
        names = input_names_of(experiment.model, drawn.x, settings.input_names)
        asked = ask(experiment.model, drawn, names, settings.class_names, wishes or Wishes())
        explanation = explain(asked, methods, options, tell)
    return _written(run.path, explanation, split, epoch)


def numbers_of(explanation: Explanation) -> dict[str, Any]:
    """Return what each method is worth, for programs."""
    asked = explanation.asked
    return {
        "input": asked.input_name,
        "head": asked.head_name,
        "samples": len(asked.question),
        "random_order": _areas(explanation.random),
        "methods": {
            name: _areas(result.curves) | {"random_weights_correlation": result.sanity}
            for name, result in explanation.methods.items()
        },
        "skipped": explanation.skipped,
    }


def _areas(curves: Any) -> dict[str, float]:
    return {"insertion": curves.insertion_area, "deletion": curves.deletion_area, "worth": curves.worth}


def _written(run_dir: Path, explanation: Explanation, split: str, epoch: int) -> RunExplanation:
    from experiments_manager.attribution.figures import curve_figure, map_figure
    from experiments_manager.monitoring.plots.canvas import encode

    asked = explanation.asked
    question = asked.question
    archive = io.BytesIO()
    arrays = {"input": question.values, "class": question.classes, "truth": asked.truth, "baseline": question.baseline}
    arrays |= {name.replace("-", "_"): result.maps for name, result in explanation.methods.items()}
    np.savez_compressed(archive, **arrays)
    folder, figures = run_dir / FOLDER, []
    numbers = {"split": split, "epoch": epoch, **numbers_of(explanation)}
    drawn = {"explanations": map_figure(explanation), "explanations_worth": curve_figure(explanation)}
    try:
        for place in (folder, run_dir / FIGURES):
            place.mkdir(exist_ok=True)
        write_bytes(folder / "maps.npz", archive.getvalue())
        write_json(folder / "numbers.json", to_jsonable(numbers))
        for name, figure in drawn.items():
            for ending in (".svg", ".png"):
                write_bytes(run_dir / FIGURES / f"{name}{ending}", encode(figure, ending))
            figures.append(run_dir / FIGURES / f"{name}.png")
    except OSError as error:
        raise ExplainError(
            f"The explanations cannot be written to {run_dir}: {error.strerror}. Make room, or allow to write there."
        ) from error
    return RunExplanation(explanation, split, epoch, figures, folder / "numbers.json", folder / "maps.npz")

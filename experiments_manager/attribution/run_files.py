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
import tensorflow as tf

from experiments_manager.attribution.errors import ExplainError
from experiments_manager.attribution.explanation import Explanation, MethodOptions, explain
from experiments_manager.attribution.targets import TargetOptions, choose_target
from experiments_manager.common.atomic import write_bytes, write_json
from experiments_manager.common.jsonable import to_jsonable
from experiments_manager.events import Samples
from experiments_manager.export.servable import input_names_of, output_names_of
from experiments_manager.monitoring.plots.run_figures import FOLDER as FIGURES
from experiments_manager.runs import Run
from experiments_manager.training.engine.evaluation import best_experiment, split_feed
from experiments_manager.training.feeds.feed import Feed, x_and_y
from experiments_manager.training.setup.experiment import Experiment

_POOL = 8
"""The samples are drawn from the first of the split, about so many times as many as are wanted."""
_LARGEST = 256 * 2**20
"""Bytes from which on no more are read than are wanted."""


def draw_samples(experiment: Experiment, feed: Feed, count: int, seed: int) -> Samples:
    """Draw samples without replacement, the same ones for the same seed, in the order of the split.

    Args:
        experiment: Holds the model, whose weights are in place.
        feed: The split.
        count: How many; all there are, where these are fewer.
        seed: Of the draw.

    Raises:
        ExplainError: The data cannot be read again, is no dense tensors, or the samples differ in shape.
    """
    if feed.kind == "irreproducible" or feed.never_ends:
        raise ExplainError(f"The {feed.split} split is a stream without an end. Name another split by --split.")
    if not all(type(part) is tf.TensorSpec for part in tf.nest.flatten(feed.spec)):
        raise ExplainError("Ragged and sparse inputs cannot be explained. Expected dense tensors.")
    batches, found = [], 0
    dataset = feed.as_dataset()
    for batch in dataset if feed.steps is None else dataset.take(feed.steps):
        batches.append(tf.nest.map_structure(np.asarray, x_and_y(batch)))
        found += len(tf.nest.flatten(batches[-1][0])[0])
        size = sum(part.nbytes for batch in batches for part in tf.nest.flatten(batch))
        if found >= (_POOL * count if size < _LARGEST else count):
            break
    if not found:
        raise ExplainError(f"The {feed.split} split is empty. Name another split by --split.")
    chosen = np.sort(np.random.default_rng(seed).permutation(found)[:count])
    try:
        x, y = tf.nest.map_structure(lambda *parts: np.concatenate(parts)[chosen], *batches)
    except ValueError as error:
        raise ExplainError(
            f"Samples of the {feed.split} split differ in shape, so that they cannot be compared: {error}. "
            "Expected one shape; pad or crop them in `dataset`."
        ) from error
    return Samples(feed.split, x, y, _outputs(experiment, x), {})


def _outputs(experiment: Experiment, x: Any) -> dict[str, np.ndarray]:
    model, size = experiment.model, experiment.settings.batch_size
    spec = tf.nest.map_structure(lambda array: tf.TensorSpec([None, *array.shape[1:]], array.dtype), x)
    traced = tf.function(lambda x: model(x, training=False), input_signature=[spec], autograph=False)
    predict = traced.get_concrete_function()

    def batch(start: int) -> Any:
        return predict(tf.nest.map_structure(lambda array: tf.convert_to_tensor(array[start : start + size]), x))

    parts = [batch(start) for start in range(0, len(tf.nest.flatten(x)[0]), size)]
    flat = [np.concatenate(head) for head in zip(*map(tf.nest.flatten, parts), strict=True)]
    wanted, own = experiment.settings.output_names, output_names_of(model, parts[0])
    names = wanted if wanted and not isinstance(parts[0], dict) else own
    names = names if len(names) == len(flat) else [f"output_{number}" for number in range(len(flat))]
    return dict(zip(names, flat, strict=True))


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
    target_options: TargetOptions | None = None,
    options: MethodOptions | None = None,
    tell: Callable[[str], None] = logger.info,
) -> RunExplanation:
    """Explain some samples of a split, and write figures, maps and numbers into the run folder.

    Args:
        run: A run with at least one checkpoint.
        samples: How many samples are explained.
        split: `train`, `validation` or `test`.
        methods: As for `explain`.
        target_options: Which input, head and class.
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
        target = choose_target(experiment.model, drawn, names, settings.class_names, target_options or TargetOptions())
        explanation = explain(target, methods, options, tell)
    return _written(run.path, explanation, split, epoch)


def numbers_of(explanation: Explanation) -> dict[str, Any]:
    """Return what each method is worth, for programs."""
    target = explanation.target
    return {
        "input": target.input_name,
        "head": target.head_name,
        "samples": len(target.question),
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

    target = explanation.target
    question = target.question
    archive = io.BytesIO()
    arrays = {"input": question.values, "class": question.classes, "truth": target.truth, "baseline": question.baseline}
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

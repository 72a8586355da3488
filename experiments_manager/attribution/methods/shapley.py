"""Shapley values by the package shap (Lundberg and Lee 2017), of the features of a table or the cells of a grid."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from experiments_manager.attribution.errors import ExplainError
from experiments_manager.attribution.scored_output import Explainer, Question, ScoredOutput
from experiments_manager.common.installation import install_command

_ALONG = {1: 16, 2: 6, 3: 4}
"""Cells along each axis, by the number of axes: each sample is evaluated about twice as often as it has cells."""
_PERMUTATIONS = 4


def shapley(output: ScoredOutput, question: Question, *, seed: int = 0) -> Explainer:
    """Share the difference of the scores of input and baseline among the cells, by random permutations.

    Args:
        output: The model.
        question: What the inputs look like.
        seed: Of the permutations.

    Returns:
        The method, compiled; like those of integrated gradients, each map adds up to the difference of the scores.

    Raises:
        ExplainError: The package shap is missing.
    """
    shap = _shap()
    cells = cells_of(output, question.values)
    count = int(cells.max()) + 1
    sizes = np.bincount(cells.ravel())

    def scores(values: Any, others: Any, classes: Any, regions: Any, baseline: Any, kept: Any) -> Any:
        shown = output.with_channel(tf.gather(kept, tf.constant(cells), axis=1))
        return output.score(tf.where(shown, values, baseline), others, classes, regions)

    compiled = output.compiled(scores, question, tf.TensorSpec([None, count], tf.bool))

    def explain(question: Question) -> np.ndarray:
        values = []
        for number in range(len(question)):
            sample = question.part(slice(number, number + 1))

            def evaluate(kept: np.ndarray, sample: Question = sample) -> np.ndarray:
                found = []
                for start in range(0, len(kept), output.batch):
                    some = kept[start : start + output.batch].astype(bool)
                    found.append(output.in_batches(compiled, _repeated(sample, len(some)), some))
                return np.concatenate(found)

            explainer = shap.PermutationExplainer(evaluate, np.zeros((1, count)), seed=seed)
            found = explainer(np.ones((1, count)), max_evals=_PERMUTATIONS * (2 * count + 1), silent=True)
            values.append(found.values.reshape(-1) / sizes)
        return np.stack(values).astype(np.float32)[:, cells]

    return explain


def cells_of(output: ScoredOutput, values: np.ndarray) -> np.ndarray:
    """Number the cells of a grid, int [positions]; in a table each feature is one, as far as there are 64 at most."""
    positions = output.positions(values)
    along = _ALONG.get(len(positions), 2) if output.has_channels else 64
    cells = np.zeros(positions, np.int32)
    for axis, side in enumerate(positions):
        parts = min(side, along)
        number = np.arange(side) * parts // side
        cells = cells * parts + number.reshape(-1, *[1] * (len(positions) - axis - 1))
    return cells.astype(np.int32)


def _repeated(sample: Question, times: int) -> Question:
    """Return one sample several times."""

    def repeat(array: np.ndarray) -> np.ndarray:
        return np.broadcast_to(array, (times, *array.shape[1:]))

    others = [repeat(other) for other in sample.others]
    regions, baseline = repeat(sample.regions), repeat(sample.baseline)
    return Question(repeat(sample.values), others, repeat(sample.classes), regions, baseline)


def _shap() -> Any:
    try:
        import shap
    except ImportError as error:
        raise ExplainError(
            f"Shapley values are computed by the package shap, which is missing. Run: {install_command('xai')}"
        ) from error
    return shap

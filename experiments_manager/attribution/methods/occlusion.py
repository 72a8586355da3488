"""Occlusion (Zeiler and Fergus 2014), for inputs of any number of axes."""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf

from experiments_manager.attribution.scored_output import Explainer, Question, ScoredOutput

_ALONG = {1: 16, 2: 8, 3: 4}
"""Windows beside each other along each axis, by the number of axes, so that some hundred cover an input."""


def occlusion(output: ScoredOutput, question: Question, *, window: int | None = None) -> Explainer:
    """Put the baseline into one window after the other, and see how far the score falls.

    Args:
        output: The model.
        question: What the inputs look like.
        window: Side of the window, which moves by half of that; by default one that a sample needs some hundred of.
            Without channels, as in tables, it is 1.

    Returns:
        The method, compiled; its maps hold at each position the mean over the windows that hid it.
    """
    positions = output.positions(question.values)
    wanted = window if output.has_channels else window or 1
    windows = [_window(side, len(positions), wanted) for side in positions]
    starts = [_starts(side, width) for side, width in zip(positions, windows, strict=True)]
    counts = [len(found) for found in starts]
    total = math.prod(counts)

    def attribute(values: Any, others: Any, classes: Any, regions: Any, baseline: Any) -> Any:
        whole = output.score(values, others, classes, regions)

        def step(number: tf.Tensor, falls: tf.Tensor, times: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            hidden = tf.ones([1] * (len(positions) + 1), tf.bool)
            for axis, place in enumerate(tf.unstack(tf.unravel_index(number, counts), num=len(counts))):
                start = tf.gather(tf.constant(starts[axis]), place)
                along = tf.range(positions[axis])
                inside = (along >= start) & (along < start + windows[axis])
                hidden &= tf.reshape(inside, [1, *[1] * axis, -1, *[1] * (len(positions) - axis - 1)])
            without = tf.where(output.with_channel(hidden), baseline, values)
            fall = whole - output.score(without, others, classes, regions)
            mask = tf.cast(hidden, tf.float32)
            return number + 1, falls + tf.reshape(fall, [-1, *[1] * len(positions)]) * mask, times + mask

        began = tf.zeros([tf.shape(values)[0], *positions]), tf.zeros([1, *positions])
        _, falls, times = tf.while_loop(lambda number, *_: number < total, step, (0, *began), parallel_iterations=1)
        return falls / times

    compiled = output.compiled(attribute, question)
    return lambda question: output.in_batches(compiled, question)


def _window(side: int, axes: int, wanted: int | None) -> int:
    if wanted is not None:
        return min(wanted, side)
    return min(side, max(2 if side >= 4 else 1, math.ceil(side / _ALONG.get(axes, 2))))


def _starts(side: int, width: int) -> list[int]:
    """Return where windows begin, so that each position is in one, and the last ends with the input."""
    starts = list(range(0, side - width + 1, max(1, width // 2)))
    return starts if starts[-1] == side - width else [*starts, side - width]

"""The norm of the gradient that an optimiser is about to apply, seen at the one place that every step passes."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf

from experiments_manager.compat.keras import gradients_seen
from experiments_manager.training.state.reachable import innermost, optimizers_of
from experiments_manager.training.state.shares import is_of_hosts

_NONE = -1.0
"""What is in the place of the sum of squares before an update."""


class GradientNorm:
    """The Euclidean norm over all gradients of a step, before clipping.

    They are seen when an update is due and they are as the user means them: divided by the loss scale, averaged over
    the accumulated steps, and not at all where they overflow and the step is left out. This may happen within a
    `tf.cond` or a `tf.function` of a user's `train_step`, out of which no tensor comes; so the sum of squares goes
    through a variable. It is no state: each step sets it again.

    Reading all gradients costs some hundredths of a step, so only every few updates are measured. With several
    optimizers all are, since each counts its own updates; and on several devices, since devices cannot speak to each
    other within a condition.

    Args:
        model: Its optimizer, and any others that are attributes of it, are watched.
        every: Updates from one that is measured to the next.
        jit_compile: Whether XLA compiles the step, which cannot sum up the rows of a sparse gradient.
    """

    def __init__(self, model: keras.Model, *, every: int = 1, jit_compile: bool = False) -> None:
        self._model, self._every, self.jit_compile = model, every, jit_compile
        self._squares = tf.Variable(
            _NONE,
            trainable=False,
            name="gradient_squares",
            synchronization=tf.VariableSynchronization.ON_READ,
            aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,  # they are all the same
        )

    @contextlib.contextmanager
    def recorded(self) -> Iterator[None]:
        """While a step is traced: lets the graph note the gradients that are applied in it."""
        self._squares.assign(_NONE)
        optimizers = [inner for optimizer in optimizers_of(self._model).values() for inner in innermost(optimizer)]
        every = self._every if len(optimizers) == 1 else 1
        with contextlib.ExitStack() as stack:
            for optimizer in optimizers:
                stack.enter_context(gradients_seen(optimizer, functools.partial(self._note, optimizer, every)))
            yield

    @property
    def variable(self) -> tf.Variable:
        """What the step writes to; no state."""
        return self._squares

    def read(self) -> tf.Tensor:
        """In the graph, after the step: the norm, float32 scalar; NaN where nothing was applied."""
        return tf.sqrt(self._squares)

    def _note(self, optimizer: keras.optimizers.Optimizer, every: int, gradients: Sequence[Any]) -> None:
        present = [gradient for gradient in gradients if gradient is not None]
        is_due = tf.equal(tf.convert_to_tensor(optimizer.iterations) % every, 0)
        if every == 1:
            self._squares.assign(self._with(present))
        elif _replicas() > 1:
            self._squares.assign(tf.where(is_due, self._with(present), self._squares))
        else:
            tf.cond(is_due, lambda: self._squares.assign(self._with(present)), lambda: self._squares.value())

    def _with(self, gradients: Sequence[Any]) -> tf.Tensor:
        """Return the sum of squares with that of further gradients."""
        return tf.maximum(self._squares, 0.0) + self._sum_of_squares(gradients)

    def _sum_of_squares(self, gradients: Sequence[Any]) -> tf.Tensor:
        dense = [self._without_repeated_rows(gradient) for gradient in gradients]
        if _replicas() > 1:
            dense = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, dense)
        # Twice `l2_loss` reads each gradient once and makes no copy of it.
        return 2.0 * tf.add_n([tf.cast(tf.nn.l2_loss(gradient), tf.float32) for gradient in dense])

    def _without_repeated_rows(self, gradient: Any) -> tf.Tensor:
        """Return a sparse gradient's values, where rows that occur several times are added up."""
        if not isinstance(gradient, tf.IndexedSlices):
            return tf.convert_to_tensor(gradient)
        if self.jit_compile or _replicas() > 1:
            return tf.convert_to_tensor(gradient)
        rows, places = tf.unique(gradient.indices)
        return tf.math.unsorted_segment_sum(gradient.values, places, tf.size(rows))


def _replicas() -> int:
    """Return how many hold a part of the gradients; several hosts have added them up before."""
    context = tf.distribute.get_replica_context()
    return 1 if context is None or is_of_hosts(context.strategy) else context.num_replicas_in_sync

"""The compiled part of training: many steps in one call.

`keras.Model.fit` goes back to Python for each batch; for small models that is nearly all of its time. Here the model's
own `train_step` or `test_step` runs in a `tf.while_loop`, with the batches taken, the averages moved and the counters
advanced inside the graph. How many steps a call makes is an argument, so nothing is compiled twice and no result
depends on it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf

from experiments_manager.training.engine.replicas import StepFunction, on_replicas
from experiments_manager.training.feeds.feed import Feed, OptionalBatch
from experiments_manager.training.observe.gradient_norm import GradientNorm
from experiments_manager.training.observe.prequential import Prequential
from experiments_manager.training.observe.step_statistics import StepStatistics
from experiments_manager.training.setup.metrics import flat_logs
from experiments_manager.training.state.shares import is_of_hosts

if TYPE_CHECKING:
    from experiments_manager.training.setup.experiment import Experiment


class XlaScope(str, enum.Enum):
    """What XLA compiles of a training."""

    NOTHING = "nothing"
    STEP = "step"
    LOOP = "loop"
    """All steps over batches of one size that arrays in memory give."""

    @classmethod
    def by_step(cls, jit_compile: bool | str) -> XlaScope:
        """Return what XLA compiles where no loop is worth it: each step, if that is asked for."""
        return cls.STEP if jit_compile is True else cls.NOTHING


_OPTIONAL = (tf.experimental.Optional, OptionalBatch)


@dataclasses.dataclass(frozen=True)
class ChunkResult:
    """What a call of the compiled loop came to."""

    done: int
    """Number of the step that would come next in the epoch."""
    exhausted: bool
    """Whether the source had no further batch."""
    finite: bool
    """Whether the loss is still a finite number; if not, `done - 1` is the step that spoilt it."""
    logs: Mapping[str, tf.Tensor]
    """Loss and metrics over the epoch so far; scalars on the device."""
    statistics: StepStatistics | tuple[()] = ()
    """What was added up, where the loop measures."""


class CompiledLoop:
    """A training or evaluation step over the batches of `feed`, any number of steps a call.

    Make one by `for_training` or `for_evaluation`.

    Args:
        model: For its metrics; its `train_step` or `test_step` is inside `step_function`.
        step_function: Works on one batch, in the graph.
        feed: Gives the batches.
        xla: What XLA compiles: nothing, each step, or the whole loop over batches of one size.
        gradient_norm: What `step_function` records gradients with; the loop measures only where it is given.
    """

    def __init__(
        self,
        model: keras.Model,
        step_function: StepFunction,
        feed: Feed,
        *,
        xla: XlaScope = XlaScope.NOTHING,
        gradient_norm: GradientNorm | None = None,
    ) -> None:
        self._model, self._feed, self._gradient_norm = model, feed, gradient_norm
        by_step = True if xla is XlaScope.STEP else None
        self._one = tf.function(step_function, autograph=False, reduce_retracing=True, jit_compile=by_step)
        # TensorFlow numbers the collectives of several hosts when a function is called, which it gets wrong for a
        # function that is called in a branch.
        self._in_branch = step_function if is_of_hosts(tf.distribute.get_strategy()) else self._one
        self.xla = xla
        self._compiled = tf.function(self._steps_of_whole_batches, autograph=False, jit_compile=True)
        steps = self._steps_by_xla if xla is XlaScope.LOOP else self._steps
        self._loop = tf.function(steps, autograph=False, reduce_retracing=True)

    @classmethod
    def for_training(
        cls,
        experiment: Experiment,
        gradient_norm: GradientNorm | None = None,
        prequential: Prequential | None = None,
        *,
        xla: XlaScope = XlaScope.NOTHING,
    ) -> CompiledLoop:
        """Make the loop that trains: the model's `train_step`, the averages and the step counter."""
        model, state = experiment.model, experiment.state
        weigh = experiment.class_weight.weigh if experiment.class_weight else lambda data: data

        def train(data: Any) -> dict[str, tf.Tensor]:
            tested = prequential.test(data) if prequential else {}
            with gradient_norm.recorded() if gradient_norm else contextlib.nullcontext():
                logs = on_replicas(model.train_step, weigh(data), model)
            if state.averages is not None:
                state.averages.update(state.step)
            state.step.assign_add(1)
            return logs | tested

        return cls(model, train, experiment.train, xla=xla, gradient_norm=gradient_norm)

    @classmethod
    def for_evaluation(cls, experiment: Experiment, feed: Feed, *, xla: XlaScope = XlaScope.NOTHING) -> CompiledLoop:
        """Make the loop that evaluates a split by the model's `test_step`."""
        model = experiment.model

        def test(data: Any) -> dict[str, tf.Tensor]:
            return on_replicas(model.test_step, data)

        return cls(model, test, feed, xla=xla)

    def compile(self, source: Any, statistics: StepStatistics | tuple[()] = ()) -> None:
        """Let XLA compile the loop before it is needed, by a call of no step.

        Raises:
            tf.errors.OpError: An operation cannot be compiled.
        """
        none = tf.constant(0)
        self._loop(source, none, none, statistics)  # as it is called later, so that nothing is compiled twice

    def trace(self) -> Any:
        """Trace the step, in which a `train_step` of the user's may make variables; return the concrete function."""
        return self._one.get_concrete_function(self._feed.spec)

    def __call__(self, source: Any, first: int, last: int, statistics: StepStatistics | tuple[()] = ()) -> ChunkResult:
        """Run steps `first` to `last - 1` of the epoch, fewer where the data ends or the loss is not finite.

        Args:
            source: From the feed's `open`.
            first: Number of the first step in its epoch.
            last: Number of the step after the last one.
            statistics: What was added up so far, where the loop measures.
        """
        done, more, finite, logs, statistics = self.in_graph(source, tf.constant(first), tf.constant(last), statistics)
        return ChunkResult(int(done), not bool(more), bool(finite), logs, statistics)

    def in_graph(self, source: Any, first: tf.Tensor, last: tf.Tensor, statistics: Any) -> tuple:
        """Run the steps within a graph; return what a `ChunkResult` is made of, as tensors."""
        return self._loop(source, first, last, statistics)

    def _steps_by_xla(self, source: Any, first: tf.Tensor, last: tf.Tensor, statistics: Any) -> tuple:
        """In the graph: all whole batches in one compiled loop; what is left of the data as it comes, by TensorFlow."""
        whole = self._feed.whole_batches
        results = self._compiled(source, first, tf.minimum(last, whole), statistics)
        if self._feed.steps == whole:
            return results
        done, _, finite, _, statistics = results
        rest = tf.maximum(done, whole)
        return tf.cond(
            (last > whole) & finite,
            lambda: self._steps(source, rest, last, statistics),
            lambda: results,
        )

    def _steps_of_whole_batches(self, source: Any, first: tf.Tensor, last: tf.Tensor, statistics: Any) -> tuple:
        return self._steps(source, first, last, statistics, self._feed.take_whole, self._feed.whole_spec)

    def _steps(
        self,
        source: Any,
        first: tf.Tensor,
        last: tf.Tensor,
        statistics: Any,
        take_batch: Callable[[Any, tf.Tensor], Any] | None = None,
        spec: Any = None,
    ) -> tuple:
        take_batch, spec = take_batch or self._feed.take, spec or self._feed.spec
        shapes = self._one.get_concrete_function(spec).structured_outputs
        empty = tf.nest.map_structure(lambda out: tf.zeros(out.shape, out.dtype), shapes)

        def goes_on(step: tf.Tensor, more: tf.Tensor, finite: tf.Tensor, *_: Any) -> tf.Tensor:
            return (step < last) & more & finite

        def take(step: tf.Tensor) -> Any:
            return _without_none(take_batch(source, step))

        def following(step: tf.Tensor, taken: Any, after: list[tf.Tensor]) -> Any:
            with tf.control_dependencies(after):
                return tf.cond(step < last, lambda: take(step), lambda: taken)

        def advance(
            step: tf.Tensor, more: tf.Tensor, finite: tf.Tensor, logs: Any, statistics: Any, taken: Any
        ) -> tuple:
            batch, taken_ahead = _with_none(taken, spec), None
            if self._feed.takes_ahead:  # once this batch is there, since an iterator is asked for one after the other
                taken_ahead = following(step + 1, taken, _parts(taken))
            step, more, finite, logs, statistics = self._one_step(batch, step, more, logs, statistics)
            taken, statistics = self._awaited(
                lambda: following(step, taken, [finite]) if taken_ahead is None else taken_ahead, finite, statistics
            )
            return step, more, finite, logs, statistics, taken

        def advance_unheld(step: tf.Tensor, more: tf.Tensor, finite: tf.Tensor, logs: Any, statistics: Any) -> tuple:
            batch, statistics = self._awaited(lambda: take_batch(source, step), finite, statistics)
            return self._one_step(batch, step, more, logs, statistics)

        start = (first, tf.constant(True), tf.constant(True), empty)
        if self._feed.batches_can_be_held:
            taken, statistics = self._awaited(lambda: take(first), first, statistics)
            results = tf.while_loop(goes_on, advance, (*start, statistics, taken))[:-1]
        else:
            results = tf.while_loop(goes_on, advance_unheld, (*start, statistics))
        done, more, finite, logs, statistics = results
        return done, more, finite, self._results_or(logs), statistics

    def _one_step(self, batch: Any, step: tf.Tensor, more: tf.Tensor, logs: Any, statistics: Any) -> tuple:
        """In the graph: step, whether the data goes on, whether the loss is finite, logs, and statistics after it."""
        if not isinstance(batch, _OPTIONAL):
            logs = self._one(batch)
            return step + 1, more, _loss_is_finite(logs), logs, self._with_norm(statistics)
        more, in_branch = batch.has_value(), self._in_branch
        logs, statistics = tf.cond(
            more, lambda: (in_branch(batch.get_value()), self._with_norm(statistics)), lambda: (logs, statistics)
        )
        return step + tf.cast(more, step.dtype), more, _loss_is_finite(logs), logs, statistics

    def _awaited(self, take: Callable[[], Any], after: tf.Tensor, statistics: Any) -> tuple[Any, Any]:
        """In the graph, once `after` is known: a batch, and the statistics with the time for which it was awaited."""
        if not statistics or self._feed.in_memory:
            return take(), statistics
        with tf.control_dependencies([after]):
            asked = tf.timestamp()
        with tf.control_dependencies([asked]):
            batch = take()
        with tf.control_dependencies([asked, *_parts(batch)]):
            return batch, statistics._replace(waited=statistics.waited + tf.timestamp() - asked)

    def _with_norm(self, statistics: Any) -> Any:
        """In the graph, after a step: the statistics with the norm of its gradient."""
        if not statistics:
            return statistics
        norm = tf.cast(self._gradient_norm.read(), tf.float64)
        one, none = tf.ones([], tf.float64), tf.zeros([4], tf.float64)
        counted = tf.where(tf.math.is_finite(norm), [norm, norm, one, one], none)
        return statistics._replace(norms=statistics.norms + counted)

    def _results_or(self, logs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Return what the last step returned; over several replicas the metrics' results where these were all."""
        if tf.distribute.get_strategy().num_replicas_in_sync == 1:
            return logs
        results = flat_logs(self._model.get_metrics_result())
        if isinstance(logs, dict) and set(results) == set(logs):
            return {name: tf.convert_to_tensor(value) for name, value in results.items()}
        return logs


def _parts(batch: Any) -> list[tf.Tensor]:
    """In the graph: what is there once a batch is."""
    if isinstance(batch, _OPTIONAL):
        return [batch.has_value()]
    return [leaf for leaf in tf.nest.flatten(batch, expand_composites=True) if leaf is not None]


def _without_none(batch: Any) -> Any:
    """Return the leaves of a batch, as a loop can hold them; an optional batch as it is."""
    return (
        batch
        if isinstance(batch, tf.experimental.Optional)
        else [leaf for leaf in tf.nest.flatten(batch) if leaf is not None]
    )


def _with_none(taken: Any, spec: Any) -> Any:
    """Return the batch of that spec again."""
    if isinstance(taken, tf.experimental.Optional):
        return taken
    leaves = iter(taken)
    return tf.nest.pack_sequence_as(spec, [leaf if leaf is None else next(leaves) for leaf in tf.nest.flatten(spec)])


def _loss_is_finite(logs: Any) -> tf.Tensor:
    """In the graph, once the whole step has ended; the loss alone would be known in the middle of it."""
    loss = logs.get("loss") if isinstance(logs, dict) else None
    with tf.control_dependencies(tf.nest.flatten(logs)):
        return tf.constant(True) if loss is None else tf.reduce_all(tf.math.is_finite(loss))


def _scope_for(feed: Feed, xla: XlaScope) -> XlaScope:
    """What XLA compiles of a split, whose data may come in another way than the training's."""
    return XlaScope.STEP if xla is XlaScope.LOOP and not feed.whole_batches else xla


@dataclasses.dataclass
class CompiledLoops:
    """The loops of an experiment, and the concrete functions of a `training` and a `validation` step."""

    train: CompiledLoop
    validation: CompiledLoop | None
    traced: dict[str, Any]
    prequential: Prequential | None = None

    @classmethod
    def of(
        cls,
        experiment: Experiment,
        gradient_norm: GradientNorm | None = None,
        ignored: Sequence[tf.Variable] = (),
        xla: XlaScope = XlaScope.NOTHING,
    ) -> CompiledLoops:
        """Make and trace the loops, so that every variable that they use is part of the experiment's state.

        That comes before the state is copied or put back.

        Args:
            experiment: What is trained.
            gradient_norm: What records the norm of the gradients, where it is measured.
            ignored: Variables that the steps use and that are no part of the state.
            xla: What XLA compiles.
        """
        prequential = None
        if experiment.settings.prequential:
            test_step = experiment.model.test_step
            prequential = Prequential(experiment.model, lambda data: on_replicas(test_step, data))
        if gradient_norm is not None:
            gradient_norm.jit_compile = xla is not XlaScope.NOTHING
        train = CompiledLoop.for_training(experiment, gradient_norm, prequential, xla=xla)
        feed = experiment.validation
        validation = CompiledLoop.for_evaluation(experiment, feed, xla=_scope_for(feed, xla)) if feed else None
        traced = {"training": train.trace()} | ({"validation": validation.trace()} if validation else {})
        ignored = [*ignored, *experiment.exchanged, *([gradient_norm.variable] if gradient_norm else [])]
        experiment.state.include(list(traced.values()), ignored)
        return cls(train, validation, traced, prequential)

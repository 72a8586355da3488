"""A step on each replica by its share of the batch, and what replicas on several hosts have to have in common."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from experiments_manager.compat.keras import gradients_summed_by
from experiments_manager.training.errors import TrainingError
from experiments_manager.training.setup.metrics import flat_logs
from experiments_manager.training.state.reachable import innermost, optimizers_of, reachable
from experiments_manager.training.state.shares import is_of_hosts

StepFunction = Callable[[Any], dict[str, tf.Tensor]]
_READ_VARIABLES = ("ReadVariableOp", "ResourceGather", "ResourceGatherNd", "VariableShape")
"""Operations that leave a variable as it is."""


def on_replicas(step: StepFunction, data: Any, trained: keras.Model | None = None) -> dict[str, tf.Tensor]:
    """In the graph: take a step on each replica by its share of the rows, and return the logs of all.

    Args:
        step: The model's `train_step` or `test_step`.
        data: A batch for all replicas of this process.
        trained: The model, where the step trains it.
    """
    strategy = tf.distribute.get_strategy()
    replicas = strategy.num_replicas_in_sync
    if replicas == 1:
        return _plain(step(data))

    def replica_step() -> dict[str, tf.Tensor]:
        number = tf.distribute.get_replica_context().replica_id_in_sync_group
        share = tf.nest.map_structure(lambda part: _share(part, number, replicas), data)
        if trained is None:
            return same_on_hosts(_plain(step(share)), strategy)
        message = StepMessage(trained) if is_of_hosts(strategy) else None
        with rows_weighed(trained.optimizer, share, data, replicas, message), gradients_summed(trained, message):
            return same_on_hosts(_plain(step(share)), strategy, state_of_step(trained), message)

    logs = strategy.run(replica_step)
    return {name: _mean(strategy.experimental_local_results(value)) for name, value in logs.items()}


def _mean(parts: tuple[tf.Tensor, ...]) -> tf.Tensor:
    """Over the replicas; counts are the same on each."""
    return tf.reduce_mean(tf.stack(parts), axis=0) if parts[0].dtype.is_floating else parts[0]


def _plain(logs: Any) -> dict[str, tf.Tensor]:
    values = flat_logs(logs) if isinstance(logs, Mapping) else {}
    return {name: tf.convert_to_tensor(value) for name, value in values.items()}


def _share(part: tf.Tensor | None, number: tf.Tensor, replicas: int) -> tf.Tensor | None:
    """Return the rows of a batch for one replica: an even split, or the whole of a batch too small to split."""
    if part is None:
        return None
    with tf.device("CPU:0"):
        rows = tf.shape(part)[0]
        number = tf.cast(number, rows.dtype)
        first, last = rows * number // replicas, rows * (number + 1) // replicas
        first, last = tf.cond(rows < replicas, lambda: (tf.zeros_like(rows), rows), lambda: (first, last))
        share = part[first:last]
        if part.shape[0] is not None and part.shape[0] % replicas == 0:
            share = tf.ensure_shape(share, [part.shape[0] // replicas, *part.shape[1:]])
        return share


def state_of_step(model: keras.Model) -> list[tf.Variable]:
    """Return what a step that is being traced has changed so far beside what Keras trains, for hosts to have in common.

    Averages, counters, flags, states of generators, in variables of Keras or of TensorFlow; not what is frozen, which
    may be most of a model. Strings cannot be sent. What a variable's `aggregation` adds up or averages, TensorFlow does
    whenever it is assigned.
    """
    listed = [variable.value for variable in model.non_trainable_variables]
    optimizers = [one for each in optimizers_of(model).values() for one in innermost(each)]  # of summed gradients
    known = {id(variable.value) for holder in (model, *optimizers) for variable in holder.variables}
    others = [variable for variable in reachable(model).variables.values() if id(variable) not in known]
    return [
        variable
        for variable in [*listed, *others]
        if variable.aggregation in (tf.VariableAggregation.NONE, tf.VariableAggregation.ONLY_FIRST_REPLICA)
        and variable.dtype != tf.string
        and _may_be_written(variable)
    ]


def _may_be_written(variable: tf.Variable) -> bool:
    """Return whether the graph that is being made writes a variable, or hands it to a loop or branch that may."""
    if tf.executing_eagerly():
        return True
    handle = tf.compat.v1.get_default_graph().capture(variable.handle)
    return any(operation.type not in _READ_VARIABLES for operation in handle.consumers())


def same_on_hosts(
    logs: dict[str, tf.Tensor],
    strategy: tf.distribute.Strategy,
    variables: Sequence[tf.Variable] = (),
    message: StepMessage | None = None,
) -> dict[str, tf.Tensor]:
    """In the graph, in a replica: what a step returned as the mean over all hosts, where there are several.

    Each process decides by it whether the loop goes on, so a loss that is not finite in one has to be so in all: a
    process that went on alone would wait for the others for ever.

    Args:
        logs: What the step returned.
        strategy: Of the run.
        variables: Which each process has moved by its own rows; they become the same in all (`HostState`), too.
        message: What went with the gradients; nothing is left to do where that was all.
    """
    if not is_of_hosts(strategy):
        return logs
    if message is not None and message.loss_of_all is not None:
        return logs | {"loss": message.loss_of_all}
    floating = {name: value for name, value in logs.items() if value.dtype.is_floating}
    state = HostState(variables)
    values = [*floating.values(), *state.parts()]
    summed = _summed(values)
    state.take(summed[len(floating) :])
    means = [total / strategy.num_replicas_in_sync for total in summed[: len(floating)]]
    return logs | dict(zip(floating, means, strict=True))


class HostState:
    """Variables that become the same on all hosts, by adding up what each contributes.

    Numbers with fractions (averages of batch normalization, vectors of spectral normalization) become the mean; for
    what follows from the weights alone that changes nothing. Integers and booleans (counters, flags, states of
    generators) have no mean: they become the chief's, which those that count steps are anyway.

    Args:
        variables: Of a model.
    """

    def __init__(self, variables: Sequence[tf.Variable]) -> None:
        self._variables = variables

    def parts(self) -> list[tf.Tensor]:
        """In the graph, in a replica: return what this host contributes."""
        context = tf.distribute.get_replica_context()
        is_chief, replicas = tf.equal(context.replica_id_in_sync_group, 0), context.num_replicas_in_sync
        parts = []
        for variable in self._variables:
            value = tf.convert_to_tensor(variable)
            if _takes_mean(variable):
                parts.append(_for_adding(value) / replicas)
            else:
                number = tf.cast(value, tf.int64)
                parts.append(tf.where(is_chief, number, tf.zeros_like(number)))
        return parts

    def take(self, sums: Sequence[tf.Tensor]) -> None:
        """In the graph, in a replica: assign the sums of what all hosts contribute."""
        for variable, total in zip(self._variables, sums, strict=True):
            variable.assign(tf.cast(total, variable.dtype))


def _takes_mean(variable: tf.Variable) -> bool:
    has_fractions = variable.dtype.is_floating or variable.dtype.is_complex
    return has_fractions and variable.aggregation == tf.VariableAggregation.NONE


def _for_adding(value: tf.Tensor) -> tf.Tensor:
    """Return a number in a type that has digits enough for sums, as a tensor of this replica's own device.

    What is read from a variable has none, and cannot be sent.
    """
    return tf.cast(tf.identity(value), tf.float32) if value.dtype in (tf.float16, tf.bfloat16) else tf.identity(value)


class StepMessage:
    """What a replica of a training step tells those on other hosts beside its gradients, where it goes with these.

    A message costs most of a millisecond, however short it is. Keras' own `train_step` has the loss and the state of
    layers before it applies gradients, and returns metrics, which are added up when they are read; so one message
    does. Of other steps it is not known: `same_on_hosts` sends theirs afterwards.

    Args:
        model: The model that is trained.
    """

    def __init__(self, model: keras.Model) -> None:
        steps = ((model.train_step, keras.Model.train_step), (model.compute_metrics, keras.Model.compute_metrics))
        is_keras_own = all(getattr(bound, "__func__", None) is function for bound, function in steps)
        self._model = model if is_keras_own else None
        self.loss: tf.Tensor | None = None
        """Of the rows of this replica, before the optimizer scales it; the replicas' are to be added up."""
        self.loss_of_all: tf.Tensor | None = None
        """Of the whole batch, once that is known."""

    def sent_with(self, gradients: Sequence[Any]) -> list[Any]:
        """In the graph: send it; return the sums of the gradients, and give the state of layers what all have."""
        if self._model is None or self.loss is None or self.loss_of_all is not None:
            return _summed(gradients)
        state = HostState(state_of_step(self._model))
        summed = _summed([*gradients, self.loss, *state.parts()])
        self.loss_of_all = summed[len(gradients)]
        state.take(summed[len(gradients) + 1 :])
        return summed[: len(gradients)]


@contextlib.contextmanager
def rows_weighed(
    optimizer: Any, share: Any, batch: Any, replicas: int, message: StepMessage | None = None
) -> Iterator[None]:
    """In the graph, in a replica: inside, the loss counts by the rows that this replica has of a batch.

    Keras takes the mean of the replicas' means, which is that of the batch only where all have as many rows.

    Args:
        optimizer: Scales the loss; `None` where there is none.
        share: The rows of this replica.
        batch: The whole batch.
        replicas: How many share it.
        message: Takes the loss.
    """
    whole = next(leaf for leaf in tf.nest.flatten(batch) if leaf is not None)
    is_even = whole.shape[0] is not None and whole.shape[0] % replicas == 0
    if optimizer is None or (is_even and message is None):
        yield
        return
    weight = tf.constant(1.0) if is_even else _weight(share, whole, replicas)
    scale = optimizer.scale_loss

    def weighed(loss: tf.Tensor) -> tf.Tensor:
        if message is not None:
            message.loss = loss * tf.cast(weight, loss.dtype)
        return scale(loss) if is_even else scale(loss) * tf.cast(weight, loss.dtype)

    optimizer.scale_loss = weighed
    try:
        yield
    finally:
        del optimizer.scale_loss


def _weight(share: Any, whole: tf.Tensor, replicas: int) -> tf.Tensor:
    part = next(leaf for leaf in tf.nest.flatten(share) if leaf is not None)
    own, rows = tf.shape(part)[0], tf.shape(whole)[0]
    # A batch of fewer rows than replicas is the same in all of them.
    return tf.where(rows < replicas, 1.0, tf.cast(own * replicas, tf.float32) / tf.cast(rows, tf.float32))


def require_no_accumulation(model: keras.Model) -> None:
    """Refuse optimizers that accumulate gradients: Keras updates in a branch then, where replicas cannot meet.

    Raises:
        TrainingError: An optimizer of the model does.
    """
    for optimizer in (one for each in optimizers_of(model).values() for one in innermost(each)):
        if steps := optimizer.gradient_accumulation_steps:
            raise TrainingError(
                "gradient_accumulation_steps: gradients cannot be accumulated in a training of several processes. "
                f"Expected None, got {steps}. Remove it, or make `batch_size` {steps} times as large instead."
            )


@contextlib.contextmanager
def gradients_summed(model: keras.Model, message: StepMessage | None = None) -> Iterator[None]:
    """In the graph, in a replica: inside, optimizers get the gradients of the whole batch where it is on several hosts.

    Keras would clip those of each replica, and their sum would be another one.

    Args:
        model: Its optimizer, and any others that are attributes of it.
        message: Goes with the gradients.
    """
    add_up = _summed if message is None else message.sent_with
    with contextlib.ExitStack() as stack:
        if is_of_hosts(tf.distribute.get_strategy()):
            optimizers = list(optimizers_of(model).values())
            inside = [one for optimizer in optimizers for one in innermost(optimizer) if one is not optimizer]
            for optimizer in optimizers:
                if not any(optimizer is one for one in inside):
                    stack.enter_context(gradients_summed_by(optimizer, innermost(optimizer), add_up))
        yield


def _summed(values: Sequence[Any]) -> list[Any]:
    """In the graph, in a replica: add up values over all hosts, those of a type in one message.

    Args:
        values: Tensors or `IndexedSlices`; `None` stays `None`.
    """
    context = tf.distribute.get_replica_context()
    sums: list[Any] = [None] * len(values)
    sent = [_for_adding(value) if isinstance(value, tf.Tensor) else value for value in values]
    for dtype in dict.fromkeys(value.dtype for value in sent if value is not None):  # TensorFlow packs one type
        places = [place for place, value in enumerate(sent) if value is not None and value.dtype == dtype]
        summed = context.all_reduce(tf.distribute.ReduceOp.SUM, [sent[place] for place in places])
        for place, total in zip(places, summed, strict=True):
            is_cast = total.dtype != values[place].dtype
            sums[place] = tf.cast(total, values[place].dtype) if is_cast else total
    return sums

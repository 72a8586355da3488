"""What the engine needs of Keras and Keras has no public name for.

`tests/compat/test_keras.py` tests each function; where a new release of Keras fails there, look here for what to do.
"""

from __future__ import annotations

import contextlib
import dataclasses
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras

CALLBACK_ATTRIBUTES = ("params", "model", "_model", "validation_data")
"""Attributes of a callback that Keras itself sets.

Use: they are no state of the callback, so no checkpoint holds them. Missing: a list of them. When a release breaks it:
take the names from `keras.callbacks.Callback.__init__`.
"""
_METRIC_CALLS = frozenset({"update_state", "result", "get_metrics_result"})
"""Functions of Keras' trainer in which one metric after the other has its turn."""


def build_model(model: keras.Model, batch: Any) -> None:
    """Make all variables of a compiled model, its metrics and its loss from the shapes of one batch.

    Use: every variable must exist before a checkpoint is restored. Missing: `fit` does this first, but no public method
    does it alone (`Model._symbolic_build`). When a release breaks it: see what `fit` calls before its first step, or
    run `model.test_step` once inside a `tf.function` and reset the metrics.

    Args:
        model: Compiled.
        batch: `x`, `(x, y)` or `(x, y, sample_weight)`.
    """
    model._symbolic_build(data_batch=batch)


def loss_of_function(function: Callable[..., Any]) -> keras.losses.Loss:
    """Return the loss that `compile` makes of a function: targets [batch] fit predictions [batch, 1] there.

    Use: a dry run computes losses as training will. Missing: a public name of that class, which all losses of Keras
    that are made of a function derive from. When a release breaks it: see what `CompileLoss.build` makes.
    """
    return keras.losses.MeanSquaredError.__base__(function)


@contextlib.contextmanager
def gradients_seen(optimizer: keras.optimizers.Optimizer, see: Callable[[Sequence[Any]], None]) -> Iterator[None]:
    """Inside, `see` gets the gradients of each update that is traced, when they are due and not clipped yet.

    Use: the norm of the gradient. Missing: a hook between accumulation, loss scaling and clipping; every optimizer of
    Keras passes its gradients through `_clip_gradients` at that place. When a release breaks it: find what
    `BaseOptimizer._backend_apply_gradients` calls there.

    Args:
        optimizer: The innermost one, behind a loss scale.
        see: Takes the gradients, `None` among them for variables without one.
    """
    clip = optimizer._clip_gradients

    def seeing(gradients: Sequence[Any]) -> Any:
        see(gradients)
        return clip(gradients)

    optimizer._clip_gradients = seeing
    try:
        yield
    finally:
        del optimizer._clip_gradients  # the method of the class is seen again


@contextlib.contextmanager
def gradients_summed_by(
    optimizer: keras.optimizers.Optimizer,
    inner: Sequence[keras.optimizers.Optimizer],
    add_up: Callable[[Sequence[Any]], Sequence[Any]],
) -> Iterator[None]:
    """Inside, `add_up` adds up gradients over the replicas before an optimizer does anything with them.

    Use: several hosts. Missing: Keras looks whether gradients are finite and clips those of each replica, and
    only then adds them up (`_all_reduce_sum_gradients`). When a release breaks it: find where
    `TFOptimizer._backend_update_step` does that.

    Args:
        optimizer: The outermost one, which a `train_step` calls.
        inner: Those behind it that do the work, or itself.
        add_up: Takes the gradients, `None` among them for variables without one.
    """
    apply = optimizer.apply
    optimizer.apply = lambda grads, trainable_variables=None: apply(add_up(grads), trainable_variables)
    for one in inner:
        one._all_reduce_sum_gradients = lambda pairs: pairs
    try:
        yield
    finally:
        del optimizer.apply  # the methods of the class are seen again
        for one in inner:
            del one._all_reduce_sum_gradients


def seed_states(model: keras.Model) -> list[keras.Variable]:
    """List the state of every seed generator that a step may draw from: of layers, of the loss, and Keras' global one.

    Use: they are part of a checkpoint. Missing: a public way to the global generator (`global_seed_generator`), and to
    those of layers, which are known by the name of their variable. When a release breaks it: look into
    `keras.src.random.seed_generator`.
    """
    from keras.src.random.seed_generator import global_seed_generator

    states = [variable for variable in model.variables if "seed_generator_state" in variable.path]
    return [*states, global_seed_generator().state]


def schedule_of(optimizer: keras.optimizers.Optimizer) -> Any:
    """Return the schedule of an optimizer's learning rate, `None` where that is a number.

    Use: schedules are shifted for clients of a federation. Missing: `Optimizer.learning_rate` gives the rate of now
    (`_learning_rate` is the schedule). When a release breaks it: find what the setter of `learning_rate` sets.
    """
    rate = getattr(optimizer, "inner_optimizer", optimizer)._learning_rate
    return rate if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule) else None


def failed_metric(error: BaseException) -> keras.metrics.Metric | None:
    """Return the metric that was updated or read when an exception was raised, `None` where there is none.

    Use: a message that names the metric. Missing: Keras' own message does not name it, so it is looked for among the
    local variables of the trainer's functions on the way to the exception. When a release breaks it: see which
    functions of `keras.src.trainers.compile_utils` loop over metrics.
    """
    found = None
    traceback = error.__traceback__
    while traceback is not None:
        frame = traceback.tb_frame
        in_trainer = frame.f_globals.get("__name__", "").startswith("keras.src.trainers.")
        if in_trainer and frame.f_code.co_name in _METRIC_CALLS:
            values = (value for name, value in frame.f_locals.items() if name != "self")
            metrics = [value for value in values if isinstance(value, keras.metrics.Metric)]
            found = next((metric for metric in metrics if "trainers" not in type(metric).__module__), found)
        traceback = traceback.tb_next
    return found


@dataclasses.dataclass(frozen=True)
class Producer:
    """The call that made a symbolic tensor.

    Attributes:
        operation: What was called.
        arguments: Its positional and its named arguments.
        outputs: What it gave, flattened.
    """

    operation: keras.Operation
    arguments: tuple[tuple[Any, ...], dict[str, Any]]
    outputs: Sequence[keras.KerasTensor]


def producer_of(tensor: keras.KerasTensor) -> Producer | None:
    """Return the call that made a symbolic tensor, `None` for the output of a layer or an input of the model.

    Use: a shape that is computed from other shapes is computed again where its value counts. Missing: a public way back
    from a tensor to its operation (`_keras_history`, `Operation._inbound_nodes`). When a release breaks it: return
    `None`, and some shapes are unknown.
    """
    history = getattr(tensor, "_keras_history", None)
    if history is None or isinstance(history.operation, keras.layers.Layer):
        return None
    node = history.operation._inbound_nodes[history.node_index]
    return Producer(history.operation, (node.arguments.args, node.arguments.kwargs), node.output_tensors)


def extend_symbolic_tensors(**members: Callable[..., Any]) -> None:
    """Give Keras' symbolic tensors members that those of Keras 2 had.

    Use: the user's own code, and TensorFlow's Python before it asks anybody, call `get_shape()`, iterate, and index
    with slices and tensors. Missing: a way to make symbolic tensors of a class of one's own. When a release breaks it:
    leave the member out, and the user's code is refused as by Keras itself.
    """
    for name, member in members.items():
        setattr(keras.KerasTensor, name, member)


def wrap_backend_functions(wrap: Callable[[str, Callable[..., Any]], Callable[..., Any]]) -> None:
    """Put what `wrap` makes of them in the place of the functions of `tf.keras.backend`.

    Use: they look at `x.dtype.base_dtype` and `x.shape.rank`, which symbolic tensors lack, before they call TensorFlow.
    Missing: they ask no dispatchers. When a release breaks it: `tf.keras.backend` is gone; remove this.

    Args:
        wrap: Takes a function's name and the function.
    """
    import tensorflow as tf

    backend = tf.keras.backend
    for name, function in vars(backend).copy().items():
        if isinstance(function, types.FunctionType) and function.__module__ == "keras.src.legacy.backend":
            setattr(backend, name, wrap(name, function))

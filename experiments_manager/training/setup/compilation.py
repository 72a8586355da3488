"""The model and what trains it: optimiser, loss and metrics from the hooks, compiled and built."""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from experiments_manager.common.error_text import named_reason, reason
from experiments_manager.common.suggestions import did_you_mean
from experiments_manager.compat.keras import build_model, failed_metric
from experiments_manager.settings import Settings, UserCodeError
from experiments_manager.settings.problems import shown
from experiments_manager.training.errors import DataError
from experiments_manager.training.feeds.feed import Feed, Shape
from experiments_manager.training.hook_calls import hook_error, located_at, seeded
from experiments_manager.training.setup.boundary import at_work
from experiments_manager.training.setup.fitting import refuse_misfits
from experiments_manager.training.setup.metrics import (
    OF_COMPILE,
    known_name,
    metric_by_name,
    metrics_for_compile,
)
from experiments_manager.training.setup.tensorflow_functions import accept_symbolic_tensors


def compiled_model(settings: Settings, train: Feed) -> keras.Model:
    """Call the hooks that make the model and what trains it; compile and build it.

    Args:
        settings: Checked settings.
        train: The training data; its first batch gives the shapes.

    Raises:
        UserCodeError: If a hook raises.
        SettingsError: If a hook gives something that Keras cannot use.
        DataError: If model, loss and data do not fit together.
    """
    model = model_of(settings)
    with seeded(settings, "optimizer"):
        rate = learning_rate_of(settings, model, train.steps)
        loss = loss_of(settings, model)
        optimizer = optimizer_of(settings, model, loss, rate, train.steps)
        metrics = metrics_of(settings, model, loss)
        weights = loss_weights_of(settings, model)
    compile_and_build(settings, model, train, Parts(optimizer, loss, metrics, weights))
    return model


@dataclasses.dataclass
class Parts:
    """What a model is compiled with, as the hooks gave it."""

    optimizer: Any
    loss: Any
    metrics: Any
    loss_weights: Any


def compile_and_build(settings: Settings, model: keras.Model, train: Feed, parts: Parts) -> None:
    """Compile a model with what its hooks gave, and make all of its variables."""
    loss = parts.loss
    refuse_misfits(settings, model, train, loss)
    if not (loss is None and model.compiled):
        settings.dialect.before_compile(loss, parts.metrics)
        loss = _by_canonical_names(settings, loss)
        metrics = metrics_for_compile(settings, model, parts.metrics)
        _compile(
            settings,
            model,
            optimizer=parts.optimizer,
            loss=loss,
            metrics=metrics,
            loss_weights=parts.loss_weights or None,
        )
    _build(settings, model, train)


def model_of(settings: Settings) -> keras.Model:
    """Call the hook that makes the model, and return what is one."""
    accept_symbolic_tensors()
    with seeded(settings, "model"), at_work(settings, "model"):
        model = settings.call("model")
    if model is None:
        raise hook_error(settings, "model", "it returned None. Expected a `keras.Model`, got None. Add `return`.")
    if not isinstance(model, keras.Model):
        raise hook_error(settings, "model", f"Expected a `keras.Model`, got {type(model).__name__}. Return one.")
    return model


def learning_rate_of(settings: Settings, model: keras.Model, steps: int | None) -> Any:
    """Return the learning rate: a float above 0, a Keras schedule, or a function without arguments that gives one."""
    with at_work(settings, "learning_rate"):
        rate = settings.resolve("learning_rate", model=model, steps_per_epoch=steps)
        if isinstance(rate, dict) and isinstance(rate.get("class_name"), str):
            rate = keras.optimizers.schedules.deserialize(rate)
        first = rate
        if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
            first = keras.ops.convert_to_numpy(rate(keras.ops.convert_to_tensor(0, "int64")))
        elif callable(rate) and not inspect.isclass(rate):
            first = rate()
    problem = _problem_of_rate(rate, first)
    if problem is not None:
        raise hook_error(settings, "learning_rate", problem)
    return rate


def _problem_of_rate(rate: Any, first: Any) -> str | None:
    """Return what is wrong with a learning rate whose first value is `first`."""
    expected = "Expected a float above 0, or a Keras schedule,"
    if inspect.isclass(rate):
        return (
            f"it is the class itself. {expected} got {rate.__name__}. Write `{rate.__name__}(…)`, with its arguments."
        )
    if rate is None:
        return f"it returned None. {expected} got None. Add `return`."
    is_number = not isinstance(first, (bool, str, bytes, np.bool_))
    try:
        value = float(first) if is_number else None
    except (TypeError, ValueError):
        value = None
    got = shown(first)
    if value is None:
        return f"it is no number. {expected} got {got}. Correct it."
    if not math.isfinite(value) or value < 0 or (value == 0 and first is rate):
        return f"it is not a finite number above 0. {expected} got {got}. Correct it."
    return None


def loss_of(settings: Settings, model: keras.Model) -> Any:
    """Return the loss, as `keras.Model.compile` takes it; `None` where the model has one of its own."""
    with at_work(settings, "loss"):
        loss = settings.resolve("loss", model=model)
    refuse_unknown_names(settings, "loss", loss, keras.losses)
    for item in _leaves(loss):
        if inspect.isclass(item):
            text = f"Expected a loss, got the class {item.__name__}. Write `{item.__name__}()`, with its arguments."
            raise hook_error(settings, "loss", text)
        if item is not None and not isinstance(item, (str, keras.losses.Loss)) and not callable(item):
            kind = type(item).__name__
            text = f"Expected the name of a Keras loss, a loss or a function of `(y_true, y_pred)`, got {kind}."
            raise hook_error(settings, "loss", f"{text} Give one of these.")
    return loss


def metrics_of(settings: Settings, model: keras.Model, loss: Any) -> Any:
    """Return the metrics as the hook gave them, their names known to Keras."""
    metrics = given_metrics(settings, model, loss)
    refuse_unknown_names(settings, "metrics", metrics, keras.metrics)
    return metrics


def given_metrics(settings: Settings, model: keras.Model, loss: Any) -> Any:
    """Return the metrics as the hook gave them."""
    if not settings.has("metrics"):
        return None
    with at_work(settings, "metrics"):
        return settings.resolve("metrics", model=model, loss=loss)


def loss_weights_of(settings: Settings, model: keras.Model) -> Any:
    """Return the weights of the losses: a number, a list of numbers, or a dict of numbers by output."""
    if not settings.has("loss_weights"):
        return None
    with at_work(settings, "loss_weights"):
        weights = settings.resolve("loss_weights", model=model)
    for weight in _leaves(weights):
        of_keras = keras.ops.is_tensor(weight) or isinstance(weight, keras.Variable)
        if not of_keras and (isinstance(weight, bool) or not isinstance(weight, (int, float, np.number))):
            text = f"Expected a float for each output, got {shown(weight)}. Correct it."
            raise hook_error(settings, "loss_weights", text)
    return weights


def _leaves(nest: Any) -> list[Any]:
    """Return what is in lists and dicts, also in such as Python cannot sort the keys of."""
    if isinstance(nest, Mapping):
        return [leaf for part in nest.values() for leaf in _leaves(part)]
    if isinstance(nest, (list, tuple)):
        return [leaf for part in nest for leaf in _leaves(part)]
    return [] if nest is None else [nest]


def _compile(settings: Settings, model: keras.Model, **parts: Any) -> None:
    try:
        model.compile(**parts, jit_compile=False)
    except (ValueError, TypeError, KeyError) as error:
        noun = next((noun for noun in ("metrics", "loss_weights") if f"`{noun}`" in str(error)), "loss")
        raise hook_error(settings, noun, f"Keras does not take it: {reason(error)}. Correct it.") from error


def _by_canonical_names(settings: Settings, loss: Any) -> Any:
    """Return losses that a file names as Keras did before by the names that it has for them."""
    before = settings.dialect.keras_names
    if not before:
        return loss
    return tf.nest.map_structure(
        lambda item: known_name(keras.losses, item, before) or item if isinstance(item, str) else item, loss
    )


def refuse_unknown_names(settings: Settings, noun: str, given: Any, room: Any) -> None:
    """Find losses or metrics that Keras does not know, before it says so in its own, less helpful, words."""
    for name in _leaves(given):
        if not isinstance(name, str) or (noun == "metrics" and name in OF_COMPILE):
            continue
        if noun == "metrics":
            known = metric_by_name(name, settings.dialect.keras_names) is not None
        else:
            known = known_name(room, name, settings.dialect.keras_names) is not None
        if not known:
            names = [known for known in dir(room) if not known.startswith("_")]
            names += OF_COMPILE if noun == "metrics" else ()
            hint = did_you_mean(name, names, f"`dir(keras.{noun})` lists those of Keras.", shown="'{}'")
            what = "loss" if noun == "loss" else "metric"
            raise hook_error(settings, noun, f"Unknown Keras {what} {name!r}. {hint}")


def optimizer_of(settings: Settings, model: keras.Model, loss: Any, rate: Any, steps: int | None) -> Any:
    """Return the optimizer, with clipping and accumulation as the settings say."""
    with at_work(settings, "optimizer" if settings.has("optimizer") else "learning_rate"):
        optimizer = _made_optimizer(settings, model, loss, rate, steps)
        _configure(settings, optimizer, rate)
    return optimizer


def _made_optimizer(settings: Settings, model: keras.Model, loss: Any, rate: Any, steps: int | None) -> Any:
    if not settings.has("optimizer"):
        return keras.optimizers.Adam(rate)
    optimizer = settings.resolve("optimizer", model=model, loss=loss, learning_rate=rate, steps_per_epoch=steps)
    if isinstance(optimizer, str):
        try:
            optimizer = keras.optimizers.get({"class_name": optimizer, "config": {"learning_rate": rate}})
        except ValueError as error:
            text = f"Keras knows no optimizer of this name. Expected e.g. 'adam' or 'sgd', got {optimizer!r}."
            raise hook_error(settings, "optimizer", f"{text} Correct it, or make the optimizer yourself.") from error
    if inspect.isclass(optimizer):
        name = optimizer.__name__
        text = f"Expected a Keras optimizer, got the class {name}. Write `{name}(learning_rate)`."
        raise hook_error(settings, "optimizer", text)
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        kind = type(optimizer).__name__
        remedy = "Add `return`." if optimizer is None else "Give one."
        raise hook_error(settings, "optimizer", f"Expected a Keras optimizer or its name, got {kind}. {remedy}")
    return optimizer


def _configure(settings: Settings, optimizer: Any, learning_rate: Any) -> None:
    """Apply clipping and accumulation, which Keras keeps as attributes of an optimizer that is not built yet."""
    if settings.gradient_clip_norm is not None:
        optimizer.clipnorm = optimizer.clipvalue = None
        optimizer.global_clipnorm = settings.gradient_clip_norm
    if settings.gradient_clip_value is not None:
        optimizer.clipnorm = optimizer.global_clipnorm = None
        optimizer.clipvalue = settings.gradient_clip_value
    if (settings.gradient_accumulation_steps or 1) > 1:
        optimizer.gradient_accumulation_steps = settings.gradient_accumulation_steps
    scheduled = isinstance(learning_rate, keras.optimizers.schedules.LearningRateSchedule)
    if settings.reduce_lr_patience is not None and scheduled and settings.is_given("reduce_lr_patience"):
        text = f"A schedule cannot be lowered on a plateau. Expected a number, got {type(learning_rate).__name__}."
        raise hook_error(settings, "learning_rate", f"{text} Remove the schedule or `reduce_lr_patience`.")


def lowers_learning_rate(settings: Settings, optimizer: Any) -> bool:
    """Return whether a plateau lowers the learning rate: not where a schedule rules it, or there is no optimizer."""
    return settings.reduce_lr_patience is not None and optimizer is not None and not has_schedule(optimizer)


def has_schedule(optimizer: Any) -> bool:
    """Return whether the learning rate of an optimizer follows from its steps."""
    rule = getattr(optimizer, "inner_optimizer", optimizer).get_config().get("learning_rate")
    return isinstance(rule, dict)  # the configuration of a schedule


def _build(settings: Settings, model: keras.Model, train: Feed) -> None:
    """Make all variables, on one batch's shapes, before anything is compiled or restored."""
    with at_work(settings, "dataset"):
        batch = train.sample_batch()
    try:
        build_model(model, batch)
    except Exception as error:
        own_step = type(model).train_step is not keras.Model.train_step
        if not (own_step and model.variables):
            raise _misfit(settings, error, batch, model, train.topic) from error
    if model.optimizer is not None and not model.optimizer.built:
        with at_work(settings, "optimizer"):
            model.optimizer.build(model.trainable_variables)


def _misfit(settings: Settings, error: Exception, batch: Any, model: keras.Model, topic: str | None) -> Exception:
    """Explain an exception during the build: a metric failed, or the data do not suit the model."""
    holds = f"A batch holds {Shape.of(batch).text}."
    metric = failed_metric(error)
    if metric is not None:
        text = (
            f"the metric {metric.name!r} cannot be computed: {reason(error)}. Expected one that takes the targets and "
            f"the predictions. {holds} Correct it, take another, or give the targets the shape that it needs."
        )
        return located_at(settings, "metrics", text, error)
    if "Invalid `metrics`" in str(error):
        return hook_error(settings, "metrics", f"They do not fit the model's outputs: {reason(error)}. Correct them.")
    place = settings.place_of(error)
    if place is not None:  # code of the user's own is at work, which knows what it wants better than we do
        return UserCodeError("training", place, error, f"{named_reason(error)}. {holds}")
    if topic is not None:
        return DataError(
            f"kafka_topics: the samples of topic {topic} do not fit the model: {reason(error)}.\n"
            f"  topic: {Shape.of(batch).text}\n  model: {_inputs(model)}\n"
            "Name another topic, produce it again, or change the model."
        )
    return DataError(
        f"dataset: model and data do not fit together: {reason(error)}. {holds} The model takes and gives "
        f"{_inputs(model)}. Change `dataset`, `loss` or the model."
    )


def _inputs(model: keras.Model) -> str:
    """Return what a model takes and gives, as far as it tells."""
    try:
        parts = [("x", tensor) for tensor in keras.tree.flatten(model.inputs)]
        parts += [("output", tensor) for tensor in keras.tree.flatten(model.outputs)]
    except (AttributeError, ValueError):
        return f"{type(model).__name__}, which does not tell what it takes"
    return ", ".join(f"{name} {tuple(tensor.shape)} {tensor.dtype}" for name, tensor in parts)

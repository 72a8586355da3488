"""The model and what trains it: optimiser, loss and metrics from the hooks, compiled and built."""

from __future__ import annotations

import difflib
from typing import Any

import keras
import tensorflow as tf

from experiments_manager.common.error_text import reason
from experiments_manager.compat.keras import build_model, failed_metric
from experiments_manager.settings import Settings
from experiments_manager.training.errors import DataError
from experiments_manager.training.feeds.feed import Feed, Shape
from experiments_manager.training.setup.hooks import hook_error, located_at, seeded
from experiments_manager.training.setup.metrics import (
    OF_COMPILE,
    known_name,
    make_known_to_keras,
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
    accept_symbolic_tensors()
    with seeded(settings, "model"):
        model = settings.call("model")
    if not isinstance(model, keras.Model):
        raise hook_error(settings, "model", f"Expected a `keras.Model`, got {type(model).__name__}. Return one.")
    with seeded(settings, "optimizer"):
        learning_rate = settings.resolve("learning_rate", model=model, steps_per_epoch=train.steps)
        loss = settings.resolve("loss", model=model)
        optimizer = _optimizer(settings, model, loss, learning_rate, train.steps)
        _configure(settings, optimizer, learning_rate)
        metrics = settings.resolve("metrics", model=model, loss=loss) if settings.has("metrics") else None
        _refuse_unknown_names(settings, "loss", loss, keras.losses)
        _refuse_unknown_names(settings, "metrics", metrics, keras.metrics)
        weights = settings.resolve("loss_weights", model=model) if settings.has("loss_weights") else None
    if not (loss is None and model.compiled):
        if settings.is_legacy:
            make_known_to_keras(loss, metrics)
        loss = _by_canonical_names(settings, loss)
        metrics = metrics_for_compile(settings, model, metrics)
        _compile(settings, model, optimizer=optimizer, loss=loss, metrics=metrics, loss_weights=weights or None)
    _build(settings, model, train)
    return model


def _compile(settings: Settings, model: keras.Model, **parts: Any) -> None:
    try:
        model.compile(**parts, jit_compile=False)
    except (ValueError, TypeError, KeyError) as error:
        noun = next((noun for noun in ("metrics", "loss_weights") if f"`{noun}`" in str(error)), "loss")
        raise hook_error(settings, noun, f"Keras does not take it: {reason(error)}. Correct it.") from error


def _by_canonical_names(settings: Settings, loss: Any) -> Any:
    """Return losses that a legacy file names as Keras 2 did by the names that Keras 3 has for them."""
    if not settings.is_legacy:
        return loss
    return tf.nest.map_structure(
        lambda item: known_name(keras.losses, item, True) or item if isinstance(item, str) else item, loss
    )


def _refuse_unknown_names(settings: Settings, noun: str, given: Any, room: Any) -> None:
    """Find losses or metrics that Keras does not know, before it says so in its own, less helpful, words."""
    for name in tf.nest.flatten(given):
        if not isinstance(name, str) or (noun == "metrics" and name in OF_COMPILE):
            continue
        if noun == "metrics":
            known = metric_by_name(name, settings.is_legacy) is not None
        else:
            known = known_name(room, name, settings.is_legacy) is not None
        if not known:
            names = [known for known in dir(room) if not known.startswith("_")]
            near = difflib.get_close_matches(name, [*names, *(OF_COMPILE if noun == "metrics" else ())], n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"`dir(keras.{noun})` lists those of Keras."
            what = "loss" if noun == "loss" else "metric"
            raise hook_error(settings, noun, f"Unknown Keras {what} {name!r}. {hint}")


def _optimizer(settings: Settings, model: keras.Model, loss: Any, rate: Any, steps: int | None) -> Any:
    if not settings.has("optimizer"):
        return keras.optimizers.Adam(rate)
    optimizer = settings.resolve("optimizer", model=model, loss=loss, learning_rate=rate, steps_per_epoch=steps)
    if isinstance(optimizer, str):
        try:
            optimizer = keras.optimizers.get({"class_name": optimizer, "config": {"learning_rate": rate}})
        except ValueError as error:
            text = f"Keras knows no optimizer of this name. Expected e.g. 'adam' or 'sgd', got {optimizer!r}."
            raise hook_error(settings, "optimizer", f"{text} Correct it, or make the optimizer yourself.") from error
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        kind = type(optimizer).__name__
        raise hook_error(settings, "optimizer", f"Expected a Keras optimizer or its name, got {kind}. Give one.")
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
    batch = train.sample_batch()
    try:
        build_model(model, batch)
    except Exception as error:
        own_step = type(model).train_step is not keras.Model.train_step
        if not (own_step and model.variables):
            raise _misfit(settings, error, batch, model, train.topic) from error
    if model.optimizer is not None and not model.optimizer.built:
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
    if topic is not None:
        return DataError(
            f"kafka_topics: the samples of topic {topic} do not fit the model: {reason(error)}.\n"
            f"  topic: {Shape.of(batch).text}\n  model: {_inputs(model)}\n"
            "Name another topic, produce it again, or change the model."
        )
    return DataError(
        f"dataset: model and data do not fit together: {reason(error)}. {holds} Change `dataset`, `loss` or the model."
    )


def _inputs(model: keras.Model) -> str:
    """Return what a model takes and gives, as far as it tells."""
    try:
        parts = [("x", tensor) for tensor in keras.tree.flatten(model.inputs)]
        parts += [("output", tensor) for tensor in keras.tree.flatten(model.outputs)]
    except (AttributeError, ValueError):
        return f"{type(model).__name__}, which does not tell what it takes"
    return ", ".join(f"{name} {tuple(tensor.shape)} {tensor.dtype}" for name, tensor in parts)

"""The metrics that a settings file gives, in the form that Keras 3 takes; and which of them failed."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from experiments_manager.settings import Settings
from experiments_manager.training.hook_calls import hook_error

_NOT_THE_USERS = ("keras.", "experiments_manager.")

OF_COMPILE = frozenset({"accuracy", "acc", "crossentropy", "ce"})
"""Metrics that `keras.Model.compile` makes out of the loss and the shapes."""


def metrics_for_compile(settings: Settings, model: keras.Model, given: Any) -> Any:
    """Bring what `metrics` gave into the form that `keras.Model.compile` takes.

    A name, a metric or a function that stands alone is meant for each output. So is a list without lists in it, in
    files of a dialect that says so, which may also have them see other targets.

    Args:
        settings: Checked settings.
        model: The model, not compiled yet.
        given: A name, a metric, a function, or lists and dictionaries of these, or `None`.

    Returns:
        A list or dictionary for `metrics=`, or `None`.

    Raises:
        SettingsError: If something in it is no metric.
    """
    if given is None or (_is_nested(given) and not given):
        return None
    for item in keras.tree.flatten(given):
        refuse_what_is_no_metric(settings, item)
    alone = not _is_nested(given)
    metrics = [given] if alone else given
    flat_list = not isinstance(metrics, Mapping) and not any(map(_is_nested, metrics))
    outputs = _number_of_outputs(model)
    if outputs == 1:  # for which Keras ignores names, but stumbles over `None`
        metrics = [item for item in keras.tree.flatten(metrics) if item is not None]
    if outputs > 1 and flat_list and (alone or settings.dialect.lists_for_each_output):
        metrics = [[_copy(settings, metric) for metric in metrics] for _ in range(outputs)]
    return _map(settings.dialect.metric, metrics)


def metrics_reset(model: keras.Model) -> Callable[[], None]:
    """Return what resets the metrics of a model, compiled unless Python of the user's takes part.

    What such a metric counts in `reset_state` must count at every epoch, as in Keras, and not where it is traced.
    """
    compiled = tf.function(model.reset_metrics, autograph=False)

    def reset() -> None:
        (model.reset_metrics if resets_by_python(model) else compiled)()

    return reset


def resets_by_python(model: keras.Model) -> bool:
    """Return whether Python of the user's takes part in resetting the metrics of a model."""
    parts = [part for metric in model.metrics for part in (metric, *getattr(metric, "metrics", ()))]
    functions = [type(model).reset_metrics, *(type(part).reset_state for part in parts)]
    return any(not str(getattr(function, "__module__", "")).startswith(_NOT_THE_USERS) for function in functions)


def _is_nested(value: Any) -> bool:
    return isinstance(value, (list, tuple, Mapping))


def _map(function: Any, metrics: Any) -> Any:
    if isinstance(metrics, Mapping):
        return {name: _map(function, item) for name, item in metrics.items()}
    if isinstance(metrics, (list, tuple)):
        return [_map(function, item) for item in metrics]
    return function(metrics)


def refuse_what_is_no_metric(settings: Settings, item: Any) -> None:
    """Raise where something among the metrics is none."""
    if inspect.isclass(item):
        text = f"Expected a metric, got the class {item.__name__}. Write `{item.__name__}()`, with its arguments."
        raise hook_error(settings, "metrics", text)
    if item is not None and not isinstance(item, (str, keras.metrics.Metric)) and not callable(item):
        kind = type(item).__name__
        text = f"Expected a name, a Keras metric or a function of `(y_true, y_pred)`, got {kind}. Give one of these."
        raise hook_error(settings, "metrics", text)


def _number_of_outputs(model: keras.Model) -> int:
    """0 where the model does not tell before it is called."""
    try:
        return len(keras.tree.flatten(model.outputs))
    except (AttributeError, ValueError):
        return 0


def _copy(settings: Settings, metric: Any) -> Any:
    """Return a metric of the same configuration, as each output needs one of its own."""
    if not isinstance(metric, keras.metrics.Metric):
        return metric
    try:
        return type(metric).from_config(metric.get_config())
    except Exception as error:  # whatever a class of the user's raises
        text = (
            f"The metric {metric.name!r} is meant for each of several outputs, but cannot be copied: {error}. Expected "
            "a `get_config` that fits its constructor. Write one, or give a dictionary with a metric for each output."
        )
        raise hook_error(settings, "metrics", text) from error


def known_name(room: Any, name: str, before: Mapping[str, str]) -> str | None:
    """Return the name by which Keras 3 knows a loss or metric, `None` where it knows none.

    Args:
        room: `keras.losses` or `keras.metrics`.
        name: As the settings file writes it.
        before: Names in small letters that are understood, too, with those that Keras 3 has.
    """
    for candidate in (name, before.get(name.lower())):
        try:
            if candidate and room.get(candidate) is not None:
                return candidate
        except ValueError:
            continue
    return None


def metric_by_name(name: str, before: Mapping[str, str]) -> Any:
    """Return what Keras knows under a metric's name, or `None`; a file of former names may name a loss as well."""
    for room in (keras.metrics, keras.losses) if before else (keras.metrics,):
        known = known_name(room, name, before)
        if known is not None:
            return room.get(known)
    return None


def flat_logs(logs: Mapping[str, Any]) -> dict[str, Any]:
    """Put what a metric gives as a dictionary under the names in it, as Keras does."""
    values: dict[str, Any] = {}
    for name, value in logs.items():
        values |= flat_logs(value) if isinstance(value, Mapping) else {name: value}
    return values


def as_numbers(logs: Mapping[str, Any]) -> dict[str, float]:
    """Read logs off the device; a metric of several values, one a class for instance, becomes `name_0`, `name_1`, …"""
    numbers: dict[str, float] = {}
    for name, tensor in flat_logs(logs).items():
        value = np.asarray(tensor)
        several = {f"{name}_{number}": float(item) for number, item in enumerate(value.flat)}
        numbers |= several if value.ndim else {name: float(value)}
    return numbers

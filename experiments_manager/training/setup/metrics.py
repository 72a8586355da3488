"""The metrics that a settings file gives, in the form that Keras 3 takes; and which of them failed."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from typing import Any

import keras

from experiments_manager.settings import Settings
from experiments_manager.settings.legacy.renamed_keras_symbols import KERAS_2_NAMES
from experiments_manager.training.setup.hooks import hook_error

OF_COMPILE = frozenset({"accuracy", "acc", "crossentropy", "ce"})
"""Metrics that `keras.Model.compile` makes out of the loss and the shapes."""


def metrics_for_compile(settings: Settings, model: keras.Model, given: Any) -> Any:
    """Bring what `metrics` gave into the form that `keras.Model.compile` takes.

    A name, a metric or a function that stands alone is meant for each output. So is a list without lists in it, in
    files of the legacy framework, whose metrics also see the targets as Keras 2 showed them.

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
    if outputs > 1 and flat_list and (alone or settings.is_legacy):
        metrics = [[_copy(settings, metric) for metric in metrics] for _ in range(outputs)]
    return _map(_as_keras_2_did, metrics) if settings.is_legacy else metrics


def targets_seen(settings: Settings, targets: Any, predictions: Any) -> Any:
    """Return the targets as the metrics of a file see them."""
    return _matched(targets, predictions) if settings.is_legacy else targets


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


def known_name(room: Any, name: str, is_legacy: bool) -> str | None:
    """Return the name by which Keras 3 knows a loss or metric, `None` where it knows none.

    Args:
        room: `keras.losses` or `keras.metrics`.
        name: As the settings file writes it.
        is_legacy: Whether names of Keras 2 are understood, too.
    """
    for candidate in (name, KERAS_2_NAMES.get(name.lower()) if is_legacy else None):
        try:
            if candidate and room.get(candidate) is not None:
                return candidate
        except ValueError:
            continue
    return None


def metric_by_name(name: str, is_legacy: bool) -> Any:
    """Return what Keras knows under a metric's name, or `None`; a legacy file may name a loss as well."""
    for room in (keras.metrics, keras.losses) if is_legacy else (keras.metrics,):
        known = known_name(room, name, is_legacy)
        if known is not None:
            return room.get(known)
    return None


def _as_keras_2_did(metric: Any) -> Any:
    """Make a metric see what `compile` of Keras 2 showed it: targets of the rank and the type of the predictions."""
    if metric is None or (isinstance(metric, str) and metric.lower() in OF_COMPILE):
        return metric  # what Keras makes of these looks after the shapes itself
    if isinstance(metric, str):
        named, metric = metric, metric_by_name(metric, is_legacy=True)
        metric = metric if isinstance(metric, keras.metrics.Metric) else keras.metrics.MeanMetricWrapper(metric)
        metric.name = named
    elif not isinstance(metric, keras.metrics.Metric):
        metric = keras.metrics.MeanMetricWrapper(metric, name=_name_of(metric))
    metric.update_state = functools.partial(_update_with_matched_targets, metric.update_state)
    return metric


def _name_of(function: Any) -> str:
    function = function.func if isinstance(function, functools.partial) else function
    return getattr(function, "__name__", None) or getattr(function, "name", None) or type(function).__name__


def _update_with_matched_targets(update_state: Any, y_true: Any, y_pred: Any, *args: Any, **kwargs: Any) -> Any:
    return update_state(_matched(y_true, y_pred), y_pred, *args, **kwargs)


def _matched(y_true: Any, y_pred: Any) -> Any:
    """Return targets [batch] as [batch, 1] for predictions [batch, n], in their type if both are floats or integers."""
    if not (hasattr(y_true, "shape") and hasattr(y_pred, "shape")):
        return y_true
    if len(y_true.shape) == 1 and len(y_pred.shape) == 2:
        y_true = keras.ops.expand_dims(y_true, -1)
    of_true, of_pred = (keras.backend.standardize_dtype(value.dtype) for value in (y_true, y_pred))
    same_kind = any(all(map(is_kind, (of_true, of_pred))) for is_kind in (_is_float, _is_integer))
    return keras.ops.cast(y_true, of_pred) if same_kind and of_true != of_pred else y_true


def _is_float(dtype: str) -> bool:
    return "float" in dtype


def _is_integer(dtype: str) -> bool:
    return "int" in dtype


def make_known_to_keras(*given: Any) -> None:
    """Let Keras find the user's own losses and metrics by their names when it copies a compiled model.

    `clone_model` of Keras 2 left out what a model was compiled with; that of Keras 3 makes it again from the names, and
    does not find classes and functions that are defined within a hook.
    """
    known = keras.saving.get_custom_objects()
    for item in keras.tree.flatten(given):
        if item is None or isinstance(item, str):
            continue
        own = item if inspect.isfunction(item) else type(item)
        if own.__module__.partition(".")[0] != "keras" and own.__name__.isidentifier():
            known[own.__name__] = own

"""What losses and metrics found in Keras 2, and settings files of the legacy framework count on."""

from __future__ import annotations

import functools
import inspect
from typing import Any

import keras

from experiments_manager.legacy import names
from experiments_manager.training.setup.metrics import OF_COMPILE, metric_by_name


def as_keras_2_did(metric: Any) -> Any:
    """Make a metric see what `compile` of Keras 2 showed it: targets of the rank and the type of the predictions."""
    if metric is None or (isinstance(metric, str) and metric.lower() in OF_COMPILE):
        return metric  # what Keras makes of these looks after the shapes itself
    if isinstance(metric, str):
        named, metric = metric, metric_by_name(metric, names.KERAS_2)
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
    return update_state(matched(y_true, y_pred), y_pred, *args, **kwargs)


def matched(y_true: Any, y_pred: Any) -> Any:
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

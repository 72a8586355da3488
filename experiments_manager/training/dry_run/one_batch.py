"""Loss, metrics and one batch of each split in a dry run, each looked at alone so that one does not hide the other."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from experiments_manager.compat import keras as keras_compat
from experiments_manager.settings import Settings
from experiments_manager.training.dry_run.findings import Findings
from experiments_manager.training.engine.steps import CompiledLoop, CompiledLoops, XlaScope
from experiments_manager.training.feeds.feed import Feed, Shape
from experiments_manager.training.hook_calls import hook_error, seeded
from experiments_manager.training.setup.boundary import at_work
from experiments_manager.training.setup.compilation import given_metrics, refuse_unknown_names
from experiments_manager.training.setup.experiment import Experiment
from experiments_manager.training.setup.metrics import OF_COMPILE, as_numbers, refuse_what_is_no_metric


@dataclasses.dataclass
class DryRunBatch:
    """What one batch of each split came to."""

    lines: list[str] = dataclasses.field(default_factory=list)
    traced: dict[str, Any] = dataclasses.field(default_factory=dict)
    """The traced steps."""
    logs: dict[str, float] = dataclasses.field(default_factory=dict)
    """Loss and metrics of training and validation, as an epoch logs them."""


def _outputs_and_targets(model: keras.Model, batch: Any) -> list[tuple[Any, Any, Any]]:
    """Return name, targets and predictions of each output; nothing where they cannot be told apart."""
    if not isinstance(batch, tuple) or len(batch) < 2 or batch[1] is None:
        return []
    x, y = batch[:2]
    outputs = model(x, training=False)
    if tf.is_tensor(outputs):
        y = tf.nest.flatten(y)
        return [(None, y[0], outputs)] if len(y) == 1 else []
    names = list(getattr(model, "output_names", None) or [])
    predicted = dict(outputs) if isinstance(outputs, Mapping) else dict(zip(names, outputs, strict=False))
    targets = dict(y) if isinstance(y, Mapping) else dict(zip(predicted, y, strict=False))
    return [(name, targets[name], value) for name, value in predicted.items() if targets.get(name) is not None]


def _of_output(given: Any, name: Any, position: int) -> list[Any]:
    """Return those of the losses or metrics given that are for one output."""
    if isinstance(given, Mapping):
        given = given.get(name, []) if name is not None else list(given.values())
    elif isinstance(given, (list, tuple)) and name is not None:
        given = given[position] if position < len(given) else []
    return _items(given)


def look_at_loss(
    settings: Settings, model: keras.Model, loss: Any, batch: Any, findings: Findings, *, real: bool
) -> bool:
    """Compute the loss of each output by itself; return whether it can be trained with."""
    if type(model).train_step is not keras.Model.train_step:
        return True
    works = True
    for position, (name, target, predicted) in enumerate(_outputs(model, batch)):
        given = _of_output(loss, name, position) if isinstance(loss, (Mapping, list, tuple)) else [loss]
        for item in given:
            error = _failure_of_loss(settings, item, target, predicted)
            if error is not None:
                works = False
                if real or settings.place_of(error.__cause__ or error) is not None or "returned" in str(error):
                    findings.add(error, "loss")
    return works


def _outputs(model: keras.Model, batch: Any) -> list[tuple[Any, Any, Any]]:
    try:
        return _outputs_and_targets(model, batch)
    except Exception:  # a model that does not run is told elsewhere
        return []


def _failure_of_loss(settings: Settings, loss: Any, target: Any, predicted: Any) -> Exception | None:
    try:
        with at_work(settings, "loss"):
            value = _value_of_loss(keras.losses.get(loss), target, predicted)
        if value is None:
            text = "it returned None. Expected a number, or one a sample, got None. Add `return`."
            raise hook_error(settings, "loss", text)
        if not tf.is_tensor(value) and not isinstance(value, (int, float, np.ndarray, np.number)):
            kind = type(value).__name__
            raise hook_error(settings, "loss", f"it returned {kind}. Expected a tensor, got {kind}. Return one.")
    except Exception as error:
        return error
    return None


def _value_of_loss(loss: Any, target: Any, predicted: Any) -> Any:
    """Return what a loss gives, of a function not reduced to one number; it sees what it sees in training."""
    if isinstance(loss, keras.losses.Loss):
        return loss(target, predicted)
    made = keras_compat.loss_of_function(loss)
    as_floats = functools.partial(keras.ops.convert_to_tensor, dtype=made.dtype)
    return made.call(*keras.tree.map_structure(as_floats, (target, predicted)))


def look_at_metrics(
    settings: Settings, model: keras.Model, loss: Any, batch: Any, findings: Findings, *, real: bool
) -> tuple[Any, list[str]]:
    """Compute each metric by itself; return them as they were given, less those that fail, and the names of these."""
    metrics = None
    with findings.part("metrics"), seeded(settings, "optimizer"):
        metrics = given_metrics(settings, model, loss)
    bad: list[Any] = []
    for item in _items(metrics):
        before = findings.count
        with findings.part("metrics"):
            refuse_what_is_no_metric(settings, item)
            refuse_unknown_names(settings, "metrics", item, keras.metrics)
        if findings.count > before:
            bad.append(item)
    if type(model).train_step is not keras.Model.train_step:
        return _without(metrics, bad), [_name_of(item) for item in bad]
    outputs = _outputs(model, batch)
    for position, (name, target, predicted) in enumerate(outputs):
        for item in _of_output(metrics, name if len(outputs) > 1 else None, position):
            if (isinstance(item, str) and item in OF_COMPILE) or any(item is other for other in bad):
                continue
            error = _failure_of_metric(settings, item, target, predicted)
            if error is not None:
                bad.append(item)
                if real or settings.place_of(error.__cause__ or error) is not None or "returned" in str(error):
                    findings.add(error, "metrics")
    return _without(metrics, bad), [_name_of(item) for item in bad]


def _items(nest: Any) -> list[Any]:
    """Return what is in lists and dicts, whatever their keys."""
    if isinstance(nest, Mapping):
        return [item for part in nest.values() for item in _items(part)]
    if isinstance(nest, (list, tuple)):
        return [item for part in nest for item in _items(part)]
    return [] if nest is None else [nest]


def _without(nest: Any, bad: list[Any]) -> Any:
    if isinstance(nest, Mapping):
        return {key: _without(part, bad) for key, part in nest.items()}
    if isinstance(nest, (list, tuple)):
        return [_without(part, bad) for part in nest if not any(part is item for item in bad)]
    return None if any(nest is item for item in bad) else nest


def _name_of(metric: Any) -> str:
    return str(getattr(metric, "name", None) or getattr(metric, "__name__", None) or metric)


def _failure_of_metric(settings: Settings, item: Any, target: Any, predicted: Any) -> Exception | None:
    """Return what is wrong with one metric, `None` where nothing is; its state is as before."""
    name = _name_of(item)
    try:
        with at_work(settings, "metrics"):
            metric = keras.metrics.get(item) if isinstance(item, str) else item
            if settings.dialect.keras_names and isinstance(item, str):
                return None  # former names are understood when it is compiled
            value = metric(settings.dialect.targets(target, predicted), predicted)
            if isinstance(metric, keras.metrics.Metric):
                metric.reset_state()
        if value is None:
            text = f"{name!r} returned None. Expected a number, got None. Add `return`."
            raise hook_error(settings, "metrics", text)
    except Exception as error:
        return error
    return None


def one_batch(experiment: Experiment, test: Feed | None, findings: Findings) -> DryRunBatch:
    """Run one training step, and one step of validation and test, compiled as they will be."""
    model, batch = experiment.model, DryRunBatch()
    with contextlib.ExitStack() as stack:
        for feed in filter(None, (experiment.train, experiment.validation, test)):
            stack.enter_context(contextlib.closing(feed))
        trains = False
        with findings.part("training"):
            xla = XlaScope.by_step(experiment.settings.jit_compile)
            loops = CompiledLoops.of(dataclasses.replace(experiment, validation=None), xla=xla)
            model.reset_metrics()
            steps = loops.train(source_of(experiment.train), 0, 1)
            batch.logs |= as_numbers(steps.logs)
            batch.traced |= loops.traced
            batch.lines.append(f"one step    {_values(steps.logs)}")
            trains = True
            if not steps.finite and findings.is_clean:
                findings.say("loss", _not_finite("train", experiment.train))
        for feed in filter(None, (experiment.validation, test)):
            with findings.part("dataset" if trains else "training"):
                _evaluate(experiment, feed, batch, findings)
    return batch


def _evaluate(experiment: Experiment, feed: Feed, batch: DryRunBatch, findings: Findings) -> None:
    loop = CompiledLoop.for_evaluation(experiment, feed, xla=XlaScope.by_step(experiment.settings.jit_compile))
    traced = loop.trace()
    experiment.model.reset_metrics()
    result = loop(source_of(feed), 0, 1)
    if feed.split == "validation":
        batch.traced["validation"] = traced
        experiment.state.include([traced], [*experiment.exchanged])
        batch.logs |= {f"val_{name}": value for name, value in as_numbers(result.logs).items()}
        batch.lines.append(f"validation  {_values(result.logs)}")
    if not result.finite and findings.is_clean:
        findings.say("loss", _not_finite(feed.split, feed))


def _not_finite(split: str, feed: Feed) -> str:
    return (
        f"the loss of the first batch of the {split} split is NaN or infinite (batch: {Shape.of(feed.spec).text}). "
        "Expected a finite number. Look for such values, logarithms and divisions by zero, and at `learning_rate`."
    )


def source_of(feed: Feed) -> Any:
    """Return what the first batch comes from; of a stream, which may have none yet, the batch that built the model."""
    if feed.never_ends:
        return iter(tf.data.Dataset.from_tensors(feed.sample_batch()))
    return feed.open(0)


def _values(logs: Mapping[str, tf.Tensor]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in as_numbers(logs).items())

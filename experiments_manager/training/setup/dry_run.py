"""The dry run: everything a training does before its first step, and one batch through all of it."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any

import tensorflow as tf

from experiments_manager.settings import Settings
from experiments_manager.settings.legacy.working_directory import as_in_run_folder
from experiments_manager.training.devices.devices import prepared_devices
from experiments_manager.training.engine.exactness import inexact_reasons
from experiments_manager.training.engine.steps import CompiledLoops, as_numbers
from experiments_manager.training.engine.user_callbacks import UserCallbacks
from experiments_manager.training.engine.user_objects import user_state_of
from experiments_manager.training.feeds.feed import Feed, Shape
from experiments_manager.training.feeds.pipeline_probe import differ
from experiments_manager.training.feeds.stream_feed import StreamFeed
from experiments_manager.training.setup.experiment import Experiment, build_experiment, feed_for


@dataclasses.dataclass(frozen=True)
class DryRun:
    """What a dry run saw."""

    lines: list[str]
    """Printable rows: data, model, loss, metrics, memory, serving."""
    parameters: int
    """Trainable scalars."""
    trainable: bool = True


def dry_run(settings: Settings) -> DryRun:
    """Build the experiment and run one batch of each split through model, loss, metrics and serving function.

    Nothing is written.

    Args:
        settings: Checked settings.

    Returns:
        What was seen.

    Raises:
        UserCodeError: If a hook raises.
        TrainingError: If data, model and settings do not fit together.
        SettingsError: If a hook returns what it must not.
    """
    with prepared_devices(settings) as devices, as_in_run_folder(settings):
        experiment = build_experiment(settings, devices)
        lines = [f"devices     {', '.join(devices.names)}"]
        lines += [_split_line(split, feed) for split, feed in _feeds(settings, experiment)]
        lines += _model_lines(experiment)
        batch_lines, steps = _one_batch(experiment)
        lines += batch_lines
        lines += _serving_lines(experiment)
        lines += _exactness_lines(settings, experiment, steps)
    return DryRun(lines, _trainable(experiment))


def _feeds(settings: Settings, experiment: Experiment) -> list[tuple[str, Feed | None]]:
    try:
        test = feed_for(settings, "test", follow=False)
    except Exception:  # a test split is not owed: hooks of many files know train and validation alone
        test = None
    return [("train", experiment.train), ("validation", experiment.validation), ("test", test)]


def _split_line(split: str, feed: Feed | None) -> str:
    if feed is None:
        return f"{split:<11} none"
    steps = "unknown number of batches" if feed.steps is None else f"{feed.steps} batches"
    return f"{split:<11} {Shape.of(feed.spec).text}; {steps}; position: {feed.kind}"


def _trainable(experiment: Experiment) -> int:
    return sum(int(tf.size(weight)) for weight in experiment.model.trainable_weights)


def _model_lines(experiment: Experiment) -> list[str]:
    model, state = experiment.model, experiment.state
    trainable = _trainable(experiment)
    frozen = sum(int(tf.size(weight)) for weight in model.non_trainable_weights)
    held = sum(variable.dtype.size * int(tf.size(variable)) for variable in state.variables.values())
    return [
        f"model       {model.name}: {trainable:,} trainable and {frozen:,} other parameters",
        f"memory      {held / 2**20:.1f} MiB for weights, optimiser and averages",
        f"optimizer   {type(model.optimizer).__name__}, learning rate {state.learning_rate:g}",
        f"watched     {experiment.monitor.name}, {experiment.monitor.mode}imum",
    ]


def _exactness_lines(settings: Settings, experiment: Experiment, steps: dict[str, Any]) -> list[str]:
    """Return whether a resume would be exact; pipelines are read twice from the same seed for it."""
    callbacks = UserCallbacks(experiment.callbacks, experiment.model, settings.epochs, experiment.train.steps)
    feeds = (experiment.train, experiment.validation)
    reasons = inexact_reasons(settings, feeds, steps, callbacks) + user_state_of(experiment).reasons
    reasons += [
        f"the {feed.split} data: two passes from the same seed differ"
        for feed in feeds
        if isinstance(feed, StreamFeed) and not feed.inexact_reasons and differ(feed.beginning(), feed.beginning())
    ]
    return [f"resume      not exact: {reason}" for reason in reasons] or ["resume      exact"]


def _one_batch(experiment: Experiment) -> tuple[list[str], dict[str, Any]]:
    """Run one training step and one validation step, compiled as they will be: lines, and the traced steps."""
    model, loops = experiment.model, CompiledLoops.of(experiment)
    model.reset_metrics()
    with contextlib.ExitStack() as stack:
        for feed in filter(None, (experiment.train, experiment.validation)):
            stack.enter_context(contextlib.closing(feed))
        steps = loops.train(_source(experiment.train), 0, 1)
        lines = [f"one step    {_values(steps.logs)}"]
        if loops.validation is not None:
            model.reset_metrics()
            lines.append(f"validation  {_values(loops.validation(_source(experiment.validation), 0, 1).logs)}")
    if not steps.finite:
        lines.append("warning     the loss of the first batch is NaN or infinite")
    return lines, loops.traced


def _source(feed: Feed) -> Any:
    """Return what the first batch comes from; of a stream, which may have none yet, the batch that built the model."""
    if feed.never_ends:
        return iter(tf.data.Dataset.from_tensors(feed.sample_batch()))
    return feed.open(0)


def _values(logs: dict[str, tf.Tensor]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in as_numbers(logs).items())


def _serving_lines(experiment: Experiment) -> list[str]:
    servable = experiment.servable
    if servable is None:
        if experiment.export_problem:
            return [f"warning     the model cannot be served: {experiment.export_problem}"]
        return ["serving     off (export = False)"]
    outputs = servable(servable.probe(experiment.train.sample_batch(), 1))
    inputs = ", ".join(f"{name} {tuple(spec.shape)} {spec.dtype.name}" for name, spec in servable.inputs.items())
    results = ", ".join(f"{name} {tuple(value.shape)} {value.dtype.name}" for name, value in outputs.items())
    return [f"serving     {inputs} -> {results}"]

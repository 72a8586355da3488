"""What is watched in a run, as the settings say."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence

import keras

from experiments_manager.common.suggestions import did_you_mean
from experiments_manager.settings import Settings
from experiments_manager.training.feeds.feed import Feed
from experiments_manager.training.hook_calls import hook_error
from experiments_manager.training.setup.compilation import lowers_learning_rate
from experiments_manager.training.setup.metrics import as_numbers
from experiments_manager.training.state.monitor import Monitor

logger = logging.getLogger(__name__)


def monitor_of(
    settings: Settings,
    model: keras.Model,
    train: Feed,
    validation: Feed | None,
    replaced: Collection[str] = (),
    further_measures: Callable[[Settings, Sequence[str]], Sequence[str]] | None = None,
) -> Monitor:
    """Return what decides which epoch is the best.

    Args:
        settings: Checked settings.
        model: The compiled model.
        train: The training data.
        validation: The validation data, if any.
        replaced: Keys of callbacks in a legacy file that took the place of what the engine does.
        further_measures: Gives the names that are measured beside those of the model, from these.
    """
    monitor = settings.monitor
    if validation is None and monitor == "val_loss":
        monitor = "loss"
        logger.warning("There is no validation data, so the training loss decides which epoch is the best.")
    names = list(as_numbers(model.get_metrics_result())) if type(model).train_step is keras.Model.train_step else []
    names += [f"prequential_{name}" for name in names] if settings.prequential else []
    known = [*names, *(f"val_{name}" for name in names if validation is not None)]
    known += further_measures(settings, names) if further_measures else ()
    if known and monitor not in known:
        remedy = did_you_mean(monitor, known, "Add it to `metrics`, or watch another.", shown="'{}'")
        if validation is None and monitor.startswith("val_"):
            remedy = "There is no validation data: let `dataset` return some, or watch another."
        text = f"Nothing of this name is measured. Expected one of {', '.join(known)}, got {monitor!r}. {remedy}"
        raise hook_error(settings, "monitor", text)
    if train.never_ends and settings.is_given("early_stopping_patience") and settings.early_stopping_patience:
        logger.warning(
            "early_stopping_patience has no effect on a live topic, where the latest epoch counts as the best. "
            "kafka_idle_timeout or a signal ends the run."
        )
    keys = settings.dialect.replaced_by_callbacks
    lowered = lowers_learning_rate(settings, model.optimizer) and keys.get("plateau") not in replaced
    return Monitor.make(
        monitor,
        settings.monitor_mode,
        min_delta=settings.early_stopping_min_delta,
        patience=None if keys.get("early_stopping") in replaced else settings.early_stopping_patience,
        plateau_patience=settings.reduce_lr_patience if lowered else None,
        plateau_min_delta=settings.reduce_lr_min_delta,
        takes_latest=train.never_ends,
    )

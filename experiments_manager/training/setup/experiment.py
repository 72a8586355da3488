"""From checked settings to everything that trains: data, model, optimiser, averages, serving function."""

from __future__ import annotations

import dataclasses
import difflib
import logging
from collections.abc import Callable, Collection
from typing import Any

import keras
import tensorflow as tf

from experiments_manager.export.servable import ExportError, Servable, servable_from_hook, servable_from_model
from experiments_manager.settings import Lazy, Settings
from experiments_manager.training.engine.steps import as_numbers
from experiments_manager.training.errors import DataError
from experiments_manager.training.feeds.factory import make_feed
from experiments_manager.training.feeds.feed import Feed, Shape, x_and_y
from experiments_manager.training.feeds.stream_feed import StreamFeed
from experiments_manager.training.feeds.topics.topic_setup import topic_feed, topic_of
from experiments_manager.training.local.shared_arrays import shared
from experiments_manager.training.setup.compilation import compiled_model, lowers_learning_rate
from experiments_manager.training.setup.devices import Devices
from experiments_manager.training.setup.hooks import hook_error, located_at_hook, seeded
from experiments_manager.training.setup.other_data import data_like_training
from experiments_manager.training.setup.seeds import derive, reseed_for_pipeline
from experiments_manager.training.state.averaging import Averages
from experiments_manager.training.state.host_generators import states_of
from experiments_manager.training.state.monitor import Monitor
from experiments_manager.training.state.reachable import generators_of
from experiments_manager.training.state.state import TrainingState

logger = logging.getLogger(__name__)


@dataclasses.dataclass
class Experiment:
    """An experiment, ready to train."""

    settings: Settings
    devices: Devices
    model: keras.Model
    train: Feed
    validation: Feed | None
    state: TrainingState
    monitor: Monitor
    class_weight: dict[int, float] | None
    servable: Servable | None
    export_problem: str | None
    """Why there is no servable although one was asked for."""
    callbacks: list[keras.callbacks.Callback]


def build_experiment(
    settings: Settings,
    devices: Devices,
    run: Any = None,
    *,
    with_export: bool = True,
    follow: bool = True,
    shares_arrays: bool = False,
    trains_here: bool = True,
) -> Experiment:
    """Call the hooks in their order and build model, optimiser and state.

    Everything random in a hook follows from the seed and the hook's name alone, so the same run built in another
    process, to resume it, is the same.

    Args:
        settings: Checked settings.
        devices: From `prepared_devices`, whose scope must be open.
        run: The run, for hooks that ask for it.
        with_export: Whether a serving function is traced.
        follow: Whether it is to be trained; else topics are looked at as they are now, whatever the run read of them.
        shares_arrays: Whether the arrays of several clients of a federation are trained on in turn.
        trains_here: Whether there must be training data; else the validation data may stand for it.

    Raises:
        UserCodeError: If a hook raises.
        DataError: If the data cannot be trained on.
        TrainingError: If model, data and settings do not fit together.
    """
    with located_at_hook(settings, "dataset"):
        train, validation = _feeds(settings, run, follow, trains_here)
        train = shared(train) if shares_arrays else train
        return experiment_on(settings, devices, train, validation, run, with_export=with_export)


def _feeds(settings: Settings, run: Any, follow: bool, trains_here: bool) -> tuple[Feed, Feed | None]:
    """Return the data to train and to validate on."""
    with seeded(settings, "prepare_datasets"):
        if settings.has("prepare_datasets"):
            settings.call("prepare_datasets", run=run)
    if trains_here:
        train = feed_for(settings, "train", run if follow else None, follow=follow)
    else:
        train = data_like_training(settings, feed_for)
    if train is None:
        raise DataError(
            "dataset: there is no training data. Expected arrays, a `tf.data.Dataset` or a `keras.utils.PyDataset` "
            'for the split "train", got None.'
        )
    validation = feed_for(settings, "validation", run if follow else None, follow=follow)
    return train, validation


def experiment_on(
    settings: Settings,
    devices: Devices,
    train: Feed,
    validation: Feed | None,
    run: Any = None,
    *,
    with_export: bool = True,
) -> Experiment:
    """Build model, optimiser and state for data that is there already; see `build_experiment`."""
    model = compiled_model(settings, train)
    _check_embeddings(settings, model)
    averages = Averages(model.trainable_variables, settings.ema_momentum) if settings.ema_momentum else None
    step = tf.Variable(0, dtype=tf.int64, trainable=False, name="step", aggregation=_FIRST)
    state = TrainingState(model, step, averages)
    given = _given_callbacks(settings, model, train, validation, run)
    servable, problem = _servable(settings, model, train, run) if with_export and settings.export else (None, None)
    return Experiment(
        settings=settings,
        devices=devices,
        model=model,
        train=train,
        validation=validation,
        state=state,
        monitor=_monitor(settings, model, train, validation, replaced=given if isinstance(given, dict) else ()),
        class_weight=_class_weight(settings, train),
        servable=servable,
        export_problem=problem,
        callbacks=_checked_callbacks(settings, given),
    )


_FIRST = tf.VariableAggregation.ONLY_FIRST_REPLICA


def feed_for(settings: Settings, split: str, run: Any = None, *, follow: bool = True) -> Feed | None:
    """Return the feed of a split: of its topic, or the one that suits what the `dataset` hook returns.

    Args:
        settings: Checked settings.
        split: `train`, `validation` or `test`.
        run: The run, which keeps what it reads of a topic.
        follow: Whether a live topic is followed; else it ends where it ends now.
    """
    topic = topic_of(settings, split)
    if topic is None:
        return dataset_feed(settings, split)
    training = split == "train"
    augment = _augment(settings) if training and settings.has("augment") else None
    steps = _epoch_steps(settings, training)
    return topic_feed(settings, split, topic, run, steps_per_epoch=steps, augment=augment, follow=follow)


def dataset_feed(settings: Settings, split: str) -> Feed | None:
    """Call the `dataset` hook for a split and make the feed that suits its result."""
    training = split == "train"

    def build(number: int) -> Any:
        # Validation comes in the same order each time: its sums then have the same last bits.
        reseed_for_pipeline(derive(settings.random_seed, "dataset", split, number if training else 0))
        hook = "test_data" if split == "test" and settings.has("test_data") else "dataset"
        before = states_of(generators_of(settings.user_modules))
        data = settings.call(hook, split=split, epoch=number)
        drawn.update(
            name
            for name, state in states_of(generators_of(settings.user_modules)).items()
            if state != before.get(name, state)
        )
        return data

    drawn: set[str] = set()
    with located_at_hook(settings, "dataset"):
        feed = make_feed(
            build,
            split=split,
            batch_size=settings.batch_size,
            seed=settings.random_seed,
            steps_per_epoch=_epoch_steps(settings, training),
            likely_steps=_steps_from_size(settings, training),
            shuffle=settings.shuffle and training,
            augment=_augment(settings) if training and settings.has("augment") else None,
            rebuild=settings.rebuild_dataset,
            varies=settings.asks_for("dataset", "epoch"),
            allow_nan=settings.allow_nan,
        )
    if isinstance(feed, StreamFeed):
        feed.built_with(sorted(drawn))
    return feed


def _epoch_steps(settings: Settings, training: bool) -> int | None:
    return (settings.steps_per_epoch if training else settings.validation_steps) or None


def _steps_from_size(settings: Settings, training: bool) -> int | None:
    """Return the batches by the number of samples, which only helps where a pipeline cannot tell its own length."""
    size = settings.train_size if training else settings.validation_size
    return size // settings.batch_size or None if size else None


def _augment(settings: Settings) -> Callable[..., Any]:
    changes_both = settings.asks_for("augment", "y")

    def augment(x: Any, y: Any, seed: tf.Tensor) -> Any:
        changed = settings.call("augment", x=x, y=y, seed=seed)
        return changed if changes_both else (changed, y)

    return augment


def _class_weight(settings: Settings, train: Feed) -> dict[int, float] | None:
    if not settings.has("class_weight"):
        return None
    weights = settings.resolve("class_weight", train_data=Lazy(train.as_dataset))
    if not isinstance(train.spec, tuple) or len(train.spec) < 2 or tf.nest.is_nested(train.spec[1]):
        text = f"Expected data of the form (x, y) with one array y, got {Shape.of(train.spec).text}."
        raise hook_error(settings, "class_weight", f"{text} Give sample weights as the third part of the data instead.")
    return {int(label): float(weight) for label, weight in weights.items()} if weights else None


def _given_callbacks(settings: Settings, model: keras.Model, train: Feed, validation: Feed | None, run: Any) -> Any:
    if not settings.has("callbacks"):
        return []
    return settings.resolve(
        "callbacks",
        model=model,
        train_data=Lazy(train.as_dataset),
        validation_data=Lazy(lambda: validation.as_dataset() if validation else None),
        run=run,
    )


def _checked_callbacks(settings: Settings, given: Any) -> list[keras.callbacks.Callback]:
    found = list(given.values()) if isinstance(given, dict) else list(given or [])
    for callback in found:
        if not isinstance(callback, keras.callbacks.Callback):
            text = f"Expected a list or dict of Keras callbacks, got a {type(callback).__name__} in it. Remove it."
            raise hook_error(settings, "callbacks", text)
    return found


def _check_embeddings(settings: Settings, model: keras.Model) -> None:
    """Refuse layers whose outputs cannot be looked at, before hours of training rather than after them."""
    if not settings.embeddings or not settings.tensorboard:
        return
    names = [layer.name for layer in model.layers]
    for name in settings.embeddings:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            remedy = f"Write {near[0]!r}." if near else "Name one of these."
            text = f"The model has no such layer. Expected some of {', '.join(names)}, got {name!r}. {remedy}"
            raise hook_error(settings, "embeddings", text)
        try:
            keras.Model(model.inputs, model.get_layer(name).output)
        except (AttributeError, ValueError, KeyError) as error:
            text = (
                f"The output of layer {name!r} cannot be reached. Expected a layer that is called once, directly in a "
                "functional or sequential model. Name another layer, or leave `embeddings` out for the model's outputs."
            )
            raise hook_error(settings, "embeddings", text) from error


_EARLY_STOPPING, _PLATEAU = "earlystopping_callback", "reduceLROnPlateau_callback"
"""Keys under which callbacks of a legacy file took the place of what the framework did by itself."""


def _monitor(
    settings: Settings, model: keras.Model, train: Feed, validation: Feed | None, replaced: Collection[str] = ()
) -> Monitor:
    monitor = settings.monitor
    if validation is None and monitor == "val_loss":
        monitor = "loss"
        logger.warning("There is no validation data, so the training loss decides which epoch is the best.")
    names = list(as_numbers(model.get_metrics_result())) if type(model).train_step is keras.Model.train_step else []
    names += [f"prequential_{name}" for name in names] if settings.prequential else []
    known = [*names, *(f"val_{name}" for name in names if validation is not None)]
    if known and monitor not in known:
        near = difflib.get_close_matches(monitor, known, n=1)
        remedy = f"Write {near[0]!r}." if near else "Add it to `metrics`, or watch another."
        text = f"Nothing of this name is measured. Expected one of {', '.join(known)}, got {monitor!r}. {remedy}"
        raise hook_error(settings, "monitor", text)
    if train.never_ends and settings.is_given("early_stopping_patience") and settings.early_stopping_patience:
        logger.warning(
            "early_stopping_patience has no effect on a live topic, where the latest epoch counts as the best. "
            "kafka_idle_timeout or a signal ends the run."
        )
    replaced = replaced if settings.is_legacy else ()
    lowered = lowers_learning_rate(settings, model.optimizer) and _PLATEAU not in replaced
    return Monitor.make(
        monitor,
        settings.monitor_mode,
        min_delta=settings.early_stopping_min_delta,
        patience=None if _EARLY_STOPPING in replaced else settings.early_stopping_patience,
        plateau_patience=settings.reduce_lr_patience if lowered else None,
        plateau_min_delta=settings.reduce_lr_min_delta,
        takes_latest=train.never_ends,
    )


def _servable(settings: Settings, model: keras.Model, train: Feed, run: Any) -> tuple[Servable | None, str | None]:
    """Trace the serving function; a model that cannot be served is trained all the same."""
    name = settings.model_name
    try:
        if settings.has("serving"):
            served = settings.call("serving", model=model, model_name=name, run=run)
            return servable_from_hook(served, model, model_name=name, where=settings.location("serving")), None
        x, _ = x_and_y(train.sample_batch())
        names = {"input_names": settings.input_names, "output_names": settings.output_names}
        return servable_from_model(model, x, model_name=name, **names), None
    except ExportError as error:
        return None, str(error)

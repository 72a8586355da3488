"""From checked settings to everything that trains: data, model, optimiser, averages, serving function."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping
from typing import Any

import keras
import tensorflow as tf

from experiments_manager.common.suggestions import did_you_mean
from experiments_manager.export.servable import ExportError, Servable, servable_from_hook, servable_from_model
from experiments_manager.settings import Settings
from experiments_manager.training.devices.devices import Devices
from experiments_manager.training.errors import DataError
from experiments_manager.training.feeds.factory import make_feed
from experiments_manager.training.feeds.feed import Feed, x_and_y
from experiments_manager.training.feeds.pipelines import python_of
from experiments_manager.training.feeds.stream_feed import StreamFeed
from experiments_manager.training.feeds.topics.topic_setup import topic_feed, topic_of
from experiments_manager.training.local.shared_feed import SharedFeed
from experiments_manager.training.local.shifted_schedule import ShiftedSchedule, shift_schedule
from experiments_manager.training.setup.boundary import at_work
from experiments_manager.training.setup.callbacks import checked_callbacks, given_callbacks
from experiments_manager.training.setup.class_weights import ClassWeights, class_weights_of, output_rank
from experiments_manager.training.setup.compilation import compiled_model
from experiments_manager.training.setup.fitting import refuse_misfits
from experiments_manager.training.setup.hooks import hook_error, located_at_hook, seeded
from experiments_manager.training.setup.monitors import monitor_of
from experiments_manager.training.setup.other_data import data_like_training
from experiments_manager.training.setup.seeds import derive, reseed_for_pipeline
from experiments_manager.training.state.averaging import Averages
from experiments_manager.training.state.host_generators import states_of
from experiments_manager.training.state.monitor import Monitor
from experiments_manager.training.state.reachable import generators_of
from experiments_manager.training.state.state import TrainingState
from experiments_manager.training.state.user_state import Roots, UserState

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
    class_weight: ClassWeights | None
    servable: Servable | None
    export_problem: str | None
    """Why there is no servable although one was asked for."""
    callbacks: list[keras.callbacks.Callback]
    schedule: ShiftedSchedule | None = None
    """The learning rate's, where clients of a federation are trained and it has one."""

    @property
    def exchanged(self) -> list[tf.Variable]:
        """Variables of the engine's own in the training step, which are set before each training and are no state."""
        table = self.class_weight.variables if self.class_weight else []
        return [*table, *([self.schedule.steps_before] if self.schedule else [])]


def build_experiment(
    settings: Settings,
    devices: Devices,
    run: Any = None,
    *,
    with_export: bool = True,
    follow: bool = True,
    for_clients: bool = False,
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
        for_clients: Whether clients of a federation are trained in turn.
        trains_here: Whether there must be training data; else the validation data may stand for it.

    Raises:
        UserCodeError: If a hook raises.
        DataError: If the data cannot be trained on.
        TrainingError: If model, data and settings do not fit together.
    """
    with located_at_hook(settings, "dataset"):
        train, validation = _feeds(settings, run, follow, trains_here)
        train = SharedFeed(train) if for_clients else train
        return experiment_on(
            settings, devices, train, validation, run, with_export=with_export, for_clients=for_clients
        )


def prepare_datasets(settings: Settings, run: Any) -> None:
    """Call the hook that comes before the data."""
    with seeded(settings, "prepare_datasets"), at_work(settings, "prepare_datasets"):
        if settings.has("prepare_datasets"):
            settings.call("prepare_datasets", run=run)


def _feeds(settings: Settings, run: Any, follow: bool, trains_here: bool) -> tuple[Feed, Feed | None]:
    """Return the data to train and to validate on."""
    prepare_datasets(settings, run)
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
    for_clients: bool = False,
) -> Experiment:
    """Build model, optimiser and state for data that is there already; see `build_experiment`."""
    experiment = bare_experiment(settings, devices, train, momentum=settings.ema_momentum, for_clients=for_clients)
    model = experiment.model
    if validation is not None:
        refuse_misfits(settings, model, validation, getattr(model, "loss", None))
    check_embeddings(settings, model)
    given = given_callbacks(settings, model, train, validation, run)
    replaced = given if isinstance(given, dict) else ()
    clients_evaluate = for_clients and bool(settings.federated.get("fraction_evaluate"))
    monitor = monitor_of(settings, model, train, validation, replaced, clients_evaluate=clients_evaluate)
    servable, problem = servable_of(settings, model, train, run) if with_export and settings.export else (None, None)
    return dataclasses.replace(
        experiment,
        validation=validation,
        monitor=monitor,
        servable=servable,
        export_problem=problem,
        callbacks=checked_callbacks(settings, given),
    )


def bare_experiment(
    settings: Settings, devices: Devices, train: Feed, *, momentum: float | None = None, for_clients: bool = False
) -> Experiment:
    """Build model, optimiser and state alone: nothing is validated, exported, or told to callbacks.

    Args:
        settings: Checked settings.
        devices: From `prepared_devices`, whose scope must be open.
        train: Data that is there already.
        momentum: Of the moving average of the weights; `None`: there is none.
        for_clients: Whether clients of a federation are trained in turn.
    """
    model = compiled_model(settings, train)
    weights = class_weights_of(settings, train)
    return experiment_of_model(settings, devices, model, train, weights, momentum=momentum, for_clients=for_clients)


def experiment_of_model(
    settings: Settings,
    devices: Devices,
    model: keras.Model,
    train: Feed,
    weights: Mapping[int, float] | None,
    *,
    momentum: float | None = None,
    for_clients: bool = False,
) -> Experiment:
    """Build the state around a model that is compiled and built, with weights of its classes; see `bare_experiment`."""
    averages = Averages(model.trainable_variables, momentum) if momentum else None
    schedule = shift_schedule(model.optimizer) if for_clients else None
    step = tf.Variable(0, dtype=tf.int64, trainable=False, name="step", aggregation=_FIRST)
    has_table = settings.has("class_weight") if for_clients else weights
    return Experiment(
        settings=settings,
        devices=devices,
        model=model,
        train=train,
        validation=None,
        state=TrainingState(model, step, averages),
        monitor=Monitor.make("loss", "min"),
        class_weight=(
            ClassWeights(weights, exchangeable=for_clients, output_rank=output_rank(model)) if has_table else None
        ),
        servable=None,
        export_problem=None,
        callbacks=[],
        schedule=schedule,
    )


_FIRST = tf.VariableAggregation.ONLY_FIRST_REPLICA


def feed_for(
    settings: Settings, split: str, run: Any = None, *, follow: bool = True, seed: int | None = None
) -> Feed | None:
    """Return the feed of a split: of its topic, or the one that suits what the `dataset` hook returns.

    Args:
        settings: Checked settings.
        split: `train`, `validation` or `test`.
        run: The run, which keeps what it reads of a topic.
        follow: Whether a live topic is followed; else it ends where it ends now.
        seed: Of the order of the samples; by default that of the settings.
    """
    topic = topic_of(settings, split)
    if topic is None:
        return dataset_feed(settings, split, seed=seed)
    training = split == "train"
    augment = _augment(settings) if training and settings.has("augment") else None
    steps = _epoch_steps(settings, training)
    return topic_feed(settings, split, topic, run, steps_per_epoch=steps, augment=augment, follow=follow, seed=seed)


def dataset_feed(settings: Settings, split: str, *, seed: int | None = None) -> Feed | None:
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
        if not untouched:
            untouched.append(_state_of_reader(settings, data))
        return data

    drawn: set[str] = set()
    untouched: list[UserState] = []
    with located_at_hook(settings, "dataset"), at_work(settings, "dataset"):
        feed = make_feed(
            build,
            split=split,
            batch_size=settings.batch_size,
            seed=settings.random_seed if seed is None else seed,
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
    if feed is not None:
        untouched[0].has_been_looked_at()
        feed.forget_looks = untouched[0].put_back_looks
    return feed


def _state_of_reader(settings: Settings, data: Any) -> UserState:
    """Return what the Python that reads data can reach, as it is before anybody has looked at the data."""
    python = python_of(data) if isinstance(data, tf.data.Dataset) else [data]
    reading = {"data": tuple(python)} if isinstance(data, tf.data.Dataset | keras.utils.PyDataset) and python else {}
    modules = settings.user_modules if reading else []
    state = UserState(Roots({}, reading=reading), modules, lambda variable: True, {})
    state.opens_pass()
    return state


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
        if changes_both and changed is not None and not isinstance(changed, tuple):
            text = f"it asks for y. Expected `(x, y)`, got {type(changed).__name__}. Return both."
            raise hook_error(settings, "augment", text)
        if not changes_both and isinstance(changed, tuple) and not isinstance(x, tuple):
            text = "it does not ask for y. Expected x alone, got a tuple. Return x, or add the parameter `y`."
            raise hook_error(settings, "augment", text)
        return changed if changes_both and changed is not None else (changed, y)

    return augment


def check_embeddings(settings: Settings, model: keras.Model) -> None:
    """Refuse layers whose outputs cannot be looked at, before hours of training rather than after them."""
    if not settings.embeddings or not settings.tensorboard:
        return
    names = [layer.name for layer in model.layers]
    for name in settings.embeddings:
        if name not in names:
            remedy = did_you_mean(name, names, "Name one of these.", shown="'{}'")
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


def servable_of(settings: Settings, model: keras.Model, train: Feed, run: Any) -> tuple[Servable | None, str | None]:
    """Trace the serving function; a model that cannot be served is trained all the same."""
    name = settings.model_name
    try:
        if settings.has("serving"):
            with at_work(settings, "serving"):
                served = settings.call("serving", model=model, model_name=name, run=run)
            return servable_from_hook(served, model, model_name=name, where=settings.location("serving")), None
        x, _ = x_and_y(train.sample_batch())
        names = {"input_names": settings.input_names, "output_names": settings.output_names}
        return servable_from_model(model, x, model_name=name, **names), None
    except ExportError as error:
        return None, str(error)

"""From checked settings to everything that trains: data, model, optimiser, averages, serving function."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import keras
import tensorflow as tf

from experiments_manager.common.suggestions import did_you_mean
from experiments_manager.export.servable import ExportError, Servable, servable_from_hook, servable_from_model
from experiments_manager.settings import Settings
from experiments_manager.training.devices.devices import Devices
from experiments_manager.training.feeds.feed import Feed, x_and_y
from experiments_manager.training.hook_calls import hook_error, located_at_hook
from experiments_manager.training.setup.boundary import at_work
from experiments_manager.training.setup.callbacks import checked_callbacks, given_callbacks
from experiments_manager.training.setup.class_weights import ClassWeights, class_weights_of, output_rank
from experiments_manager.training.setup.compilation import compiled_model
from experiments_manager.training.setup.datasets import train_and_validation
from experiments_manager.training.setup.fitting import refuse_misfits
from experiments_manager.training.setup.monitors import monitor_of
from experiments_manager.training.state.averaging import Averages
from experiments_manager.training.state.monitor import Monitor
from experiments_manager.training.state.state import TrainingState

logger = logging.getLogger(__name__)


class TurnSchedule(Protocol):
    """A schedule of the learning rate that goes by steps of the whole training, not by those of a turn."""

    steps_before: tf.Variable
    """Steps that were trained before the turn."""


@dataclasses.dataclass(frozen=True)
class InTurn:
    """How an experiment is built whose one compiled model is trained for several in turn, each with data of its own."""

    share_feed: Callable[[Feed], Feed]
    """Gives the feed that takes batches of whoever's turn it is, from the data of the first."""
    shift_schedule: Callable[[keras.optimizers.Optimizer | None], TurnSchedule | None]
    """Puts a shifted schedule into an optimizer, where it has one."""
    further_measures: Callable[[Settings, Sequence[str]], Sequence[str]]
    """Gives the names that are measured beside the model's own."""


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
    schedule: TurnSchedule | None = None
    """The learning rate's, where several are trained in turn and it has one."""

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
    in_turn: InTurn | None = None,
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
        in_turn: How several are trained in turn; `None`: the run trains by itself.
        trains_here: Whether there must be training data; else the validation data may stand for it.

    Raises:
        UserCodeError: If a hook raises.
        DataError: If the data cannot be trained on.
        TrainingError: If model, data and settings do not fit together.
    """
    with located_at_hook(settings, "dataset"):
        train, validation = train_and_validation(settings, run, follow, trains_here)
        train = in_turn.share_feed(train) if in_turn else train
        return experiment_on(settings, devices, train, validation, run, with_export=with_export, in_turn=in_turn)


def experiment_on(
    settings: Settings,
    devices: Devices,
    train: Feed,
    validation: Feed | None,
    run: Any = None,
    *,
    with_export: bool = True,
    in_turn: InTurn | None = None,
) -> Experiment:
    """Build model, optimiser and state for data that is there already; see `build_experiment`."""
    experiment = bare_experiment(settings, devices, train, momentum=settings.ema_momentum, in_turn=in_turn)
    model = experiment.model
    if validation is not None:
        refuse_misfits(settings, model, validation, getattr(model, "loss", None))
    check_embeddings(settings, model)
    given = given_callbacks(settings, model, train, validation, run)
    replaced = given if isinstance(given, dict) else ()
    further = in_turn.further_measures if in_turn else None
    monitor = monitor_of(settings, model, train, validation, replaced, further)
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
    settings: Settings, devices: Devices, train: Feed, *, momentum: float | None = None, in_turn: InTurn | None = None
) -> Experiment:
    """Build model, optimiser and state alone: nothing is validated, exported, or told to callbacks.

    Args:
        settings: Checked settings.
        devices: From `prepared_devices`, whose scope must be open.
        train: Data that is there already.
        momentum: Of the moving average of the weights; `None`: there is none.
        in_turn: How several are trained in turn, if they are.
    """
    model = compiled_model(settings, train)
    weights = class_weights_of(settings, train)
    return experiment_of_model(settings, devices, model, train, weights, momentum=momentum, in_turn=in_turn)


def experiment_of_model(
    settings: Settings,
    devices: Devices,
    model: keras.Model,
    train: Feed,
    weights: Mapping[int, float] | None,
    *,
    momentum: float | None = None,
    in_turn: InTurn | None = None,
) -> Experiment:
    """Build the state around a model that is compiled and built, with weights of its classes; see `bare_experiment`."""
    averages = Averages(model.trainable_variables, momentum) if momentum else None
    schedule = in_turn.shift_schedule(model.optimizer) if in_turn else None
    step = tf.Variable(0, dtype=tf.int64, trainable=False, name="step", aggregation=_FIRST)
    has_table = settings.has("class_weight") if in_turn else weights
    return Experiment(
        settings=settings,
        devices=devices,
        model=model,
        train=train,
        validation=None,
        state=TrainingState(model, step, averages),
        monitor=Monitor.make("loss", "min"),
        class_weight=(
            ClassWeights(weights, exchangeable=in_turn is not None, output_rank=output_rank(model))
            if has_table
            else None
        ),
        servable=None,
        export_problem=None,
        callbacks=[],
        schedule=schedule,
    )


_FIRST = tf.VariableAggregation.ONLY_FIRST_REPLICA


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

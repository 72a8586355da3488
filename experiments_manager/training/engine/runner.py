"""A run from start to end: its folder, its state, the loop, and how it ended, in `run.json` whatever happens."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from experiments_manager.common.machine.disk_space import reserved_space
from experiments_manager.events import RunStart, Watcher
from experiments_manager.runs import Run, RunError, create_run, find_run, lock
from experiments_manager.runs.interruption import interruption_recorded
from experiments_manager.runs.locking import RunLock
from experiments_manager.runs.run_settings import load_run_settings, warn_changed_files
from experiments_manager.runs.serving_setup import ServingSetup, write_serving_setup
from experiments_manager.settings import Settings
from experiments_manager.settings.hook_directory import session_folder, working_directory
from experiments_manager.settings.settings import Session
from experiments_manager.training.devices.devices import Devices, prepared_devices
from experiments_manager.training.engine.completion import (
    continue_hint,
    may_go_on,
    nothing_left_to_train,
    refuse_to_begin_again,
)
from experiments_manager.training.engine.context import UNWATCHED, Interrupted, RunOptions, TrainingContext
from experiments_manager.training.engine.exactness import check_data, exactness, fingerprints, inexact_reasons
from experiments_manager.training.engine.loop import train_epochs
from experiments_manager.training.engine.outcome import (
    RunResult,
    attributed_to_hooks,
    finish,
    recorded_end,
    report_end,
    result_of,
)
from experiments_manager.training.engine.recovery import begin_training, restore_latest
from experiments_manager.training.engine.step_hooks import (
    checkpoint,
    flush_events,
    publish_at_the_end,
    publish_what_waits,
    show_best,
)
from experiments_manager.training.feeds.feed import POSITIONS
from experiments_manager.training.hosts.follower import following, follows, meeting
from experiments_manager.training.hosts.membership import TrainingGroup, change_of_workers
from experiments_manager.training.hosts.team import WorkerLostError
from experiments_manager.training.observe.manifest_updates import ManifestUpdates
from experiments_manager.training.setup.data_dirs import found_data_dirs
from experiments_manager.training.setup.experiment import build_experiment
from experiments_manager.training.setup.model_summary import describe_model
from experiments_manager.training.setup.same_data import agree_on_topics

logger = logging.getLogger(__name__)


def start_run(
    settings: Settings,
    options: RunOptions = UNWATCHED,
    *,
    working_dir: Path | str | None = None,
    run_name: str | None = None,
    command: Sequence[str] = (),
) -> RunResult:
    """Make a run folder and train in it.

    Args:
        settings: The experiment.
        options: What surrounds the run.
        working_dir: Parent of the run folder; `settings.working_dir` by default.
        run_name: Exact name of the folder, instead of one made from session name, hparams and time.
        command: The command line, for the manifest.

    Returns:
        How it ended.

    Raises:
        RunError: If the folder cannot be made or written.
        UserCodeError: If a hook raises; `run.json` says `failed` then, and where.
        TrainingError: If the data, the devices or the numbers do not allow to train; `run.json` says `failed`.
    """
    if follows(settings):
        return _follow(settings, options)
    run = create_run(working_dir or settings.working_dir, settings.session_name, settings.hparams, run_name=run_name)
    with lock(run) as held:
        _start(run, settings, command, options)
        return _execute(run, settings, options, held=held)


def _start(run: Run, settings: Settings, command: Sequence[str], options: RunOptions) -> None:
    run.start(
        settings_file=settings.file,
        model_file=settings.model_file,
        command=command,
        overrides=settings.overrides,
        hparams=settings.hparams,
        settings=settings.values(),
        seed=settings.random_seed,
        **options.fields,
    )


def start_or_resume(
    settings: Settings,
    run_name: str,
    options: RunOptions = UNWATCHED,
    *,
    working_dir: Path | str | None = None,
    command: Sequence[str] = (),
) -> RunResult:
    """Resume the run of this name, or start it where there is none.

    So a training that a cluster kills and queues again has one command line. See `start_run` for the options.
    """
    run = find_run(working_dir or settings.working_dir, run_name)
    if run is None or (follows(settings) and not run.is_started):
        return start_run(settings, options, working_dir=working_dir, run_name=run_name, command=command)
    if not run.is_started:  # killed between the making of the folder and the first word in it
        with lock(run) as held:
            _start(run, settings, command, options)
            return _execute(run, settings, options, held=held)
    origin = {"settings_file": settings.file, "model_file": settings.model_file}
    return resume_run(run, settings.overrides, options, origin=origin)


def resume_run(
    run: Run,
    overrides: Mapping[str, Any] | Sequence[str] = (),
    options: RunOptions = UNWATCHED,
    *,
    origin: Mapping[str, Path | str | None] | None = None,
) -> RunResult:
    """Go on with a run from its newest whole checkpoint, with the code that it was started with.

    Args:
        run: The run.
        overrides: Settings to change from here on, e.g. more `epochs`. They are kept for later resumes once steps were
            trained with them.
        options: What surrounds the run.
        origin: The user's own `settings_file` and `model_file`, by default those that the run was started from. Where
            they were changed since then, that is told.

    Returns:
        How it ended. A run that is finished already is not trained further, and its folder stays as it is.

    Raises:
        KeyboardInterrupt: It was asked to stop while the settings were loaded.
    """
    with interruption_recorded(run), options.interruptible():
        settings = load_run_settings(run, overrides)
        warn_changed_files(run, origin)
    if nothing_left_to_train(run, settings):
        result = result_of(run, "finished")
        logger.warning("%s", continue_hint(result.epochs, result.stop_reason, run.unit))
        return result
    if follows(settings):
        return _follow(settings, options)
    with lock(run) as held:
        refuse_to_begin_again(run)
        former = run.manifest
        run.mark_resumed()
        return _execute(run, settings, options, former=former, held=held)


def _follow(settings: Settings, options: RunOptions) -> RunResult:
    """Train beside the chief, whose run folder alone stays."""
    with following(settings, options.interruptible) as (run, loaded, membership):
        unwatched = dataclasses.replace(options, make_watchers=lambda run, settings: ())
        former = {} if membership.resuming else None
        result = _execute(run, loaded, unwatched, membership=membership, former=former)
    return dataclasses.replace(result, run_dir=membership.run, exported_model=None)


def _execute(
    run: Run,
    settings: Settings,
    options: RunOptions,
    *,
    membership: TrainingGroup | None = None,
    former: Mapping[str, Any] | None = None,
    held: RunLock | None = None,
) -> RunResult:
    """Build, train and finish; whatever happens, the manifest says so. `former` is that of a run to go on with."""
    started = time.monotonic()
    folder = session_folder(settings, run.path)
    overrides = settings.overrides | found_data_dirs(
        settings, folder if settings.dialect.session_folder else Path.cwd()
    )
    changed = {"overrides": overrides, "hparams": settings.hparams, "settings": settings.values()}
    updates = ManifestUpdates(run, when_begun=changed if former else {})
    watchers: list[Watcher] = [updates]
    state = "failed"
    try:
        with (
            reserved_space(run.path),
            recorded_end(run, updates, former),
            attributed_to_hooks(settings),
            settings.active(),
            meeting(settings, run, membership, lambda: _start_up(options), resuming=former is not None) as membership,
            prepared_devices(settings, membership.cluster) as devices,
            working_directory(settings, folder, Session(str(folder), str(run.exports_dir), former is not None)),
        ):
            watchers += options.make_watchers(run, settings)
            if former is None:
                run.update(overrides=overrides)
            with _start_up(options):
                agree_on_topics(membership.team, settings, run)
                experiment = build_experiment(
                    settings, devices, run, in_turn=options.in_turn, trains_here=options.trains_here
                )
                context = TrainingContext.make(experiment, run, watchers, membership, former)
                context.folder = held and held.folder
            with contextlib.closing(context), contextlib.ExitStack() as stack:
                context.should_stop = lambda: membership.team.any(options.should_stop())
                with _start_up(options):
                    context.epoch_trainer = stack.enter_context(options.make_epoch_trainer(context))
                    _begin(context, devices, former, accept_changed_data=options.accept_changed_data)
                membership.team.begin_training()
                try:
                    train_epochs(context)
                    ended = "finished"
                    publish_at_the_end(context)
                    checkpoint(context)
                    show_best(context)
                except Interrupted:
                    ended = "interrupted"
                finally:  # also of a training that failed
                    publish_what_waits(context)
            flush_events(context)
            result = finish(context, ended, time.monotonic() - started)
            state = ended
            return result
    except Interrupted:
        state = "interrupted"
        return result_of(run, state)
    except (KeyboardInterrupt, WorkerLostError):
        state = "interrupted"
        raise
    finally:
        report_end(run, watchers, state, time.monotonic() - started, updates.reached)


@contextlib.contextmanager
def _start_up(options: RunOptions) -> Iterator[None]:
    """Do what comes before the first step, which does not wait for a step to end when it is asked to stop."""
    try:
        with options.interruptible():
            yield
    except KeyboardInterrupt as request:
        raise Interrupted from request


def _begin(
    context: TrainingContext, devices: Devices, former: Mapping[str, Any] | None, *, accept_changed_data: bool
) -> None:
    """Put the state back, and write and tell what the run is."""
    context.data, settings = fingerprints(context.experiment), context.experiment.settings
    check = functools.partial(check_data, context, accept=accept_changed_data)
    resumed = former is not None and restore_latest(context, check)
    progress = context.experiment.state.progress
    if resumed and may_go_on(progress, context.experiment.monitor.patience):
        progress.stop_reason = None  # more may have come of a stream; more patience goes on after early stopping
    if resumed and (change := change_of_workers(former, context.membership.team.size)):
        context.dispatch("on_message", change)
    describe_model(context.experiment.model, context.run.path)
    setup = ServingSetup(settings.server_host, settings.grpc_port, settings.rest_port, settings.model_name)
    write_serving_setup(context.run.path, setup)
    begin_training(context)
    _announce(context, devices, former if resumed else None)
    if progress.epoch >= settings.epochs or progress.stop_reason:
        context.dispatch("on_message", continue_hint(progress.epoch, progress.stop_reason, context.unit))


def _announce(context: TrainingContext, devices: Devices, former: Mapping[str, Any] | None) -> None:
    experiment, progress = context.experiment, context.experiment.state.progress
    feeds = (experiment.train, experiment.validation)
    reasons = [
        *context.data_changes,
        *inexact_reasons(experiment.settings, feeds, context.loops.traced, context.callbacks),
        *context.user_state.reasons,
        *((former or {}).get("exactness") or {}).get("reasons", ()),  # what was lost before stays lost
    ]
    context.inexact_reasons = list(dict.fromkeys(reasons))
    try:
        context.run.update(
            devices=list(devices.names),
            workers=context.membership.team.size,
            data_position=experiment.train.kind,
            xla=context.xla.to_json(),
            exactness=exactness(context.inexact_reasons),
        )
    except RunError as error:  # on_train_begin came before, and may have taken the last space; it may come back
        context.dispatch("on_message", f"{error} Training goes on.")
    weights = experiment.model.trainable_weights
    context.dispatch(
        "on_start",
        RunStart(
            run_dir=context.run.path,
            session_name=experiment.settings.session_name,
            hparams=experiment.settings.hparams,
            epochs=experiment.settings.epochs,
            first_epoch=progress.epoch + 1,
            steps_per_epoch=experiment.train.steps,
            parameters=sum(int(tf.size(weight)) for weight in weights),
            devices=devices.names,
            monitor=experiment.monitor.name,
            data_position=POSITIONS[experiment.train.kind],
            global_step=progress.global_step,
            first_step=progress.step,
            unit=context.unit,
            model_graph=context.viewer.graph,
            reached=progress.reached(experiment.monitor.name),
            inexact_reasons=tuple(context.inexact_reasons),
        ),
    )

"""A run from start to end: its folder, its state, the loop, and how it ended, in `run.json` whatever happens."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from experiments_manager.export.publisher import LOW_PRECISION_TOLERANCE, TOLERANCE, Publisher
from experiments_manager.export.versions import versions
from experiments_manager.export.warmup import warmup_requests
from experiments_manager.runs import Run, create_run, find_run, lock
from experiments_manager.runs.atomic import remove_leftovers, sync_files
from experiments_manager.runs.run_settings import load_run_settings
from experiments_manager.runs.serving_setup import ServingSetup, write_serving_setup
from experiments_manager.settings import Settings
from experiments_manager.settings.working_directory import working_directory
from experiments_manager.training.boundaries import checkpoint, publish, tell_news
from experiments_manager.training.building import Experiment, build_experiment
from experiments_manager.training.checkpoints import CheckpointWriter
from experiments_manager.training.description import describe_model
from experiments_manager.training.devices import Devices, prepared_devices
from experiments_manager.training.events import RunStart, Watcher
from experiments_manager.training.exactness import exactness, inexact_because
from experiments_manager.training.feed import POSITIONS
from experiments_manager.training.feeds import peek
from experiments_manager.training.job import Interrupted, Job
from experiments_manager.training.loop import STOPPED_BY_CALLBACK, train_epochs
from experiments_manager.training.manifest_updates import ManifestUpdates
from experiments_manager.training.outcome import RunResult, attributed, finish, recorded_failure, say_goodbye
from experiments_manager.training.recovery import restore_latest
from experiments_manager.training.user_callbacks import UserCallbacks

logger = logging.getLogger(__name__)

DATA_DIRS = ("train_data_dir", "validation_data_dir", "test_data_dir")
PROBE_SAMPLES = 1
"""Samples on which each exported version is compared with the live model; training waits for their way through it."""


MakeWatchers = Callable[[Run, Settings], Sequence[Watcher]]


def start_run(
    settings: Settings,
    *,
    working_dir: Path | str | None = None,
    run_name: str | None = None,
    command: Sequence[str] = (),
    make_watchers: MakeWatchers = lambda run, settings: (),
    should_stop: Callable[[], bool] = lambda: False,
) -> RunResult:
    """Makes a run folder and trains in it.

    Args:
        settings: The experiment.
        working_dir: Parent of the run folder; `settings.working_dir` by default.
        run_name: Exact name of the folder, instead of one made from session name, hparams and time.
        command: The command line, for the manifest.
        make_watchers: Gives those who are told of the run, once it has its folder.
        should_stop: Asked at step boundaries; a true answer ends the run as `interrupted`.

    Returns:
        How it ended.

    Raises:
        RunError: If the folder cannot be made or written.
        UserCodeError: If a hook raises; `run.json` says `failed` then, and where.
        TrainingError: If the data, the devices or the numbers do not allow to train; `run.json` says `failed`.
    """
    run = create_run(working_dir or settings.working_dir, settings.session_name, settings.hparams, run_name=run_name)
    with lock(run):
        _start(run, settings, command)
        return _execute(run, settings, make_watchers, should_stop)


def _start(run: Run, settings: Settings, command: Sequence[str]) -> None:
    run.start(
        settings_file=settings.file,
        model_file=settings.model_file,
        command=command,
        overrides=settings.overrides,
        hparams=settings.hparams,
        settings=settings.values(),
        seed=settings.random_seed,
    )


def start_or_resume(
    settings: Settings, run_name: str, working_dir: Path | str | None = None, **options: Any
) -> RunResult:
    """Continues the run of this name where there is one, and starts it where there is none.

    So a job that a cluster kills and queues again has one command line. See `start_run` for the options.
    """
    run = find_run(working_dir or settings.working_dir, run_name)
    if run is None:
        return start_run(settings, working_dir=working_dir, run_name=run_name, **options)
    if not run.is_started:  # killed between the making of the folder and the first word in it
        command = options.pop("command", ())
        with lock(run):
            _start(run, settings, command)
            return _execute(run, settings, **options)
    options.pop("command", None)
    return resume_run(run, settings.overrides, **options)


def resume_run(
    run: Run,
    overrides: Mapping[str, Any] | Sequence[str] = (),
    *,
    make_watchers: MakeWatchers = lambda run, settings: (),
    should_stop: Callable[[], bool] = lambda: False,
) -> RunResult:
    """Goes on with a run from its newest whole checkpoint, with the code that it was started with.

    Args:
        run: The run.
        overrides: Settings to change from here on, e.g. more `epochs`.
        make_watchers: As for `start_run`.
        should_stop: As for `start_run`.

    Returns:
        How it ended. A run that is finished already is not trained further.
    """
    settings = load_run_settings(run, overrides)
    with lock(run):
        run.mark_resumed(overrides=settings.overrides, hparams=settings.hparams, settings=settings.values())
        return _execute(run, settings, make_watchers, should_stop, resuming=True)


def _execute(
    run: Run,
    settings: Settings,
    make_watchers: MakeWatchers = lambda run, settings: (),
    should_stop: Callable[[], bool] = lambda: False,
    *,
    resuming: bool = False,
) -> RunResult:
    """Builds, trains and finishes; whatever happens, the manifest says so."""
    started = time.monotonic()
    watchers: list[Watcher] = [ManifestUpdates(run)]
    state, started_in = "failed", Path.cwd()
    try:
        with (
            recorded_failure(run),
            attributed(settings),
            settings.active(),
            prepared_devices(settings) as devices,
            working_directory(settings, run.path),
        ):
            watchers += make_watchers(run, settings)
            experiment = build_experiment(settings, devices, run)
            run.update(overrides=settings.overrides | _found_data_dirs(settings, started_in))
            describe_model(experiment.model, run.path)
            write_serving_setup(run.path, _serving_setup(settings))
            job = _make_job(experiment, run, watchers, should_stop)
            with contextlib.closing(job.checkpoints), _closing_publisher(job):
                if resuming and restore_latest(job):
                    _reconsider_stop(job)
                _announce(job, devices)
                _say_if_done(job)
                try:
                    train_epochs(job)
                    state = "finished"
                    _publish_at_the_end(job)
                    checkpoint(job)
                    _show_best(job)
                except Interrupted:
                    state = "interrupted"
            tell_news(job)
            return finish(job, state, time.monotonic() - started)
    finally:
        say_goodbye(run, watchers, state, time.monotonic() - started)


def _serving_setup(settings: Settings) -> ServingSetup:
    return ServingSetup(settings.server_host, settings.grpc_port, settings.rest_port, settings.model_name)


def _found_data_dirs(settings: Settings, started_in: Path) -> dict[str, str]:
    """Absolute paths of the data folders, so that a resume from another directory finds the same data."""
    given = {name: getattr(settings, name) for name in DATA_DIRS}
    return {
        name: str((started_in / path).resolve())
        for name, path in given.items()
        if isinstance(path, str | Path) and str(path) and (started_in / path).exists()
    }


def _make_job(experiment: Experiment, run: Run, watchers: list[Watcher], should_stop: Callable[[], bool]) -> Job:
    settings, model = experiment.settings, experiment.model
    callbacks = UserCallbacks(experiment.callbacks, model, settings.epochs, experiment.train.steps)
    run.checkpoints_dir.mkdir(exist_ok=True)
    remove_leftovers(run.checkpoints_dir)
    job = Job.make(
        experiment,
        run=run,
        callbacks=callbacks,
        checkpoints=CheckpointWriter(run.checkpoints_dir, settings.keep_checkpoints, lambda: sync_files(_logs(run))),
        publisher=_publisher(experiment, run),
        watchers=watchers,
        should_stop=should_stop,
    )
    if experiment.export_problem:
        job.tell("on_message", experiment.export_problem)
    return job


def _logs(run: Run) -> list[Path]:
    """Files that grow line by line."""
    return [run.metrics_csv, *run.logs_dir.rglob("events.out.tfevents.*")]


def _publisher(experiment: Experiment, run: Run) -> Publisher | None:
    servable, settings = experiment.servable, experiment.settings
    if servable is None:
        return None
    exact = experiment.devices.names == ("CPU",) and settings.mixed_precision is None and not settings.jit_compile
    tolerance = TOLERANCE if exact else LOW_PRECISION_TOLERANCE
    probe = servable.probe(experiment.train.sample_batch(), PROBE_SAMPLES)
    warmup = warmup_requests(servable, peek(experiment.validation, experiment.train))
    return Publisher(servable, run.exports_dir, probe, keep=settings.keep_versions, tolerance=tolerance, warmup=warmup)


@contextlib.contextmanager
def _closing_publisher(job: Job) -> Iterator[None]:
    try:
        yield
    finally:
        if job.publisher is not None:
            job.publisher.close()


def _reconsider_stop(job: Job) -> None:
    """A resume with more patience goes on where early stopping had ended the run."""
    progress, patience = job.experiment.state.progress, job.experiment.judge.patience
    by_patience = progress.stop_reason not in (None, STOPPED_BY_CALLBACK)
    if by_patience and (patience is None or progress.epochs_without_improvement < patience):
        progress.stop_reason = None


def _say_if_done(job: Job) -> None:
    progress, epochs = job.experiment.state.progress, job.experiment.settings.epochs
    if progress.epoch >= epochs or progress.stop_reason:
        reason = f": {progress.stop_reason}" if progress.stop_reason else ""
        text = (
            f"All is done already, in {progress.epoch} epochs{reason}. To train on, resume with more epochs or patience"
        )
        job.tell("on_message", f"{text}, e.g. `--set epochs={2 * progress.epoch}`.")


def _announce(job: Job, devices: Devices) -> None:
    experiment, progress = job.experiment, job.experiment.state.progress
    job.callbacks.state(experiment.state.holds)  # which finds what of them cannot be kept
    feeds = (experiment.train, experiment.validation)
    job.inexact_because = inexact_because(experiment.settings, feeds, job.traced, job.callbacks)
    job.run.update(
        devices=list(devices.names),
        data_position=experiment.train.kind,
        exactness=exactness(job.inexact_because),
    )
    weights = experiment.model.trainable_weights
    job.tell(
        "on_start",
        RunStart(
            run_dir=job.run.path,
            session_name=experiment.settings.session_name,
            hparams=experiment.settings.hparams,
            epochs=experiment.settings.epochs,
            first_epoch=progress.epoch + 1,
            steps_per_epoch=experiment.train.steps,
            parameters=sum(int(tf.size(weight)) for weight in weights),
            devices=devices.names,
            monitor=experiment.judge.monitor,
            data_position=POSITIONS[experiment.train.kind],
            global_step=progress.global_step,
            first_step=progress.step,
            model_graph=job.viewer.graph,
            inexact_because=tuple(job.inexact_because),
        ),
    )


def _publish_at_the_end(job: Job) -> None:
    """Sees to it that the best weights are published, and that something is where no epoch was the best."""
    state, publisher = job.experiment.state, job.publisher
    if publisher is None:
        return
    best = state.progress.best
    if best is None:
        with state.averages.in_place() if state.averages else contextlib.nullcontext():
            publish(job)
        return
    publisher.wait()
    if best.step not in versions(job.run.exports_dir):  # killed, or without space, just when it was due
        with state.best_in_place():
            publisher.submit(best.step)
        publisher.wait()


def _show_best(job: Job) -> None:
    """Lets the watchers look at the model with its best weights."""
    state = job.experiment.state
    best = state.progress.best
    if best is not None:
        with state.best_in_place():
            job.tell("on_best", job.viewer.view(best.epoch, best.step, {}, validated=False))

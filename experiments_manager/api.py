"""The verbs for notebooks and scripts; the command line calls these same functions.

Nothing here imports TensorFlow before there is something to train.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from experiments_manager.common.signals import stop_signals
from experiments_manager.federated.verbs import (
    deploy_federation,
    federation_settings,
    join_federation,
    refuse_client,
    simulate_federation,
)
from experiments_manager.monitoring.watcher_maker import watcher_maker
from experiments_manager.runs import Run, compare_runs, list_runs
from experiments_manager.runs import open_run as load_run
from experiments_manager.runs.interruption import interruption_recorded
from experiments_manager.runs.naming import require_run_name
from experiments_manager.runs.run_settings import refuse_client_run
from experiments_manager.settings import Settings, SettingsError, load_despite_problems, load_settings

if TYPE_CHECKING:
    from experiments_manager.events import Watcher
    from experiments_manager.training.dry_run.dry_run import DryRun
    from experiments_manager.training.engine.evaluation import Evaluation
    from experiments_manager.training.engine.outcome import RunResult

__all__ = [
    "check",
    "compare_runs",
    "deploy_federation",
    "evaluate",
    "evaluate_and_draw",
    "federation_settings",
    "join_federation",
    "list_runs",
    "load_run",
    "load_settings",
    "plot_runs",
    "report",
    "resume",
    "serve",
    "simulate_federation",
    "train",
]

logger = logging.getLogger(__name__)

Overrides = Mapping[str, Any] | Sequence[str]


def train(
    settings: Settings | Path | str,
    *,
    overrides: Overrides = (),
    working_dir: Path | str | None = None,
    run_name: str | None = None,
    resume: Literal["never", "auto"] = "never",
    accept_changed_data: bool = False,
    watchers: Sequence[Watcher] = (),
    quiet: bool = False,
    command: Sequence[str] = (),
    on_run: Callable[[Run], None] | None = None,
) -> RunResult:
    """Train an experiment in a run folder.

    The run can be stopped by Ctrl-C (in a notebook: by interrupting the kernel) or by SIGTERM; it then ends as
    `interrupted` at the next step, or at once while there is no step yet, and `resume` goes on with it.

    Args:
        settings: The settings module's file, or what `load_settings` gave.
        overrides: Settings to change, as for `load_settings`; only together with a file.
        working_dir: The folder that the run folder is made in; `settings.working_dir` by default.
        run_name: Exact name of the run folder, instead of one made from session name, hparams and time.
        resume: `auto` goes on with the run called `run_name` where there is one, and starts it where there is none.
        accept_changed_data: Whether a run goes on with other data than it was trained on, not exactly; else that is
            refused.
        watchers: Who else is told of the run, besides `metrics.csv`, TensorBoard and the progress on the terminal.
        quiet: Whether to show no progress.
        command: The command line, for the manifest.
        on_run: Called with the run as soon as its folder is there and it is about to be trained.

    Returns:
        How the run ended, with its folder in `run_dir`.

    Raises:
        SettingsError: The settings module cannot be used; all its problems are named.
        UserCodeError: A hook raised.
        TrainingError: Data, devices or numbers do not allow to train.
        RunError: The run folder cannot be made or written, is in use, or `resume="auto"` lacks a `run_name`.
        FederationError: The settings ask to join a federation, which `join_federation` does.
        KeyboardInterrupt: A signal asked to stop before there was a run folder.
    """
    require_run_name(resume, run_name)
    if isinstance(settings, Settings) and overrides:
        raise TypeError("Overrides take effect while a settings module is executed. Give them to `load_settings`.")
    make_watchers = watcher_maker(watchers, quiet, on_run)
    with stop_signals() as stop:
        with stop.interruptible():
            if not isinstance(settings, Settings):
                settings = load_settings(settings, overrides)
            refuse_client(settings)
            from experiments_manager.training.engine import runner
            from experiments_manager.training.engine.context import RunOptions

        options = RunOptions(
            make_watchers=make_watchers,
            should_stop=stop,
            interruptible=stop.interruptible,
            accept_changed_data=accept_changed_data,
        )
        if resume == "auto":
            return runner.start_or_resume(settings, run_name, options, working_dir=working_dir, command=command)
        return runner.start_run(settings, options, working_dir=working_dir, run_name=run_name, command=command)


def resume(
    run: Run | Path | str,
    *,
    overrides: Overrides = (),
    accept_changed_data: bool = False,
    watchers: Sequence[Watcher] = (),
    quiet: bool = False,
    on_run: Callable[[Run], None] | None = None,
) -> RunResult:
    """Go on with a run from its newest whole checkpoint, with the code that it was started with.

    Args:
        run: The run, or its folder.
        overrides: Settings to change from here on, e.g. more `epochs`.
        accept_changed_data: As for `train`.
        watchers: As for `train`.
        quiet: As for `train`.
        on_run: As for `train`.

    Returns:
        How the run ended.

    Raises:
        RunError: There is no run in that folder, it is the run of a client, or another process works on it.
        SettingsError: As for `train`.
        UserCodeError: As for `train`.
        TrainingError: As for `train`.
        KeyboardInterrupt: A signal asked to stop before the settings were loaded.
    """
    run = run if isinstance(run, Run) else load_run(run)
    refuse_client_run(run)
    make_watchers = watcher_maker(watchers, quiet, on_run)
    with stop_signals() as stop:
        with interruption_recorded(run), stop.interruptible():
            if run.manifest.get("federation"):
                from experiments_manager.federated.run import resume as resume_run
            else:
                from experiments_manager.training.engine.runner import resume_run
            from experiments_manager.training.engine.context import RunOptions

        options = RunOptions(
            make_watchers=make_watchers,
            should_stop=stop,
            interruptible=stop.interruptible,
            accept_changed_data=accept_changed_data,
        )
        return resume_run(run, overrides, options)


def evaluate(run: Run | Path | str, split: str = "test") -> dict[str, float]:
    """Evaluate the best weights of a run on one split.

    For a classification, the confusion matrix is drawn into `figures/confusion_<split>.png` in the run folder.

    Args:
        run: The run, or its folder.
        split: `train`, `validation` or `test`.

    Returns:
        Loss and metrics by name.

    Raises:
        RunError: There is no run in that folder.
        TrainingError: The run has no checkpoint, or there is no data for the split.
        UserCodeError: A hook raised.
    """
    evaluation, _ = evaluate_and_draw(run, split)
    return evaluation.metrics


def evaluate_and_draw(run: Run | Path | str, split: str = "test") -> tuple[Evaluation, Path | None]:
    """Do as `evaluate`, and return all that is known: the whole evaluation, and the picture where one was drawn."""
    run = run if isinstance(run, Run) else load_run(run)

    from experiments_manager.monitoring.plots.run_figures import draw_confusion
    from experiments_manager.training.engine.evaluation import evaluate_run

    evaluation = evaluate_run(run, split)
    if evaluation.truth is None or evaluation.predicted is None:
        return evaluation, None
    name = f"confusion_{split}.png"
    return evaluation, draw_confusion(run.path, name, evaluation.truth, evaluation.predicted, evaluation.class_names)


def serve(
    path: Run | Path | str,
    *,
    engine: Literal["auto", "embedded", "tensorflow_model_server", "apptainer"] = "auto",
    tell: Callable[[str], None] = logger.info,
    **options: Any,
) -> None:
    """Serve the exported models of a run until SIGINT or SIGTERM, also while it is being trained.

    Args:
        path: A run, its folder, its `exported_models`, or any folder whose subfolders are versions.
        engine: Who answers; `auto` takes an image if one is named, else `tensorflow_model_server` where it is on the
            path, else the embedded engine.
        tell: Called with each sentence that a person may want to read, such as the addresses.
        **options: `host`, `grpc_port`, `rest_port`, `image` …; see `serving.launch.serve_options.ServeOptions`.

    Raises:
        ServerStartError: There is nothing to serve and nothing coming, a port is taken, or the engine is missing.
        RunError: The run folder is damaged.
    """
    from experiments_manager.serving.launch.serve import serve as serve_until_told
    from experiments_manager.serving.launch.serve_options import Engine, ServeOptions

    path = path.path if isinstance(path, Run) else path
    serve_until_told(path, ServeOptions(engine=Engine(engine), **options), tell)


def check(
    settings_file: Path | str,
    overrides: Overrides = (),
    *,
    dry_run: bool = False,
    on_warnings: Callable[[Sequence[str]], object] | None = None,
) -> DryRun | None:
    """Check a settings module; with `dry_run` also data, model, loss, metrics and serving. Nothing is written.

    Args:
        settings_file: The settings module.
        overrides: Settings to change, as for `load_settings`.
        dry_run: Whether to build everything and run one batch of each split through it.
        on_warnings: Called with what was found that stops no training, a sentence each.

    Returns:
        What the dry run saw, as printable `lines` and numbers; `None` without it.

    Raises:
        SettingsError: With all problems that were found.
        UserCodeError: A hook raised.
        TrainingError: Data, model and settings do not fit together.
    """
    settings, problems = load_despite_problems(settings_file, overrides) if dry_run else (None, [])
    if settings is None:
        if problems:
            raise SettingsError(problems)
        settings = load_settings(settings_file, overrides)
    if on_warnings is not None and settings.warnings:
        on_warnings(settings.warnings)
    if not dry_run:
        return None

    from experiments_manager.training.dry_run import dry_run as looking

    return looking.dry_run(settings, problems)


def plot_runs(runs: Sequence[Run | Path | str], file: Path | str) -> Path:
    """Draw the curves of runs over each other, one panel a metric, training dashed and validation solid.

    Args:
        runs: Runs, or their folders.
        file: Where to write; its ending (`.png`, `.svg` or `.pdf`) tells the format.

    Returns:
        `file`.

    Raises:
        RunError: The ending is none of these, a run cannot be read, no run has finished an epoch, or the file cannot be
            written.
    """
    from experiments_manager.monitoring.plots import comparison

    return comparison.plot_runs(runs, file)


def report(place: Run | Path | str, output: Path | str | None = None) -> Path:
    """Write one self-contained HTML page about a run, or about all runs below a folder.

    Args:
        place: A run, its folder, or a folder of runs.
        output: The page; `report.html` in that folder by default.

    Returns:
        The page.

    Raises:
        RunError: There is no run in that folder, or the page cannot be written.
    """
    from experiments_manager.monitoring import report as reports

    return reports.write_report(place.path if isinstance(place, Run) else place, output)

"""What a sweep leaves: its table, its best settings, the best model."""

from __future__ import annotations

import collections
import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments_manager.common import atomic
from experiments_manager.runs.errors import explain
from experiments_manager.sweeps.experiment import SweptExperiment
from experiments_manager.sweeps.names import qualified
from experiments_manager.sweeps.results.best_settings import best_settings, train_command
from experiments_manager.sweeps.results.page import write_report
from experiments_manager.sweeps.results.table import write_table
from experiments_manager.sweeps.state.folder import SweepFolder
from experiments_manager.sweeps.state.trials import SweepState, Trial, best_trial, pareto_front
from experiments_manager.sweeps.trials.fork_server import ForkServer

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class SweepResult:
    """What a sweep found.

    Attributes:
        sweep_dir: Its folder.
        state: `finished` or `interrupted`.
        reason: Why it ended.
        trials: How many there are in each state.
        best: The best trial: `number`, `values`, `overrides`, `run_dir`, `command` (repeats it), `exported_model`;
            `None` where none was finished.
        front: The trials of the Pareto front, in the same form; with one objective the best alone.
        report: The HTML page; `None` where no trial has a result, or the sweep was interrupted.
    """

    sweep_dir: Path
    state: str
    reason: str
    trials: dict[str, int]
    best: dict[str, Any] | None
    front: list[dict[str, Any]]
    report: Path | None


def write_results(
    folder: SweepFolder, experiment: SweptExperiment, state: SweepState, reason: str, server: ForkServer
) -> SweepResult:
    """Write all that a sweep leaves, and sum it up.

    Args:
        folder: Of the sweep.
        experiment: What is known of the experiment.
        state: What is known of the trials.
        reason: Why the sweep ended.
        server: Forks a process for what needs TensorFlow.

    Raises:
        RunError: A file cannot be written.
    """
    write_table(folder, experiment.names, state)
    trials, modes = list(state.trials.values()), experiment.modes
    best = best_trial(trials, modes)
    ended = "interrupted" if reason == "interrupted" else "finished"
    shown = best and _shown(best, folder, experiment)
    exported = None
    if best is not None and best.number >= 0:
        _write_best_settings(folder, experiment, best)
        if ended == "finished":
            exported = _begin_export(folder, experiment, best, server)
    report = None
    if ended == "finished":  # one that was asked to stop has little time; a model is exported meanwhile
        report = write_report(folder, state, shown and shown["command"])
    return SweepResult(
        sweep_dir=folder.path,
        state=ended,
        reason=reason,
        trials=dict(collections.Counter(trial.state for trial in trials)),
        best=shown and {**shown, "exported_model": exported and exported()},
        front=[_shown(trial, folder, experiment) for trial in pareto_front(trials, modes)],
        report=report,
    )


def _shown(trial: Trial, folder: SweepFolder, experiment: SweptExperiment) -> dict[str, Any]:
    overrides = {**experiment.file.plan.overrides, **trial.overrides}
    return {
        "number": trial.number,
        "values": dict(zip(experiment.names, trial.values, strict=True)),
        "overrides": trial.overrides,
        "run_dir": str(folder.trials_dir / trial.name) if trial.number >= 0 else None,
        "command": train_command(experiment.file.settings_file, qualified(overrides, experiment.settings["hparams"])),
    }


def _write_best_settings(folder: SweepFolder, experiment: SweptExperiment, best: Trial) -> None:
    told = experiment.settings
    overrides = {**experiment.file.plan.overrides, **best.overrides}
    title = f"The best settings of the sweep {folder.path.name}: trial {best.number}"
    text = best_settings(experiment.file.settings_file, overrides, told["hparams"], told["model_file"], title)
    if not folder.best_settings.exists() or folder.best_settings.read_text(encoding="utf-8") != text:
        try:
            atomic.write_text(folder.best_settings, text)
        except OSError as error:
            raise explain(error, "write", folder.best_settings) from error


def _begin_export(
    folder: SweepFolder, experiment: SweptExperiment, best: Trial, server: ForkServer
) -> Callable[[], str | None] | None:
    """Give the best trial what trials do without, in a process of its own: its servable model and its figures.

    Returns:
        What waits for the end and gives the folder of the model; `None` where nothing is wanted.
    """
    names = [name for name in ("export", "figures") if name not in experiment.file.plan.overrides]
    wanted = {name: experiment.settings[name] for name in names}
    if not any(wanted.values()):
        return None
    log = folder.output_of(best.name)
    run_dir = folder.trials_dir / best.name
    end = server.begin({"kind": "export", "run_dir": str(run_dir), "overrides": wanted, "log": str(log)})

    def exported() -> str | None:
        told = end() or {"model": None, "reason": "its process ended without a word"}
        if told["model"] is None and wanted.get("export"):
            logger.warning("The best model was not exported: %s. See %s.", told.get("reason"), log)
        return told["model"]

    return exported

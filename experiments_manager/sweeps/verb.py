"""The verb `sweep` for notebooks and scripts; the command line calls this same function."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments_manager.common.installation import install_command
from experiments_manager.common.signals import AHEAD_OF_A_LIMIT, stop_signals
from experiments_manager.sweeps.errors import SweepError

if TYPE_CHECKING:
    from experiments_manager.sweeps.results.outcome import SweepResult


def sweep(
    sweep_file: Path | str,
    *,
    trials: int | None = None,
    parallel: int | None = None,
    resume: bool = False,
    retry_failed: bool = False,
    working_dir: Path | str = "sweeps",
    name: str | None = None,
    serve: bool = False,
    quiet: bool = False,
    executor: str = "local",
    cluster: Mapping[str, Any] | None = None,
    command: Sequence[str] = (),
) -> SweepResult:
    """Search the settings that work best, in trials that run in processes of their own or as jobs of a cluster.

    Ctrl-C (in a notebook: interrupting the kernel) or SIGTERM lets the trials that run write a checkpoint, and ends the
    sweep as `interrupted`; `resume=True` goes on with it, also after the process was killed. At SIGUSR1, which a
    cluster sends ahead of a time limit, jobs go on without it.

    Args:
        sweep_file: The sweep file; docs/sweeps.md says what it may hold.
        trials: Trials at most, instead of `max_trials`.
        parallel: Trials at a time, instead of `parallel`.
        resume: Whether to go on with the sweep of that name, where there is one.
        retry_failed: Whether failed trials are run again.
        working_dir: The folder that the sweep's folder is made in.
        name: Of the sweep's folder; that of the sweep file, without `mysweep_`, by default.
        serve: Whether the best trial so far is served, at the settings' ports.
        quiet: Whether to show no progress.
        executor: Where trials run: `local` or `slurm`.
        cluster: What the jobs of `slurm` ask for, by the names of docs/clusters.md, beside what the files say.
        command: The command line, for the runs' manifests.

    Returns:
        What was found: `best` (`number`, `values`, `overrides`, `run_dir`), `front`, `state`, `sweep_dir`, ….

    Raises:
        SettingsError: Sweep file or settings file cannot be used; all problems are named.
        SweepError: There is such a sweep already, it cannot go on, or the extra `sweeps` is not installed.
        RunError: The sweep's folder cannot be written, or another process works on it.
        ClusterError: Jobs cannot be described, or the cluster refuses them.
        KeyboardInterrupt: A signal asked to stop before there was a trial.
    """
    if executor not in ("local", "slurm"):
        raise SweepError(f"There is no executor {executor!r}. Expected 'local' or 'slurm'.")
    with stop_signals() as stop:
        with stop.interruptible():
            _require_what_it_needs()
            from experiments_manager.sweeps.observers import chosen_observers
            from experiments_manager.sweeps.sweep import SweepOptions, run_sweep

        options = SweepOptions(
            trials=trials,
            parallel=parallel,
            resume=resume,
            retry_failed=retry_failed,
            working_dir=working_dir,
            name=name,
            export_all=serve,
            command=command,
            executor=executor,
            cluster=cluster or {},
        )
        return run_sweep(
            sweep_file,
            options,
            should_stop=stop,
            interruptible=stop.interruptible,
            make_observers=functools.partial(chosen_observers, quiet=quiet, serve=serve),
            jobs_go_on=lambda: stop.asked_by in AHEAD_OF_A_LIMIT,
        )


def _require_what_it_needs() -> None:
    if not hasattr(os, "fork"):
        raise SweepError(
            "A sweep forks its trials from a warm process, which this system cannot do. Expected Linux or macOS. Call "
            "`experiments_manager.run(settings_file, hparams)` in a loop of your own instead."
        )
    try:
        import hyperopt  # noqa: F401
    except ImportError as error:
        raise SweepError(
            f"A sweep needs hyperopt, and it is not installed. Install it by `{install_command('sweeps')}`."
        ) from error

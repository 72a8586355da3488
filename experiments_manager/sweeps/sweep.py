"""A sweep from start to end: its file, its folder, the warm process, the loop, and what is left when it is over."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments_manager.cluster.job_options import JobOptions
from experiments_manager.runs import Run, lock
from experiments_manager.settings.problems import SettingsError
from experiments_manager.sweeps.driver import Driver, Limits, Observer
from experiments_manager.sweeps.errors import SweepError
from experiments_manager.sweeps.experiment import SweptExperiment, look_at_experiment
from experiments_manager.sweeps.jobs.job_pool import JobPool
from experiments_manager.sweeps.jobs.job_queue import JobQueue, options_of_jobs, refuse_jobs_in_queue
from experiments_manager.sweeps.names import qualified
from experiments_manager.sweeps.proposals import Proposals
from experiments_manager.sweeps.results.outcome import SweepResult, write_results
from experiments_manager.sweeps.search.algorithms import automatic_algorithm
from experiments_manager.sweeps.search.pruning import Pruner, make_pruner
from experiments_manager.sweeps.state.folder import SweepFolder, open_sweep
from experiments_manager.sweeps.state.journal import Journal, read_journal
from experiments_manager.sweeps.state.trials import FAILED, FINISHED, SweepState, Trial
from experiments_manager.sweeps.sweep_file import load_sweep_file
from experiments_manager.sweeps.trials.channel import Message
from experiments_manager.sweeps.trials.fork_server import ForkServer
from experiments_manager.sweeps.trials.pool import Pool, threads_of_a_trial
from experiments_manager.sweeps.trials.trial_pool import TrialPool


def earlier_results(experiment: SweptExperiment) -> list[dict[str, Any]]:
    """Read the finished trials of the sweep that `start_from` names, as far as they lie in the space.

    Raises:
        SettingsError: There is no such sweep, it had another objective, or none of its trials lies in the space.
    """
    file = experiment.file
    place = (file.file.parent / file.plan.start_from).absolute()
    try:
        state = SweepState(read_journal(open_sweep(place).journal))
    except SweepError as error:
        raise SettingsError([file.problem("start_from", str(error))]) from error
    if state.opened.get("objectives") != list(experiment.names) or state.opened.get("modes") != list(experiment.modes):
        text = (
            f"the sweep in {place} had another objective: {', '.join(state.opened.get('objectives', []))}. "
            f"Expected {', '.join(experiment.names)}. Give its best points as a list instead."
        )
        raise SettingsError([file.problem("start_from", text)])
    finished = [(trial, file.space.point_for(trial.overrides)) for trial in state.of_state(FINISHED)]
    found = [
        {"point": point, "overrides": trial.overrides, "values": trial.values, "source": f"{place.name}/{trial.name}"}
        for trial, point in finished
        if point is not None
    ]
    if not found:
        text = f"none of the {len(finished)} finished trials in {place} lies in the space. Widen it, or remove this."
        raise SettingsError([file.problem("start_from", text)])
    return [{**result, "space": file.space.digest} for result in found]


MakeObservers = Callable[[SweepFolder, SweptExperiment, int], contextlib.AbstractContextManager[Sequence[Observer]]]
JOURNAL_VERSION = 1
PLAIN_TRIALS = {"export": False, "figures": False}
"""What trials do without, to be short; the best one gets it at the end."""


@dataclasses.dataclass(frozen=True)
class SweepOptions:
    """How a sweep is run, beside what its file says.

    Attributes:
        trials: Trials at most; `None` as in the file.
        parallel: Trials at a time; `None` as in the file.
        resume: Whether to go on with the sweep in the folder, where there is one.
        retry_failed: Whether failed trials are run again.
        working_dir: Parent of the sweep's folder.
        name: Of the folder; `None` for that of the file.
        export_all: Whether each trial exports its model, as serving the best so far needs.
        command: The command line, for the runs' manifests.
        executor: Where trials run: `local`, in processes of this machine, or `slurm`, as jobs of a cluster.
        cluster: What these jobs ask for, beside what the files say.
    """

    trials: int | None = None
    parallel: int | None = None
    resume: bool = False
    retry_failed: bool = False
    working_dir: Path | str = "sweeps"
    name: str | None = None
    export_all: bool = False
    command: Sequence[str] = ()
    executor: str = "local"
    cluster: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def run_sweep(
    sweep_file: Path | str,
    options: SweepOptions,
    *,
    should_stop: Callable[[], bool] = lambda: False,
    interruptible: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
    make_observers: MakeObservers = lambda *sweep: contextlib.nullcontext(()),
    server: ForkServer | None = None,
    jobs_go_on: Callable[[], bool] = lambda: False,
) -> SweepResult:
    """Run a sweep, or go on with it.

    Args:
        sweep_file: The sweep file.
        options: How to run it.
        should_stop: Asked between events; a true answer ends the sweep as `interrupted`.
        interruptible: Gives a context for what comes before the first trial, in which a request to stop raises.
        make_observers: Gives those who watch, from the folder, the experiment and the trials that there are at most.
        server: What trials are forked from, and what stays when the sweep is over; by default one of its own.
        jobs_go_on: Asked when the sweep is to stop: whether jobs of a cluster go on meanwhile.

    Returns:
        What it found.

    Raises:
        SettingsError: Sweep file or settings file cannot be used; all problems are named.
        SweepError: There is a sweep in the folder already, its journal is damaged, or it cannot go on.
        RunError: The folder cannot be written, or another process works on it.
        ClusterError: The jobs cannot be described, or the cluster refuses them or does not answer.
    """
    with contextlib.ExitStack() as stack:
        if server is None:
            server = stack.enter_context(contextlib.closing(ForkServer(threads_of_a_trial(options.parallel or 1))))
        with interruptible():
            file = load_sweep_file(sweep_file)
            folder = SweepFolder(Path(options.working_dir).expanduser().absolute() / (options.name or file.name))
            _refuse_to_overwrite(folder, options)
            experiment = look_at_experiment(file, server)
            as_jobs = options.executor == "slurm"
            jobs = options_of_jobs(file, experiment.settings["cluster"], options.cluster) if as_jobs else None
            folder.make()
        with lock(Run(folder.path)), contextlib.closing(Journal(folder.journal)) as journal:
            state = SweepState(journal.events)
            sweep = _Sweep(folder, experiment, options, journal, state, jobs, jobs_go_on)
            with make_observers(folder, experiment, sweep.most) as observers:
                return sweep.run(server, should_stop, observers)


def _refuse_to_overwrite(folder: SweepFolder, options: SweepOptions) -> None:
    if folder.exists and not options.resume:
        raise SweepError(
            f"There is a sweep in {folder.path} already. Expected a new name, or --resume. Add --resume to go on with "
            "it (also with more trials or a wider space), or --name NAME to begin another one."
        )


class _Sweep:
    """A sweep whose folder is locked and whose journal is open."""

    def __init__(
        self,
        folder: SweepFolder,
        experiment: SweptExperiment,
        options: SweepOptions,
        journal: Journal,
        state: SweepState,
        jobs: JobOptions | None,
        jobs_go_on: Callable[[], bool],
    ) -> None:
        self._file, self._folder, self._experiment, self._options = experiment.file, folder, experiment, options
        self._journal, self._state, self._jobs, self._jobs_go_on = journal, state, jobs, jobs_go_on
        self._parallel = options.parallel or experiment.file.plan.parallel
        self.most = options.trials or experiment.file.plan.max_trials

    def run(self, server: ForkServer, should_stop: Callable[[], bool], observers: Sequence[Observer]) -> SweepResult:
        plan, modes = self._file.plan, self._experiment.modes
        self._same_objective()
        pruner = make_pruner(plan.prune, modes, self._experiment.epochs)
        algorithm = plan.algorithm
        if algorithm == "auto":
            algorithm = automatic_algorithm(self._state.opened.get("algorithm"))
        proposals = Proposals(
            algorithm,
            self._file.space,
            plan.seed,
            modes=modes,
            points=self._experiment.points,
            whole=self._experiment.whole,
        )
        if callable(plan.objective):
            server.import_module("hyperopt")
        limits = Limits(self.most, plan.stop_when, modes)
        with contextlib.closing(self._pool(server)) as pool:
            driver = Driver(self._journal, self._state, pool, proposals, pruner, limits, self._task, observers)
            self._open(driver, pruner, proposals.algorithm)
            reason = driver.run(should_stop)
        return write_results(self._folder, self._experiment, self._state, reason, server)

    def _same_objective(self) -> None:
        """Refuse to go on where earlier values mean something else."""
        before = self._state.opened
        names, modes = list(self._experiment.names), list(self._experiment.modes)
        if before and (before["objectives"], before["modes"]) != (names, modes):
            raise SweepError(
                f"The objective has changed: the sweep in {self._folder.path} searches "
                f"{_text(before['objectives'], before['modes'])}. Expected the same, got {_text(names, modes)}. "
                "Change it back, or begin a sweep of another --name."
            )

    def _open(self, driver: Driver, pruner: Pruner, algorithm: str) -> None:
        first = not self._state.opened
        driver.record(
            "opened",
            version=JOURNAL_VERSION,
            sweep_file=self._folder.keep_sweep_file(self._file.file),
            settings_file=str(self._file.settings_file),
            space=self._file.space.digest,
            objectives=self._experiment.names,
            modes=self._experiment.modes,
            algorithm=algorithm if isinstance(self._file.plan.algorithm, str) else "custom",
            seed=self._file.plan.seed,
            epochs=self._experiment.epochs,
            asks=pruner.asks,
            max_trials=self.most,
            parallel=self._parallel,
        )
        if first and isinstance(self._file.plan.start_from, str):
            for number, result in enumerate(earlier_results(self._experiment)):
                driver.record("known", trial=-1 - number, **result)
        if self._options.retry_failed:
            for trial in self._state.of_state(FAILED):
                driver.record("retried", trial=trial.number)

    def _pool(self, server: ForkServer) -> TrialPool:
        plan = self._file.plan
        if self._jobs is not None:
            queue = JobQueue(self._folder.path, self._jobs, (self._file.settings_file.parent, self._file.file.parent))
            known, timeout = self._state.jobs, plan.trial_timeout
            return JobPool(queue, self._parallel, known=known, timeout=timeout, goes_on=self._jobs_go_on)
        refuse_jobs_in_queue(self._folder.path, self._state.jobs)
        return Pool(
            server,
            self._parallel,
            trials_per_process=plan.trials_per_process,
            timeout=plan.trial_timeout,
            memory_limit=self._file.memory_limit,
        )

    def _task(self, trial: Trial) -> Message:
        """Return what the process of a trial is told."""
        plan, told = self._file.plan, self._experiment.settings
        lean = {**PLAIN_TRIALS, "export": told["export"] and self._options.export_all}
        overrides = qualified({**lean, **plan.overrides, **trial.overrides}, told["hparams"])
        swept = {name: value for name, value in trial.overrides.items() if name in overrides}
        if swept:  # settings that are no hparams are shown beside them, in TensorBoard's HParams too
            overrides["hparams_ext"] = {**told["hparams_ext"], **swept}
        return {
            "settings_file": str(self._file.settings_file),
            "sweep_file": str(self._file.file) if callable(plan.objective) else None,
            "columns": self._experiment.columns,
            "asks": self._state.opened["asks"],
            "command": list(self._options.command),
            "trials_dir": str(self._folder.trials_dir),
            "name": trial.name,
            "overrides": overrides,
            "asked": max(trial.reports, default=0),
            "log": str(self._folder.output_of(trial.name)),
        }


def _text(names: Sequence[str], modes: Sequence[str]) -> str:
    return ", ".join(f"{name} ({mode})" for name, mode in zip(names, modes, strict=True))

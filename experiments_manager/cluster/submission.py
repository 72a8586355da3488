"""From a command line of ours to a job in the queue.

A training that is submitted has its run folder from then on, with a copy of the code as it is at that moment: what is
edited while the job waits does not change it, and a job that is queued again goes on in the same folder.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import functools
import itertools
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments_manager.cluster import slurm
from experiments_manager.cluster.batch_script import Job, batch_script
from experiments_manager.cluster.errors import ClusterError, RefusedError
from experiments_manager.cluster.job_options import JobOptions, check_image, job_options
from experiments_manager.cluster.jobs import record_job
from experiments_manager.common import atomic
from experiments_manager.runs import Run, create_run, find_run, naming, open_run
from experiments_manager.runs.folder import make_new_folder
from experiments_manager.settings import SourceValues, read_values
from experiments_manager.settings.schema import Values

JOB_FOLDER = "job"
"""In a run folder: the script and the output of its job."""


@dataclasses.dataclass(frozen=True)
class Submission:
    """A job that was, or would be, submitted.

    Attributes:
        job: What runs.
        options: What it asks for.
        script: Its text.
        runs: The run folders that it trains in, in the order of its tasks; none for other commands.
        id: The job's number; `None` where it was not submitted.
    """

    job: Job
    options: JobOptions
    script: str
    runs: tuple[Path, ...] = ()
    id: str | None = None


@dataclasses.dataclass(frozen=True)
class Training:
    """A command line of `train`, taken apart.

    Attributes:
        settings: The settings file.
        overrides: What `--set` says.
        working_dir: Where the run folder is made; `None` leaves it to the settings.
        run_name: Exact name of the run folder.
        goes_on: Whether a run of that name is gone on with.
        further: Words that `resume` takes as well.
    """

    settings: Path
    overrides: Sequence[str]
    working_dir: Path | None
    run_name: str | None
    goes_on: bool
    further: Sequence[str]

    @functools.cached_property
    def source(self) -> SourceValues:
        """What the settings file says, as far as its source shows it.

        Raises:
            SettingsError: The source shows problems.
        """
        return read_values(self.settings, self.overrides)

    @property
    def values(self) -> Values:
        """The settings, with the overrides."""
        return self.source.values

    @property
    def parent(self) -> Path:
        """Where the run folder is made."""
        return Path(self.working_dir or self.values.working_dir)

    def folder(self, now: datetime.datetime) -> Path:
        """Return the run folder that would be made."""
        name = self.run_name or naming.run_name(self.values.session_name, self.values.hparams, now)
        return (self.parent / name).absolute()

    def command(self, folder: Path) -> tuple[str, ...]:
        """Return what the job runs, once the run folder is there."""
        sets = [word for override in self.overrides for word in ("--set", override)]
        return ("resume", str(folder), *sets, *self.further)

    def prepared_run(self, now: datetime.datetime, command: Sequence[str], made: list[Path]) -> Run:
        """Make the run folder, with the code as it is now; or find the one to go on with."""
        if self.goes_on and self.run_name is not None:
            found = find_run(self.parent, self.run_name)
            if found is not None and found.is_started:
                return found
        hparams = self.values.hparams
        run = create_run(self.parent, self.values.session_name, hparams, now=now, run_name=self.run_name)
        made.append(run.path)
        run.prepare(
            settings_file=self.settings,
            model_file=self.source.model_file,
            command=["experiments_manager", *command],
            hparams=hparams,
        )
        return run


def submit(
    command: Sequence[str],
    given: Mapping[str, Any],
    read_training: Callable[[Sequence[str]], Training],
    *,
    arrays: Sequence[str] = (),
    stage_data: Sequence[Path] = (),
    dry_run: bool = False,
) -> Submission:
    """Submit a command line.

    Args:
        command: The command and its arguments, without the name of the program.
        given: Options of the job by name, as in `JobOptions`, and `name`; `None` leaves one to the defaults.
        read_training: Takes the words that follow `train` apart, as that command does itself.
        arrays: Grids `NAME=V1,V2,…` (all combinations are tasks), or one file with a line of options a task.
        stage_data: Folders or files that the job copies to the own disk of its node; `train` and `resume` only.
        dry_run: Whether only the script is made, and nothing written.

    Raises:
        ClusterError: Something is wrong with the command line or the options, or the cluster refuses the job.
        SettingsError: The source of the settings file shows problems.
        RunError: A run folder cannot be made.
    """
    if not command:
        raise ClusterError(
            "There is nothing to submit. Expected a command after `--`, e.g. `submit -- train mysettings.py`."
        )
    command, given = [*command, *_stages(command[0], stage_data)], dict(given)
    name, now = given.pop("name", None), datetime.datetime.now()
    tasks = _tasks(arrays) or [()]
    if command[0] != "train":
        return _submit_plain(command, tasks, given, name, now, dry_run)
    trainings = [read_training([*command[1:], *task]) for task in tasks]
    options = job_options((f"{trainings[0].settings}: cluster", trainings[0].values.cluster), ("submit", given))
    name = name or trainings[0].values.session_name
    if dry_run:
        return _described([training.folder(now) for training in trainings], trainings, options, name)
    check_image(options)
    batch_script(Job(name, Path.cwd(), Path.cwd(), ((),)), options)  # refuses before a folder is made
    with _removed_if_refused() as made:
        runs = [training.prepared_run(now, command, made) for training in trainings]
        return _handed_over(_described([run.path for run in runs], trainings, options, name), runs)


@contextlib.contextmanager
def _removed_if_refused() -> Iterator[list[Path]]:
    """Give a list for the folders that are made for a job; they are removed where the cluster refuses it."""
    made: list[Path] = []
    try:
        yield made
    except RefusedError:
        for folder in made:
            shutil.rmtree(folder, ignore_errors=True)
        raise


def _stages(command: str, paths: Sequence[Path]) -> list[str]:
    """Return the options of `train` or `resume` that copy data to the node's own disk."""
    if paths and command not in ("train", "resume"):
        raise ClusterError(f"--stage-data is for train and resume. Got {command}. Leave it out.")
    missing = next((path for path in paths if not path.exists()), None)
    if missing is not None:
        raise ClusterError(f"--stage-data {missing}: it does not exist. Expected a folder or file that the nodes see.")
    return [word for path in paths for word in ("--stage-data", str(path.absolute()))]


def _described(folders: Sequence[Path], trainings: Sequence[Training], options: JobOptions, name: str) -> Submission:
    """Return the job that trains in these folders."""
    commands = tuple(training.command(folder) for folder, training in zip(folders, trainings, strict=True))
    binds = tuple(dict.fromkeys(folder.parent for folder in folders))
    job = Job(name, folders[0] / JOB_FOLDER, Path.cwd(), commands, binds)
    return Submission(job, options, batch_script(job, options), tuple(folders))


def _handed_over(described: Submission, runs: Sequence[Run]) -> Submission:
    """Write the script, submit it, and note the job's number in the runs."""
    job = submit_job(described.job, described.options)
    for number, run in enumerate(runs):
        task = f"{job}_{number}" if len(runs) > 1 else job
        record_job(run, task, described.job.folder, described.job.name)
    return dataclasses.replace(described, id=job)


def submit_job(job: Job, options: JobOptions) -> str:
    """Write the script of a job into its folder, submit it, and return the job's number.

    Raises:
        ClusterError: There is no SLURM here, or it refuses the job.
        OSError: The script cannot be written.
    """
    job.folder.mkdir(parents=True, exist_ok=True)
    script = job.folder / "job.sh"
    atomic.write_text(script, batch_script(job, options))
    script.chmod(0o755)
    return slurm.submit(script)


def _submit_plain(
    command: Sequence[str],
    tasks: Sequence[Sequence[str]],
    given: Mapping[str, Any],
    name: str | None,
    now: datetime.datetime,
    dry_run: bool,
) -> Submission:
    """Submit a command that makes no run folder of its own, or goes on in one that is there."""
    options, runs = job_options(("submit", given)), []
    name = name or (Path(command[1]).stem if command[1:] else "") or command[0]  # "." has no stem
    folder = Path("jobs", naming.run_name(name, {}, now)).absolute()
    if command[0] == "resume" and command[1:] and len(tasks) == 1:
        run = open_run(command[1])
        folder, runs = run.path / JOB_FOLDER, [run]
    commands = tuple((*command, *task) for task in tasks)
    job = Job(name, folder, Path.cwd(), commands)
    described = Submission(job, options, batch_script(job, options), tuple(run.path for run in runs))
    if dry_run:
        return described
    check_image(options)
    with _removed_if_refused() as made:
        if not runs:
            folder = make_new_folder(folder)
            made.append(folder)
            job = dataclasses.replace(job, folder=folder)
            described = dataclasses.replace(described, job=job, script=batch_script(job, options))
        return _handed_over(described, runs)


def _tasks(arrays: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the further words of each task of an array.

    Raises:
        ClusterError: A grid has no values, or the file none.
    """
    if not arrays:
        return []
    if len(arrays) == 1 and "=" not in arrays[0]:
        try:
            lines = Path(arrays[0]).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ClusterError(
                f"--array {arrays[0]}: it cannot be read: {error}. Expected NAME=V1,V2,… or a file with a line of "
                "options a task."
            ) from error
        found = [tuple(shlex.split(line)) for line in lines if line.strip() and not line.lstrip().startswith("#")]
        if not found:
            raise ClusterError(f"--array {arrays[0]}: the file has no line. Expected a line of options a task.")
        return found
    axes = []
    for grid in arrays:
        name, _, values = grid.partition("=")
        if not name or not values or not all(values.split(",")):
            raise ClusterError(f"--array {grid}: expected NAME=V1,V2,…")
        axes.append([("--set", f"{name}={value}") for value in values.split(",")])
    return [tuple(word for pair in combination for word in pair) for combination in itertools.product(*axes)]

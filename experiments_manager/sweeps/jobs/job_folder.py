"""The folders in which the jobs of a sweep and their driver meet, one a job."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments_manager.common import atomic
from experiments_manager.common.jsonable import to_jsonable
from experiments_manager.common.jsonl import from_line, to_line
from experiments_manager.runs.errors import explain
from experiments_manager.sweeps.errors import SweepError
from experiments_manager.sweeps.trials.channel import Message

_TASK, _STATUS, _ANSWERS = "task.json", "status.json", "answers.json"
_MEANING = ("settings_file", "sweep_file", "columns", "asks", "overrides", "trials_dir")
"""What of a task makes the trial what it is."""


@dataclasses.dataclass(frozen=True)
class Answers:
    """All that a driver has told a job.

    Attributes:
        verdicts: Whether the trial goes on, by the epoch after which it asked.
        stop: Whether it should write a checkpoint and end.
        killed: Why the driver has cancelled it; `None` where it has not.
    """

    verdicts: Mapping[int, bool] = dataclasses.field(default_factory=dict)
    stop: bool = False
    killed: str | None = None

    @property
    def ends(self) -> bool:
        """Whether they let the job end."""
        return self.stop or not all(self.verdicts.values())


@dataclasses.dataclass(frozen=True)
class JobFolder:
    """What a job and its driver tell each other, in files that have one writer each and are replaced as a whole.

    ```
    jobs/<trial>/<n>/
      task.json        what the trial is told
      status.json      how far the job is: `job`, `progress`, `question`, and at last `end`
      answers.json     what the driver has told the job
      job.sh  slurm-<job>.out
    ```

    A reader opens a file anew at each look, which is when file systems of the network ask their server for changes.
    """

    path: Path
    """Absolute; `n` counts the jobs of a trial."""

    @property
    def key(self) -> str:
        """What the journal calls it."""
        return f"{self.path.parent.name}/{self.path.name}"

    @property
    def trial(self) -> int:
        """The number of the trial."""
        return int(self.path.parent.name.removeprefix("trial_").partition("-")[0])

    @property
    def task(self) -> Message:
        """What the trial is told.

        Raises:
            SweepError: It cannot be read.
        """
        try:
            return json.loads((self.path / _TASK).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise SweepError(
                f"{self.path / _TASK} cannot be read: {error}. Expected a folder that `sweep --executor slurm` has "
                "made. Go on with the sweep by --resume, which makes new ones."
            ) from error

    def does(self, task: Message) -> bool:
        """Return whether the job does what the sweep would tell it now: sweep file or options may have changed."""
        try:
            told = self.task
        except SweepError:
            return False
        return self.is_readable and all(told.get(name) == to_jsonable(task.get(name)) for name in _MEANING)

    @property
    def is_readable(self) -> bool:
        """Whether its job writes what is read here; one that an earlier state of the package submitted does not."""
        return (self.path / _STATUS).exists()

    @property
    def status(self) -> Message:
        """How far the job is; empty where it has told nothing, or the file server is silent."""
        return self._read(_STATUS)

    def write_status(self, status: Message, *, sync: bool = True) -> None:
        """Tell how far the job is; without `sync` it costs little, and a machine that loses its power may lose it.

        Raises:
            OSError: It could not be written.
        """
        atomic.write_bytes(self.path / _STATUS, to_line(status), sync=sync)

    @property
    def answers(self) -> Answers | None:
        """What the driver has told the job; `None` where the file server is silent."""
        told = self._read(_ANSWERS)
        verdicts = {int(epoch): go for epoch, go in told.get("verdicts", {}).items()}
        return Answers(verdicts, told["stop"], told["killed"]) if told else None

    def write_answers(self, answers: Answers) -> None:
        """Tell the job something.

        Raises:
            SweepError: It could not be written.
        """
        try:
            atomic.write_bytes(self.path / _ANSWERS, to_line(dataclasses.asdict(answers)))
        except OSError as error:
            raise SweepError(
                f"{self.path / _ANSWERS} cannot be written: {error.strerror}. Fix that (free some space), then go on "
                "by --resume."
            ) from error

    def make(self, task: Message) -> None:
        """Make the folder.

        All files are there from the start: a file server's clients remember for a while that one is not.

        Raises:
            RunError: It cannot be made.
        """
        try:
            self.path.mkdir(parents=True)
            self.write_status({})
            self.write_answers(Answers())
            atomic.write_json(self.path / _TASK, to_jsonable(task))
        except OSError as error:
            raise explain(error, "make the folder of a job", self.path) from error

    def _read(self, name: str) -> Message:
        with contextlib.suppress(OSError):
            return from_line((self.path / name).read_bytes()) or {}
        return {}


class JobFolders:
    """The folders of all jobs of a sweep, and the names by which its jobs are known in the queue.

    A name ends with letters that no other sweep has, so that a job whose number nobody wrote down is found again.

    Args:
        sweep: Folder of the sweep.

    Raises:
        RunError: The folder cannot be written.
    """

    def __init__(self, sweep: Path) -> None:
        self._folder = sweep / "jobs"
        self._title = re.sub(r"[^\w.]+", "_", sweep.name)
        mark = self._folder / "mark.txt"
        try:
            if not mark.exists():
                self._folder.mkdir(exist_ok=True)
                atomic.write_text(mark, os.urandom(8).hex() + "\n")
            # A copy of the folder stands elsewhere, and has no jobs.
            self._mark = hashlib.sha256(f"{mark.read_text()}{mark}".encode()).hexdigest()[:8]
        except OSError as error:
            raise explain(error, "make the folder of jobs", self._folder) from error

    def new(self, trial: str, task: Mapping[str, Any]) -> JobFolder:
        """Make the folder of a trial's next job.

        Raises:
            RunError: It cannot be made.
        """
        folder = JobFolder(self._folder / trial / str(max(self._numbers(trial), default=0) + 1))
        folder.make(dict(task))
        return folder

    def newest(self, trial: str) -> JobFolder | None:
        """Return the folder of a trial's last job; `None` where it has had none."""
        numbers = self._numbers(trial)
        return JobFolder(self._folder / trial / str(max(numbers))) if numbers else None

    def name_of(self, folder: JobFolder) -> str:
        """Return the name of a job in the queue."""
        return f"{self._title}-{folder.path.parent.name}.{folder.path.name}-{self._mark}"

    def named(self, name: str) -> JobFolder | None:
        """Return the folder of the job that goes by a name; `None` where it is not of this sweep."""
        found = re.fullmatch(rf"{re.escape(self._title)}-(trial_\d+(?:-\d+)?)\.(\d+)-{self._mark}", name)
        return JobFolder(self._folder / found[1] / found[2]) if found else None

    def _numbers(self, trial: str) -> list[int]:
        with contextlib.suppress(OSError):
            return [int(entry.name) for entry in (self._folder / trial).iterdir() if entry.name.isdecimal()]
        return []

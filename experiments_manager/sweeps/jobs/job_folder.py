"""The folder in which a job of a sweep and its driver meet."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

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

"""The folder of a sweep: what stands where in it, and finding it again."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from experiments_manager.common import atomic
from experiments_manager.common.suggestions import did_you_mean
from experiments_manager.runs.errors import explain
from experiments_manager.sweeps.errors import SweepError

JOURNAL = "journal.jsonl"


@dataclasses.dataclass(frozen=True)
class SweepFolder:
    """One sweep's folder.

    ```
    sweeps/<name>/
      journal.jsonl  trials.csv  report.html  figures/  best_settings.py
      sweep_files/   the sweep file as it was when a process began, by number
      trials/        one run a trial
      output/        what trials printed
    ```
    """

    path: Path
    """Absolute."""

    @property
    def journal(self) -> Path:
        """`journal.jsonl`: all events of the sweep."""
        return self.path / JOURNAL

    @property
    def trials_dir(self) -> Path:
        """The folder in which the runs of trials are."""
        return self.path / "trials"

    @property
    def trials_csv(self) -> Path:
        """`trials.csv`: one row a trial."""
        return self.path / "trials.csv"

    @property
    def best_settings(self) -> Path:
        """The settings file with the best values in it."""
        return self.path / "best_settings.py"

    @property
    def figures_dir(self) -> Path:
        """The folder of the figures."""
        return self.path / "figures"

    @property
    def report(self) -> Path:
        """`report.html`."""
        return self.path / "report.html"

    def output_of(self, trial: str) -> Path:
        """Return the file with what a trial printed."""
        return self.path / "output" / f"{trial}.log"

    @property
    def exists(self) -> bool:
        """Whether a sweep has begun here."""
        return self.journal.is_file()

    def make(self) -> None:
        """Make the folder.

        Raises:
            RunError: It cannot be made.
        """
        try:
            self.trials_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise explain(error, "make the folder of a sweep", self.path) from error

    def keep_sweep_file(self, file: Path) -> str:
        """Keep a copy of the sweep file, unless the newest copy is the same.

        Returns:
            Its name in `sweep_files/`.

        Raises:
            RunError: It cannot be written.
        """
        folder = self.path / "sweep_files"
        try:
            folder.mkdir(exist_ok=True)
            content = file.read_bytes()
            copies = sorted(folder.glob("sweep_*.py"), key=lambda copy: int(copy.stem.removeprefix("sweep_")))
            if copies and copies[-1].read_bytes() == content:
                return copies[-1].name
            copy = folder / f"sweep_{len(copies) + 1}.py"
            atomic.write_bytes(copy, content)
        except OSError as error:
            raise explain(error, "copy the sweep file to", folder) from error
        return copy.name


def open_sweep(path: Path | str) -> SweepFolder:
    """Find the sweep in a folder.

    Raises:
        SweepError: There is none.
    """
    folder = SweepFolder(Path(path).expanduser().absolute())
    if folder.exists:
        return folder
    parent = folder.path.parent
    names = [entry.name for entry in parent.iterdir() if (entry / JOURNAL).is_file()] if parent.is_dir() else []
    hint = did_you_mean(folder.path.name, names, "Check the path.", shown=f"{parent}/{{}}")
    raise SweepError(f"{path} is no sweep: it has no {JOURNAL}. Expected a folder that `sweep` has made. {hint}")

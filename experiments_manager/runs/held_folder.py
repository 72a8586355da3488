"""A run folder that is trained in: found again where it was moved, and known to be gone where it was removed.

It is held open, so the system knows where it is. Much of a training remembers paths: files that are opened later, other
processes, code of the user's. So a link stands in the former place until the training ends.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from experiments_manager.common.background import LatestJobWorker
from experiments_manager.runs.errors import RunError
from experiments_manager.runs.run import Run

SECONDS_BETWEEN_LOOKS = 1.0
SECONDS_FOR_A_LOOK = 0.01
"""Training waits no longer for an answer of the disk; a later one counts when the next look is due."""
_ON_ANOTHER_DISK = (
    "If it was moved to another disk instead, go on there from its newest checkpoint: experiments_manager resume PLACE"
)


class FolderRemovedError(RunError):
    """The folder of a run is gone while it trains."""


class FormerPlaceTakenError(RunError):
    """The folder was moved, and something else stands where it was."""


class HeldFolder:
    """The folder of a run, for as long as this process works in it.

    Args:
        run: The run; its path follows the folder.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self._descriptor = os.open(run.path, os.O_RDONLY)
        self._links: dict[Path, Path] = {}
        """Links in former places, and where they lead."""
        self._made: list[Path] = []
        """Folders for these links, where the one above was moved too."""
        self._had_settings = False
        self._looked, self._missing = 0.0, False
        self._looker: LatestJobWorker[Path] | None = None

    def seems_lost(self, *, at_once: bool) -> bool:
        """Look, in a thread of its own, whether the folder is where it was; a disk that hangs holds nobody up.

        Args:
            at_once: Whether to look in any case; else once a second at the most.
        """
        if not self._missing and (at_once or time.monotonic() - self._looked >= SECONDS_BETWEEN_LOOKS):
            self._looked = time.monotonic()
            if self._looker is None:
                self._looker = LatestJobWorker(self._look, lambda job, error: None, name="folder")
            self._looker.submit(self.run.path)
            self._looker.wait(SECONDS_FOR_A_LOOK)
        return self._missing

    def _look(self, path: Path) -> None:
        self._missing = not (self._is_at(path) and self._removed() is None)

    def _removed(self) -> Path | None:
        """Return what is no more; a removal that fails half-way leaves the folder, and run.json is written anew."""
        if not self.run.manifest_file.exists():
            return self.run.manifest_file
        is_there = self.run.settings_dir.exists()
        self._had_settings = self._had_settings or is_there
        return self.run.settings_dir if self._had_settings and not is_there else None

    def follow(self) -> str | None:
        """See whether the folder is where it was.

        Returns:
            What there is to say where it was moved.

        Raises:
            FolderRemovedError: It is gone.
            FormerPlaceTakenError: It was moved, but no link can stand in its former place; the run knows the new one.
        """
        self._missing = False
        if self._is_at(self.run.path):
            self._require_files()
            return None
        former, place = self.run.path, self._place()
        if place is None:
            raise FolderRemovedError(
                f"{former} was removed, and what was trained is lost. Start a new run. {_ON_ANOTHER_DISK}"
            )
        self.run.moved_to(place)
        self._require_files()
        for path in [*self._links, former]:
            self._link(path, place)
        return f"The run folder was moved. Training goes on in {place}; until it ends, a link stands at {former}."

    @property
    def is_elsewhere(self) -> bool:
        """Whether it was moved, and nobody has followed it yet."""
        return not self._is_at(self.run.path) and self._place() is not None

    def close(self) -> None:
        """Remove the links that lead from the old place of a moved folder to it."""
        if self._looker is not None:
            self._looker.close()
        for path, target in self._links.items():
            with contextlib.suppress(OSError):
                if path.is_symlink() and path.readlink() == target:
                    path.unlink()
        for folder in reversed(self._made):
            with contextlib.suppress(OSError):
                folder.rmdir()
        os.close(self._descriptor)

    def _is_at(self, path: Path) -> bool:
        try:
            return os.path.samestat(path.stat(), os.fstat(self._descriptor))
        except FileNotFoundError:
            return False
        except OSError:  # a file server that does not answer at the moment
            return True

    def _place(self) -> Path | None:
        """Return where the system says that the folder is; `None` if it is nowhere, or the system does not tell."""
        try:
            place = Path(f"/proc/self/fd/{self._descriptor}").readlink()
        except OSError:
            return None
        return place if place.is_absolute() and self._is_at(place) else None

    def _require_files(self) -> None:
        if (removed := self._removed()) is not None:
            raise FolderRemovedError(
                f"{removed} was removed, and what was trained is lost. Expected nobody to remove files "
                f"of a run that is trained. Start a new run. {_ON_ANOTHER_DISK}"
            )

    def _link(self, path: Path, place: Path) -> None:
        try:
            if path.is_symlink() and path in self._links:
                path.unlink()
            for folder in reversed([above for above in path.parents if not above.exists()]):
                folder.mkdir()
                self._made.append(folder)
            path.symlink_to(place, target_is_directory=True)
        except OSError as error:
            raise FormerPlaceTakenError(
                f"The run folder was moved to {place}, and no link to it can be made at {path}: {error.strerror}. "
                f"Training ends. Go on with it there: experiments_manager resume {place}"
            ) from error
        self._links[path] = place

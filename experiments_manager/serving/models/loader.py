"""How versions come into memory and leave it, in threads of their own, so that requests hardly notice.

`manager` decides which, and calls these functions under the lock of the registry; what they begin takes that lock
for itself whenever it writes something down.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from experiments_manager.protocol.status import Code, ServingError
from experiments_manager.serving.models.registry import ModelRegistry, Version
from experiments_manager.serving.models.signatures import Model
from experiments_manager.serving.models.version_policy import State, VersionStatus, check_files

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class LoadingOptions:
    """How versions are looked for and loaded; the names are those of tensorflow_model_server's flags.

    Attributes:
        poll_seconds: Seconds between two looks at the base paths; 0 looks once, at the start, and never again.
        max_load_retries: Further attempts to load a version that failed.
        retry_seconds: Seconds between them.
        threads: Versions that are loaded at the same time.
    """

    poll_seconds: float = 1.0
    max_load_retries: int = 5
    retry_seconds: float = 60.0
    threads: int = 1


class Loader:
    """Loads and unloads versions, and notes in the registry what came of it.

    Args:
        registry: Where versions stand.
        load: Loads a version from its folder; whatever it raises is the reason that is reported.
        options: How often to try, and how many versions at a time.
        warm_up: Called with the loaded model and its folder before the version counts as loaded.
        on_change: Called with (model name, status) under the lock of the registry whenever a version changes its state.
        on_load: Called with (path, seconds, whether it worked) after each attempt to load.
    """

    def __init__(
        self,
        registry: ModelRegistry,
        load: Callable[[Path], Model],
        options: LoadingOptions,
        warm_up: Callable[[Model, Path], None] | None,
        on_change: Callable[[str, VersionStatus], None] | None,
        on_load: Callable[[Path, float, bool], None] | None,
    ) -> None:
        self._registry, self._changed, self._options = registry, registry.changed, options
        registry.unload = self.unload
        self._load_model, self._warm_up = load, warm_up
        self._on_change, self._on_load = on_change, on_load
        self._threads = ThreadPoolExecutor(max(1, options.threads), "load")

    def load(self, entry: Version) -> None:
        """Begin to load a version."""
        entry.state, entry.next_attempt = State.LOADING, 0.0
        self.report(entry)
        self._threads.submit(self._load, entry)

    def begin_unload(self, entry: Version) -> None:
        """Take no new requests for a version, and unload it when the last one is answered."""
        entry.state = State.UNLOADING
        self._registry.choose_newest(entry.name)
        self.report(entry)
        if entry.leases == 0:
            self.unload(entry)

    def unload(self, entry: Version) -> None:
        """Begin to unload a version that has no lease."""
        # A thread for each: one that waits for a call that never ends must not keep the others in memory.
        entry.unloading = True
        threading.Thread(target=self._unload, args=(entry,), name="unload", daemon=True).start()

    def end(self, entry: Version) -> None:
        """Note that a version is not in memory, and that nothing is being done about it."""
        entry.state, entry.next_attempt = State.END, 0.0
        self.report(entry)

    def report(self, entry: Version) -> None:
        """Report the state of a version."""
        if self._on_change is not None:
            self._on_change(entry.name, entry.status)

    def close(self) -> None:
        """Wait for what is being loaded and unload all, without end where a call never ends.

        Called when the registry is closed and nobody loads any more, and not under its lock.
        """
        self._threads.shutdown(wait=True)  # what has not begun ends at once
        with self._changed:
            for entry in self._registry.entries():
                if entry.state == State.AVAILABLE:
                    self.begin_unload(entry)
            self._changed.wait_for(lambda: not any(entry.unloading for entry in self._registry.entries()))

    def _load(self, entry: Version) -> None:
        with self._changed:
            if self._registry.closed or not self._registry.is_wanted(entry):
                self.end(entry)
                self._changed.notify_all()
                return
        started = time.monotonic()
        model: Model | None = None
        files: object = None
        try:
            files = file_stamps(entry.path)
            check_files(entry.path)
            model = self._load_model(entry.path)
            if self._warm_up is not None:
                self._warm_up(model, entry.path)
        except Exception as error:
            logger.debug("loading %s failed", entry.path, exc_info=True)
            if model is not None:
                with contextlib.suppress(Exception):  # the first problem is the one to tell
                    model.close()
            self._note_load(entry.path, time.monotonic() - started, False)
            self._failed(entry, error, files)
            return
        self._note_load(entry.path, time.monotonic() - started, True)
        with self._changed:
            entry.model, entry.error, entry.state = model, None, State.AVAILABLE
            self._registry.choose_newest(entry.name)
            self.report(entry)
            self._changed.notify_all()
        logger.info("Loaded version %d of %s from %s", entry.number, entry.name, entry.path)

    def _failed(self, entry: Version, error: Exception, files: object) -> None:
        code = error.code if isinstance(error, ServingError) else Code.INTERNAL
        gone = not entry.path.exists()  # training keeps a few versions only
        with self._changed:
            entry.attempts += 1
            entry.error = ServingError(code, str(error) or type(error).__name__)
            again = entry.attempts <= self._options.max_load_retries and not self._registry.closed and not gone
            if again:
                entry.next_attempt = time.monotonic() + max(self._options.retry_seconds, 1e-3)
            else:
                entry.state, entry.gone = State.END, gone
            entry.files, entry.seen = None if gone else files, None
            if gone and self._options.poll_seconds > 0:  # most likely there is a newer one
                self._registry.look_again = True
            self.report(entry)
            self._changed.notify_all()
        if gone:
            logger.info("Version %d of %s was removed before it could be loaded", entry.number, entry.name)
            return
        hint = (
            f"trying again in {self._options.retry_seconds:g} s, or when its files have changed"
            if again
            else "giving up on it"
        )
        logger.error("Loading version %d of %s failed, %s: %s", entry.number, entry.name, hint, entry.error)

    def _unload(self, entry: Version) -> None:
        model, entry.model = entry.model, None
        try:
            if model is not None:
                model.close()
        except Exception:
            logger.warning("closing version %d of %s failed", entry.number, entry.name, exc_info=True)
        with self._changed:
            entry.unloading = False
            self.end(entry)
            if self._registry.is_wanted(entry):  # again: the configuration has changed meanwhile
                self._registry.look_again = True
            self._changed.notify_all()
        logger.info("Unloaded version %d of %s", entry.number, entry.name)

    def _note_load(self, path: Path, seconds: float, worked: bool) -> None:
        if self._on_load is not None:
            self._on_load(path, seconds, worked)


def file_stamps(path: Path) -> object:
    """Return names, sizes and times of the files of a version, which change where it does; `None` if unreadable."""
    try:
        files = sorted(file for file in path.rglob("*") if file.is_file())
        return [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    except OSError:
        return None

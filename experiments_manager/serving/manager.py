"""Which versions are served: watching folders, loading before unloading, retrying, and handing out versions to requests.

One thread looks at the base paths and decides; loading and unloading happen in threads of their own, at low priority, so
that requests hardly notice. A request borrows a version with `get`, and a version that has been replaced is closed when
its last borrower gives it back.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

from experiments_manager.serving.errors import Code, ServingError, failed_precondition, invalid_argument, not_found
from experiments_manager.serving.signatures import Model
from experiments_manager.serving.versions import ModelConfig, State, VersionStatus, list_versions

logger = logging.getLogger(__name__)

REMEMBERED = 100
"""Ended versions whose last state is still told, for each model."""


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


@dataclasses.dataclass(eq=False)
class _Version:
    """One version in the manager's books; changed under its lock only."""

    name: str
    number: int
    path: Path
    state: State = State.START
    error: ServingError | None = None
    model: Model | None = None
    users: int = 0
    attempts: int = 0
    next_attempt: float = 0.0
    files: object = None
    """What the folder looked like when loading failed for good; when it changes, loading is tried anew."""

    @property
    def status(self) -> VersionStatus:
        code, message = (self.error.code, self.error.message) if self.error else (Code.OK, "")
        return VersionStatus(self.number, self.state, code, message)


class Lease:
    """A version that a request has borrowed; a context manager that gives it back. Made by `ModelManager.get`.

    Attributes:
        name: Name of the model.
        version: Its version.
        model: What answers.
    """

    __slots__ = ("_entry", "_manager", "model", "name", "version")

    def __init__(self, manager: ModelManager, entry: _Version) -> None:
        self._manager, self._entry = manager, entry
        self.name, self.version, self.model = entry.name, entry.number, entry.model

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._manager._give_back(self._entry)


class ModelManager:
    """Serves versions of several models and keeps them up to date.

    Args:
        configs: The models.
        load: Loads a version from its folder; whatever it raises is the reason that is reported.
        options: How to look for versions and load them.
        warm_up: Called with the loaded model and its folder before the version takes over; if it raises, the version
            counts as one that failed to load.
        on_change: Called with (model name, status) in a loading thread whenever a version changes its state.
        on_load: Called with (path, seconds, whether it worked) after each attempt to load.
    """

    def __init__(
        self,
        configs: Sequence[ModelConfig],
        load: Callable[[Path], Model],
        *,
        options: LoadingOptions | None = None,
        warm_up: Callable[[Model, Path], None] | None = None,
        on_change: Callable[[str, VersionStatus], None] | None = None,
        on_load: Callable[[Path, float, bool], None] | None = None,
    ) -> None:
        self._options = options or LoadingOptions()
        self._load_model, self._warm_up = load, warm_up
        self._on_change, self._on_load = on_change, on_load
        self._configs = {config.name: config for config in configs}
        self._labels = {config.name: dict(config.labels) for config in configs}
        self._versions: dict[str, dict[int, _Version]] = {}
        self._newest: dict[str, _Version] = {}
        self._changed = threading.Condition(threading.RLock())
        self._poll_at_once = False
        self._closed = False
        self._wanted: dict[str, set[int]] = {}
        self._polled: dict[str, str | None] = {}
        """Models whose base path was looked at, with what was wrong with it."""
        self._loaders = ThreadPoolExecutor(max(1, self._options.threads), "load")
        self._unloader = ThreadPoolExecutor(1, "unload")
        self._watcher = threading.Thread(target=self._watch, name="versions", daemon=True)

    # For requests

    def get(self, name: str, version: int | None = None, label: str | None = None) -> Lease:
        """Borrows a version; use as `with manager.get("digits") as lease:`.

        Args:
            name: Name of the model.
            version: Its version; `None` for the newest that is available.
            label: A label instead of a version.

        Raises:
            ServingError: INVALID_ARGUMENT without a name or for an unknown label; NOT_FOUND where no such version is
                available.
        """
        if not name:
            raise invalid_argument("ModelSpec has no name specified.")
        if label is not None:
            version = self._version_of(name, label)
        with self._changed:
            entry = self._newest.get(name) if version is None else self._versions.get(name, {}).get(version)
            if entry is None or entry.state != State.AVAILABLE:
                wanted = f"Latest({name})" if version is None else f"Specific({name}, {version})"
                raise not_found(f"Servable not found for request: {wanted}")
            entry.users += 1
        return Lease(self, entry)

    def statuses(self, name: str, version: int | None = None, label: str | None = None) -> list[VersionStatus]:
        """Gives the states of a model's versions, newest first, or of one.

        Raises:
            ServingError: NOT_FOUND where there is no such version or none at all.
        """
        if label is not None:
            version = self._version_of(name, label)
        with self._changed:
            entries = self._versions.get(name, {})
            if version is not None:
                if version not in entries:
                    raise not_found(f"Could not find version {version} of model {name}")
                return [entries[version].status]
            if not entries:
                raise not_found(f"Could not find any versions of model {name}")
            return [entries[number].status for number in sorted(entries, reverse=True)]

    @property
    def ready(self) -> bool:
        """Whether every model has a version that answers."""
        with self._changed:
            return bool(self._configs) and all(name in self._newest for name in self._configs)

    @property
    def names(self) -> list[str]:
        """Names of the models that are configured."""
        return list(self._configs)

    def _version_of(self, name: str, label: str) -> int:
        version = self._labels.get(name, {}).get(label)
        if version is None:
            raise invalid_argument(f"Unrecognized servable version label: {label}")
        return version

    def _give_back(self, entry: _Version) -> None:
        with self._changed:
            entry.users -= 1
            idle = entry.users == 0 and entry.state == State.UNLOADING
        if idle:
            self._unloader.submit(self._unload, entry)

    # For the server

    def start(self) -> None:
        """Begins to look for versions and to load them, in threads of its own."""
        self._watcher.start()

    def wait_until_ready(self, timeout: float | None = None) -> bool:
        """Waits until every model has a version that answers.

        Args:
            timeout: Seconds to wait at most.

        Returns:
            Whether that is so; `False` also where every version on the disk has failed for good, or after `close`.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self.ready or self._hopeless(), timeout)
            return self.ready

    def problems(self) -> dict[str, str]:
        """Tells for each model that does not answer why not."""
        with self._changed:
            found = {}
            for name, config in self._configs.items():
                if name in self._newest:
                    continue
                errors = [entry for entry in self._versions.get(name, {}).values() if entry.error]
                found[name] = (
                    self._polled.get(name)
                    or next((f"version {entry.number}: {entry.error}" for entry in errors), None)
                    or f"no version was loaded yet from {config.base_path}"
                )
            return found

    def _hopeless(self) -> bool:
        """Whether some model has versions, and all of them failed for good."""
        for name in self._configs:
            entries = [entry for entry in self._versions.get(name, {}).values()]
            if entries and all(entry.state == State.END and entry.error for entry in entries):
                return True
        return False

    def reload(self, configs: Sequence[ModelConfig], timeout: float | None = None) -> None:
        """Puts another configuration in force; versions that both name stay as they are.

        Waits until the models that are new have a version that answers, as TensorFlow Serving does.

        Args:
            configs: All models to serve from now on.
            timeout: Seconds to wait at most.

        Raises:
            ServingError: UNKNOWN where a new model did not become available, with the reason (the configuration stays in
                force); FAILED_PRECONDITION for a label on a version that is not available.
        """
        with self._changed:
            new = [config.name for config in configs if config.name not in self._configs]
            self._configs = {config.name: config for config in configs}
            for name in [name for name in self._labels if name not in self._configs]:
                del self._labels[name]
            self._poll_at_once = True
            self._polled.clear()
            self._changed.notify_all()
            awaited = [*new, *(config.name for config in configs if config.labels and config.name not in new)]
            self._changed.wait_for(lambda: self._closed or self._settled(awaited), timeout)
            missing = [name for name in new if name not in self._newest]
            if missing:
                reasons = "; ".join(f"{name}: {reason}" for name, reason in self.problems().items() if name in missing)
                raise ServingError(Code.UNKNOWN, f"Some models did not become available: {{{reasons}}}")
            self._assign_labels(configs)

    def _settled(self, names: Sequence[str]) -> bool:
        """Whether all versions that these models should have are there, or failed at least once."""
        for name in names:
            if name not in self._polled:
                return False
            config = self._configs.get(name)
            if config is None or self._polled[name]:
                continue
            for number in config.policy.choose([*self._wanted.get(name, ())]):
                entry = self._versions.get(name, {}).get(number)
                if entry is None or (entry.state != State.AVAILABLE and entry.error is None):
                    return False
        return True

    def _assign_labels(self, configs: Sequence[ModelConfig]) -> None:
        for config in configs:
            for label, version in config.labels.items():
                entry = self._versions.get(config.name, {}).get(version)
                if entry is None or entry.state != State.AVAILABLE:
                    raise failed_precondition(
                        f"Request to assign label {label} to version {version} of model {config.name} which isn't "
                        "currently available"
                    )
            self._labels[config.name] = dict(config.labels)

    def close(self) -> None:
        """Stops looking, waits for what is being loaded, and closes every version that nobody uses."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._watcher.is_alive():
            self._watcher.join()
        self._loaders.shutdown(wait=True, cancel_futures=True)
        with self._changed:
            self._newest.clear()
            entries = [entry for versions in self._versions.values() for entry in versions.values()]
            for entry in entries:
                if entry.state == State.AVAILABLE:
                    self._retire(entry)
        self._unloader.shutdown(wait=True)

    # The watching thread

    def _watch(self) -> None:

        next_poll = 0.0
        while True:
            with self._changed:
                if self._closed:
                    return
                due = self._poll_at_once or time.monotonic() >= next_poll
                self._poll_at_once = False
            if due:
                self._poll()
                seconds = self._options.poll_seconds
                next_poll = time.monotonic() + seconds if seconds > 0 else float("inf")
            with self._changed:
                self._reconcile()
                wake = min([next_poll, *self._retry_times()])
                if not self._poll_at_once and not self._closed:
                    self._changed.wait(None if wake == float("inf") else max(0.0, wake - time.monotonic()))

    def _retry_times(self) -> Iterator[float]:
        for entry in self._entries():
            if entry.state == State.LOADING and entry.next_attempt > 0:
                yield entry.next_attempt

    def _entries(self) -> list[_Version]:
        return [entry for versions in self._versions.values() for entry in versions.values()]

    def _poll(self) -> None:
        """Looks at every base path. One that cannot be read changes nothing: what is served stays."""
        with self._changed:
            configs = dict(self._configs)
        for name, config in configs.items():
            problem, paths = None, None
            try:
                paths = list_versions(config.base_path)
            except OSError as error:
                problem = f"Could not find base path {config.base_path} for servable {name} ({error.strerror})"
            if paths is not None:
                chosen = config.policy.choose(list(paths))
                if not chosen:
                    problem = (
                        f"No versions of servable {name} found under base path {config.base_path}. Did you forget to "
                        "name your leaf directory as a number (eg. '/1/')?"
                    )
            with self._changed:
                if self._configs.get(name) is not config:
                    continue
                if problem and self._polled.get(name) != problem:
                    logger.warning("%s", problem)
                self._polled[name] = problem
                if paths is not None:
                    self._want(name, {number: paths[number] for number in chosen})
                self._changed.notify_all()
        with self._changed:
            for name in [name for name in self._wanted if name not in self._configs]:
                self._wanted[name] = set()

    def _want(self, name: str, paths: Mapping[int, Path]) -> None:
        self._wanted[name] = set(paths)
        entries = self._versions.setdefault(name, {})
        for number, path in paths.items():
            entry = entries.get(number)
            if entry is not None and entry.state == State.END:
                failed = entry.error is not None and entry.path == path
                if failed and entry.files == _look(path):
                    continue  # still as it was when it failed for good
                entry = None
            if entry is None:
                entries[number] = _Version(name, number, path)
                self._tell(entries[number])

    def _reconcile(self) -> None:
        """Starts what is due: newest versions first, and nothing is unloaded before a wanted version answers."""
        now = time.monotonic()
        for entry in sorted(self._entries(), key=lambda entry: -entry.number):
            wanted = entry.number in self._wanted.get(entry.name, ())
            if entry.state == State.START or (entry.state == State.LOADING and 0 < entry.next_attempt <= now):
                if wanted:
                    entry.state, entry.next_attempt = State.LOADING, 0.0
                    self._tell(entry)
                    self._loaders.submit(self._load, entry)
                else:
                    self._end(entry)
            elif entry.state == State.LOADING and entry.next_attempt > 0 and not wanted:
                self._end(entry)
            elif entry.state == State.AVAILABLE and not wanted and self._replaceable(entry.name):
                self._retire(entry)
        self._forget()

    def _replaceable(self, name: str) -> bool:
        wanted = self._wanted.get(name, set())
        entries = self._versions.get(name, {})
        return not wanted or any(entries[number].state == State.AVAILABLE for number in wanted if number in entries)

    def _retire(self, entry: _Version) -> None:
        entry.state = State.UNLOADING
        self._choose_newest(entry.name)
        self._tell(entry)
        if entry.users == 0:
            self._unloader.submit(self._unload, entry)

    def _end(self, entry: _Version) -> None:
        entry.state, entry.next_attempt = State.END, 0.0
        self._tell(entry)

    def _choose_newest(self, name: str) -> None:
        available = [entry for entry in self._versions.get(name, {}).values() if entry.state == State.AVAILABLE]
        if available:
            self._newest[name] = max(available, key=lambda entry: entry.number)
        else:
            self._newest.pop(name, None)

    def _forget(self) -> None:
        """Keeps the books short: of versions that ended, the newest are remembered."""
        for name, entries in self._versions.items():
            wanted = self._wanted.get(name, set())
            ended = sorted(number for number, entry in entries.items() if entry.state == State.END)
            for number in ended[:-REMEMBERED]:
                if number not in wanted:
                    del entries[number]

    # The loading threads

    def _load(self, entry: _Version) -> None:
        with self._changed:
            if self._closed or entry.number not in self._wanted.get(entry.name, ()):
                self._end(entry)
                self._changed.notify_all()
                return
        started = time.monotonic()
        model: Model | None = None
        try:
            files = _look(entry.path)
            model = self._load_model(entry.path)
            if self._warm_up is not None:
                self._warm_up(model, entry.path)
        except Exception as error:
            logger.debug("loading %s failed", entry.path, exc_info=True)
            if model is not None:
                model.close()
            self._note_load(entry.path, time.monotonic() - started, False)
            self._failed(entry, error, files)
            return
        self._note_load(entry.path, time.monotonic() - started, True)
        with self._changed:
            entry.model, entry.error, entry.state = model, None, State.AVAILABLE
            self._choose_newest(entry.name)
            self._tell(entry)
            self._changed.notify_all()
        logger.info("Serving version %d of %s from %s", entry.number, entry.name, entry.path)

    def _failed(self, entry: _Version, error: Exception, files: object) -> None:
        code = error.code if isinstance(error, ServingError) else Code.INTERNAL
        with self._changed:
            entry.attempts += 1
            entry.error = ServingError(code, str(error) or type(error).__name__)
            again = entry.attempts <= self._options.max_load_retries and not self._closed
            if again:
                entry.next_attempt = time.monotonic() + max(self._options.retry_seconds, 1e-3)
            else:
                entry.state, entry.files = State.END, files
            self._tell(entry)
            self._changed.notify_all()
        hint = f"trying again in {self._options.retry_seconds:g} s" if again else "giving up on it"
        logger.error("Loading version %d of %s failed, %s: %s", entry.number, entry.name, hint, entry.error)

    def _unload(self, entry: _Version) -> None:
        model, entry.model = entry.model, None
        try:
            if model is not None:
                model.close()
        except Exception:
            logger.warning("closing version %d of %s failed", entry.number, entry.name, exc_info=True)
        with self._changed:
            self._end(entry)
            self._changed.notify_all()
        logger.info("Unloaded version %d of %s", entry.number, entry.name)

    def _tell(self, entry: _Version) -> None:
        if self._on_change is not None:
            self._on_change(entry.name, entry.status)

    def _note_load(self, path: Path, seconds: float, worked: bool) -> None:
        if self._on_load is not None:
            self._on_load(path, seconds, worked)


def _look(path: Path) -> object:
    """What a version's folder looks like: names, sizes and times of its files."""
    try:
        files = sorted(file for file in path.rglob("*") if file.is_file())
        return [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    except OSError:
        return None

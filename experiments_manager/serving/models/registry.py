"""The model registry: which versions there are, which are wanted, what became of each, and who has leased them.

Nothing happens here but looking up and writing down; `manager` and `loader` act on it. All of it is used under one
lock, `changed`.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from experiments_manager.protocol.status import Code, ServingError, failed_precondition, invalid_argument, not_found
from experiments_manager.serving.models.signatures import Model, ModelRef
from experiments_manager.serving.models.version_policy import LabelRule, ModelConfig, State, VersionStatus

REMEMBERED = 100
"""Ended versions whose last state is still reported, for each model."""


@dataclasses.dataclass(eq=False)
class Version:
    """One version in the registry; changed under its lock only."""

    name: str
    number: int
    path: Path
    state: State = State.START
    error: ServingError | None = None
    model: Model | None = None
    leases: int = 0
    unloading: bool = False
    """Whether it is being closed at this moment, which waits for the calls that it runs."""
    attempts: int = 0
    next_attempt: float = 0.0
    gone: bool = False
    """Whether its folder was removed before it could be loaded, as a training removes old versions."""
    files: object = None
    """What the folder looked like when loading failed; when it has changed, and stays, loading is tried again."""
    seen: object = None
    """What it looked like a moment ago, where that is something else: it is being written."""

    @property
    def status(self) -> VersionStatus:
        """Its state, as it is reported."""
        code, message = (self.error.code, self.error.message) if self.error else (Code.OK, "")
        return VersionStatus(self.number, self.state, code, message)


class Lease:
    """The right of a request to use a version; a context manager that ends it. Made by `ModelRegistry.lease`.

    Attributes:
        name: Name of the model.
        version: Its version.
        model: What answers.
    """

    __slots__ = ("_entry", "_registry", "model", "name", "version")

    def __init__(self, registry: ModelRegistry, entry: Version) -> None:
        self._registry, self._entry = registry, entry
        self.name, self.version, self.model = entry.name, entry.number, entry.model

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        entry = self._entry
        with self._registry.changed:
            entry.leases -= 1
            if entry.leases == 0 and entry.state == State.UNLOADING:
                self._registry.unload(entry)


class ModelRegistry:
    """What is known of models and versions.

    Attributes:
        changed: The lock for everything here; it is notified of every change.
        configs: The models in force, by name.
        newest: The newest version that answers, by model.
        wanted: Numbers of the versions that should be served, by model.
        polled: What was wrong with a model's base path when it was last looked at, `None` where all was well.
        look_again: Whether base paths should be looked at without delay.
        closed: Whether everything ends, so that nothing is begun any more.
        unload: Called, under the lock, with a version that takes no new requests, when its last lease ends.
    """

    def __init__(self, configs: Sequence[ModelConfig]) -> None:
        self.changed = threading.Condition(threading.RLock())
        self.configs = {config.name: config for config in configs}
        self.labels = {config.name: dict(config.labels) for config in configs}
        self.versions: dict[str, dict[int, Version]] = {}
        self.newest: dict[str, Version] = {}
        self.wanted: dict[str, set[int]] = {}
        self.polled: dict[str, str | None] = {}
        self.look_again = False
        self.closed = False
        self.unload: Callable[[Version], None]

    def lease(self, ref: ModelRef) -> Lease:
        """Lease a version to a request: `with registry.lease(ModelRef("digits")) as lease:`.

        Raises:
            ServingError: INVALID_ARGUMENT without a name or for an unknown label; NOT_FOUND where no such version is
                available.
        """
        if not ref.name:
            raise invalid_argument("ModelSpec has no name specified.")
        with self.changed:
            entry = self._find(ref.name, self._number(ref))
            entry.leases += 1
            return Lease(self, entry)

    def _number(self, ref: ModelRef) -> int | None:
        if ref.label is None:
            return ref.version
        version = self.labels.get(ref.name, {}).get(ref.label)
        if version is None:
            raise invalid_argument(f"Unrecognized servable version label: {ref.label}")
        return version

    def _find(self, name: str, version: int | None) -> Version:
        entry = self.newest.get(name) if version is None else self.versions.get(name, {}).get(version)
        if entry is None or entry.state != State.AVAILABLE:
            wanted = f"Latest({name})" if version is None else f"Specific({name}, {version})"
            raise not_found(f"Servable not found for request: {wanted}")
        return entry

    def statuses(self, ref: ModelRef) -> list[VersionStatus]:
        """Return the states of all versions, newest first, or of one, or raise NOT_FOUND."""
        name, version = ref.name, self._number(ref)
        entries = self.versions.get(name, {})
        if version is not None:
            if version not in entries:
                raise not_found(f"Could not find version {version} of model {name}")
            return [entries[version].status]
        if not entries:
            raise not_found(f"Could not find any versions of model {name}")
        return [entries[number].status for number in sorted(entries, reverse=True)]

    def entries(self) -> list[Version]:
        """Return all versions of all models."""
        return [entry for versions in self.versions.values() for entry in versions.values()]

    def unfinished(self) -> list[str]:
        """Tell which versions are being loaded, and which still answer requests or run calls."""
        reasons = []
        for entry in self.entries():
            if entry.state == State.LOADING and not entry.next_attempt:
                reasons.append(f"version {entry.number} of {entry.name} is being loaded")
            elif entry.leases or entry.unloading:
                reasons.append(f"version {entry.number} of {entry.name} still runs a call")
        return reasons

    def ready(self) -> bool:
        """Return whether every model has a version that answers."""
        return all(name in self.newest for name in self.configs)

    def cannot_become_ready(self, *, looking: bool) -> bool:
        """Return whether some model has versions, and all of them failed for good.

        Args:
            looking: Whether base paths are looked at again, so that others may come for those that are gone.
        """
        for name in self.configs:
            entries = [entry for entry in self.versions.get(name, {}).values() if not (looking and entry.gone)]
            if entries and all(entry.state == State.END and entry.error for entry in entries):
                return True
        return False

    def problems(self) -> dict[str, str]:
        """Tell for each model that does not answer why not."""
        reasons = {}
        for name, config in self.configs.items():
            if name in self.newest:
                continue
            errors = [entry for entry in self.versions.get(name, {}).values() if entry.error]
            reasons[name] = (
                self.polled.get(name)
                or next((f"version {entry.number}: {entry.error}" for entry in errors), None)
                or self._being_loaded(name)
                or f"no version found in {config.base_path} yet"
            )
        return reasons

    def _being_loaded(self, name: str) -> str | None:
        loading = [entry.number for entry in self.versions.get(name, {}).values() if entry.state != State.END]
        return f"version {max(loading)} is being loaded" if loading else None

    def all_ready_or_failed(self, names: Sequence[str]) -> bool:
        """Return whether all versions that these models should have answer, or failed at least once."""
        for name in names:
            if name not in self.configs:  # another configuration came meanwhile
                continue
            if name not in self.polled:
                return False
            if self.polled[name]:
                continue
            for number in self.wanted.get(name, ()):
                entry = self.versions.get(name, {}).get(number)
                if entry is None or (entry.state != State.AVAILABLE and entry.error is None):
                    return False
        return True

    def adopt(self, configs: Sequence[ModelConfig]) -> list[str]:
        """Put another configuration in force, but for its labels; return the names of the models that are new."""
        new = [config.name for config in configs if config.name not in self.configs]
        self.configs = {config.name: config for config in configs}
        self.labels = {name: labels for name, labels in self.labels.items() if name in self.configs}
        self.polled.clear()
        return new

    def check_available(self, names: Sequence[str]) -> None:
        """Raise UNKNOWN where a model has no version that answers, with the reasons."""
        reasons = [f"{name}: {reason}" for name, reason in self.problems().items() if name in names]
        if reasons:
            raise ServingError(Code.UNKNOWN, f"Some models did not become available: {{{'; '.join(reasons)}}}")

    def refused_label(self, rule: LabelRule) -> ServingError | None:
        """Return FAILED_PRECONDITION where one of the configuration's labels names a version that it may not name."""
        for config in self.configs.values():
            for label, version in config.labels.items():
                entry = self.versions.get(config.name, {}).get(version)
                answers = entry is not None and entry.state == State.AVAILABLE
                unused = self.labels.get(config.name, {}).get(label, version) == version
                if not (answers or rule is LabelRule.ANY or (rule is LabelRule.UNUSED and unused)):
                    return failed_precondition(
                        f"Request to assign label to version {version} of model {config.name}, which is not currently "
                        f"available for inference: label {label}"
                    )
        return None

    def assign_labels(self) -> None:
        """Put the configuration's labels in force."""
        self.labels = {config.name: dict(config.labels) for config in self.configs.values()}

    def awaiting_retry(self, name: str) -> list[Version]:
        """Return the versions that failed and will be tried again."""
        return [entry for entry in self.versions.get(name, {}).values() if entry.next_attempt > 0]

    def failed(self, name: str, numbers: Iterable[int]) -> list[Path]:
        """Return the folders of those versions that failed for good; `want` has to know what they look like."""
        entries = [self.versions.get(name, {}).get(number) for number in numbers]
        return [entry.path for entry in entries if entry is not None and entry.state == State.END and entry.error]

    def want(self, name: str, paths: Mapping[int, Path], looks: Mapping[Path, object]) -> list[Version]:
        """Note which versions of a model should be served.

        Args:
            name: The model.
            paths: Folders of these versions, by number.
            looks: What those look like that `failed` named a moment ago.

        Returns:
            The versions that are new, or worth another attempt.
        """
        self.wanted[name] = set(paths)
        entries = self.versions.setdefault(name, {})
        new = []
        for number, path in paths.items():
            entry = entries.get(number)
            if entry is not None and entry.state != State.END:
                continue
            if entry is not None and entry.error and entry.path == path and looks.get(path, entry.files) == entry.files:
                continue  # it failed for good just now, or is still as it was when it did
            entries[number] = Version(name, number, path)
            new.append(entries[number])
        return new

    def is_wanted(self, entry: Version) -> bool:
        """Return whether a version should be served."""
        return entry.number in self.wanted.get(entry.name, ())

    def replaceable(self, name: str) -> bool:
        """Return whether a version of this model may go: another one that is wanted answers, or none is wanted."""
        wanted = self.wanted.get(name, set())
        entries = self.versions.get(name, {})
        return not wanted or any(entries[number].state == State.AVAILABLE for number in wanted if number in entries)

    def choose_newest(self, name: str) -> None:
        """Choose which version answers where a request names none."""
        available = [entry for entry in self.versions.get(name, {}).values() if entry.state == State.AVAILABLE]
        if available:
            self.newest[name] = max(available, key=lambda entry: entry.number)
        else:
            self.newest.pop(name, None)

    def forget(self) -> None:
        """Keep the registry short: of versions that ended, the newest are remembered."""
        for entries in self.versions.values():
            ended = sorted(number for number, entry in entries.items() if entry.state == State.END)
            for number in ended[:-REMEMBERED]:
                if not self.is_wanted(entries[number]):
                    del entries[number]

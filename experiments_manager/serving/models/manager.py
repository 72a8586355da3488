"""Which versions are served: watching folders, loading before unloading, and retrying.

One thread looks at the base paths and decides; loading and unloading happen in other threads (`loader`), so that
requests hardly notice. A request leases a version, and a version that has been replaced is closed when its last lease
ends.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from experiments_manager.export.versions import list_versions
from experiments_manager.serving.models.loader import Loader, LoadingOptions, file_stamps
from experiments_manager.serving.models.registry import ModelRegistry, Version
from experiments_manager.serving.models.signatures import Model, ModelRef
from experiments_manager.serving.models.version_policy import LabelRule, ModelConfig, State, VersionStatus

logger = logging.getLogger(__name__)

COPY_POLL_SECONDS = 0.5
"""Seconds between two looks while there is a version that could not be loaded: it may be being copied."""


class ModelManager:
    """Serves versions of several models and keeps them up to date.

    Args:
        configs: The models.
        load: Loads a version from its folder; whatever it raises is the reason that is reported.
        options: How to look for versions and load them.
        label_rule: Which versions a label may name.
        warm_up: Called with the loaded model and its folder before the version takes over; if it raises, the version
            counts as one that failed to load.
        on_change: Called with (model name, status) under the lock of the registry whenever a version changes its state.
        on_load: Called with (path, seconds, whether it worked) after each attempt to load.

    Attributes:
        registry: The versions.
        lease: Leases a version to a request; see `ModelRegistry.lease`.
    """

    def __init__(
        self,
        configs: Sequence[ModelConfig],
        load: Callable[[Path], Model],
        *,
        options: LoadingOptions | None = None,
        label_rule: LabelRule = LabelRule.AVAILABLE,
        warm_up: Callable[[Model, Path], None] | None = None,
        on_change: Callable[[str, VersionStatus], None] | None = None,
        on_load: Callable[[Path, float, bool], None] | None = None,
    ) -> None:
        self._options, self._label_rule = options or LoadingOptions(), label_rule
        self.registry = ModelRegistry(configs)
        self.lease = self.registry.lease
        self._changed = self.registry.changed
        self._loader = Loader(self.registry, load, self._options, warm_up, on_change, on_load)
        self._watcher = threading.Thread(target=self._watch, name="versions", daemon=True)

    # For requests

    def statuses(self, ref: ModelRef) -> list[VersionStatus]:
        """Return the states of a model's versions, newest first, or of one.

        Raises:
            ServingError: NOT_FOUND where the model has no such version, or none at all.
        """
        with self._changed:
            return self.registry.statuses(ref)

    def problems(self) -> dict[str, str]:
        """Tell for each model that does not answer why not."""
        with self._changed:
            return self.registry.problems()

    @property
    def names(self) -> list[str]:
        """Names of the models that are configured."""
        return list(self.registry.configs)

    # For the server

    def start(self) -> None:
        """Begin to look for versions and to load them, in threads of its own."""
        self._watcher.start()

    def wait_until_ready(self, timeout: float | None = None) -> bool:
        """Wait until every model has a version that answers.

        Args:
            timeout: Seconds to wait at most.

        Returns:
            Whether that is so; `False` also where every version on the disk has failed for good, or after `close`.
        """
        with self._changed:
            looking = self._options.poll_seconds > 0
            self._changed.wait_for(
                lambda: (
                    self.registry.closed or self.registry.ready() or self.registry.cannot_become_ready(looking=looking)
                ),
                timeout,
            )
            return self.registry.ready()

    def reload(self, configs: Sequence[ModelConfig], timeout: float | None = None) -> None:
        """Put another configuration in force; versions that both name stay as they are.

        Waits until the models that are new have a version that answers, as TensorFlow Serving does, and for versions
        that get a label.

        Args:
            configs: All models to serve from now on.
            timeout: Seconds to wait at most.

        Raises:
            ServingError: UNKNOWN where a new model did not become available, with the reason (the configuration stays
                in force); FAILED_PRECONDITION for a label on a version that is not available.
        """
        with self._changed:
            new = self.registry.adopt(configs)
            adopted = self.registry.configs
            self.registry.look_again = True
            self._changed.notify_all()
            awaited = set(new)
            labels_wait = self.registry.refused_label(self._label_rule) is not None
            if labels_wait:  # perhaps for versions that this configuration brings
                awaited |= {config.name for config in configs if config.labels}
            else:
                self.registry.assign_labels()
            self._changed.wait_for(
                lambda: self.registry.closed or self.registry.all_ready_or_failed(sorted(awaited)), timeout
            )
            self.registry.check_available(new)
            replaced = self.registry.configs is not adopted  # by another reload, which answers for its own labels
            if labels_wait and not replaced:
                if refusal := self.registry.refused_label(self._label_rule):
                    raise refusal
                self.registry.assign_labels()

    def close(self) -> None:
        """Stop looking, wait for what is being loaded, and close every version that nobody uses.

        A call that never ends is waited for without end; `unfinished` tells of it meanwhile.
        """
        with self._changed:
            self.registry.closed = True
            self._changed.notify_all()
        if self._watcher.is_alive():
            self._watcher.join()
        self._loader.close()

    def unfinished(self) -> list[str]:
        """Tell which versions are being loaded, and which still answer requests or run calls."""
        with self._changed:
            return self.registry.unfinished()

    # The watching thread

    def _watch(self) -> None:
        next_poll = 0.0
        while True:
            with self._changed:
                if self.registry.closed:
                    return
                due = self.registry.look_again or time.monotonic() >= next_poll
                self.registry.look_again = False
            if due:
                try:
                    self._poll()
                except Exception:  # whatever a file system comes up with: what is served stays
                    logger.exception("looking for versions failed")
                seconds = self._options.poll_seconds
                if any(True for _ in self._retry_times()):  # perhaps a version is being copied
                    seconds = min(seconds, COPY_POLL_SECONDS)
                next_poll = time.monotonic() + seconds if seconds > 0 else float("inf")
            with self._changed:
                self._reconcile()
                wake = min([next_poll, *self._retry_times()])
                if not self.registry.look_again and not self.registry.closed:
                    self._changed.wait(None if wake == float("inf") else max(0.0, wake - time.monotonic()))

    def _retry_times(self) -> Iterator[float]:
        for entry in self.registry.entries():
            if entry.state == State.LOADING and entry.next_attempt > 0:
                yield entry.next_attempt

    def _poll(self) -> None:
        """Look at every base path. One that cannot be read changes nothing: what is served stays."""
        with self._changed:
            configs = dict(self.registry.configs)
        for name, config in configs.items():
            problem, paths, chosen = None, None, set()
            try:
                paths = list_versions(config.base_path)
            except Exception as error:  # whatever it is, the models that follow are looked at
                problem = _unreadable(name, config.base_path, error)
            if paths is not None:
                chosen = config.policy.choose(list(paths))
                if not chosen:
                    problem = (
                        f"No versions of servable {name} found under base path {config.base_path}. Did you forget to "
                        "name your leaf directory as a number (eg. '/1/')?"
                    )
            with self._changed:
                failed = self.registry.failed(name, chosen)
                awaiting = self.registry.awaiting_retry(name)
            self._look_at(awaiting)
            looks = {path: file_stamps(path) for path in failed}  # not under the lock: a file system may take its time
            with self._changed:
                if self.registry.closed:
                    return
                if self.registry.configs.get(name) is not config:
                    continue
                if problem and self.registry.polled.get(name) != problem:
                    logger.warning("%s", problem)
                self.registry.polled[name] = problem
                if paths is not None:
                    for entry in self.registry.want(name, {number: paths[number] for number in chosen}, looks):
                        self._loader.report(entry)
                self._changed.notify_all()
        with self._changed:
            for name in self.registry.wanted.keys() - self.registry.configs.keys():
                self.registry.wanted[name] = set()

    def _look_at(self, awaiting: Sequence[Version]) -> None:
        """Try a version that failed again as soon as its files have changed, and do not change any more."""
        for entry in awaiting:
            look = file_stamps(entry.path)  # not under the lock: a file system may take its time
            with self._changed:
                if look is None or look == entry.files or entry.next_attempt <= 0:
                    entry.seen = None
                elif look == entry.seen:
                    entry.attempts, entry.next_attempt = 0, min(entry.next_attempt, time.monotonic())
                else:
                    entry.seen = look

    def _reconcile(self) -> None:
        """Start what is due: newest versions first, and nothing is unloaded before a wanted version answers."""
        now = time.monotonic()
        for entry in sorted(self.registry.entries(), key=lambda entry: -entry.number):
            wanted = self.registry.is_wanted(entry)
            if entry.state == State.START or (entry.state == State.LOADING and 0 < entry.next_attempt <= now):
                if wanted:
                    self._loader.load(entry)
                else:
                    self._loader.end(entry)
            elif entry.state == State.LOADING and entry.next_attempt > 0 and not wanted:
                self._loader.end(entry)
            elif entry.state == State.AVAILABLE and not wanted and self.registry.replaceable(entry.name):
                self._loader.begin_unload(entry)
        self.registry.forget()


def _unreadable(name: str, base_path: Path, error: Exception) -> str:
    shown = str(base_path) if str(base_path).isprintable() else repr(str(base_path))
    return f"Could not find base path {shown} for servable {name} ({getattr(error, 'strerror', None) or error})"

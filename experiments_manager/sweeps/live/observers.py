"""Those who watch a sweep, and all of them as one."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from experiments_manager.sweeps.driver import Observer
from experiments_manager.sweeps.experiment import SweptExperiment
from experiments_manager.sweeps.results.table import write_table
from experiments_manager.sweeps.state.folder import SweepFolder
from experiments_manager.sweeps.state.trials import SweepState

_SECONDS_BETWEEN_TABLES = 2.0


class Together(Observer):
    """Several observers as one."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = list(observers)

    def on_event(self, state: SweepState, event: Mapping[str, Any]) -> None:
        """Hand it on to all observers."""
        for observer in self._observers:
            observer.on_event(state, event)

    def on_epoch(self, trial: int, epoch: int, epochs: int, value: float | None) -> None:
        """Hand it on to all observers."""
        for observer in self._observers:
            observer.on_epoch(trial, epoch, epochs, value)

    def on_queue(self, trial: int, reason: str) -> None:
        """Hand it on to all observers."""
        for observer in self._observers:
            observer.on_queue(trial, reason)

    def on_wait(self, state: SweepState) -> None:
        """Hand it on to all observers."""
        for observer in self._observers:
            observer.on_wait(state)


class TableWriter(Observer):
    """Keeps `trials.csv` up to date, and writes it every other second at most: it grows with the sweep."""

    def __init__(self, folder: SweepFolder, names: Sequence[str]) -> None:
        self._folder, self._names = folder, names
        self._written = 0.0
        self._changed = False

    def on_event(self, state: SweepState, event: Mapping[str, Any]) -> None:
        """Note that there is something new."""
        self._changed = True

    def on_wait(self, state: SweepState) -> None:
        """Write the table if it is time to."""
        if self._changed and time.monotonic() - self._written > _SECONDS_BETWEEN_TABLES:
            write_table(self._folder, self._names, state)
            self._changed, self._written = False, time.monotonic()


def chosen_observers(
    *, quiet: bool, serve: bool
) -> Callable[[SweepFolder, SweptExperiment, int], contextlib.AbstractContextManager[Observer]]:
    """Return what makes those who watch a sweep, given its folder, its experiment and the most trials that it has."""

    @contextlib.contextmanager
    def make(folder: SweepFolder, experiment: SweptExperiment, most: int) -> Iterator[Observer]:
        from experiments_manager.sweeps.live.terminal import terminal_display

        with contextlib.ExitStack() as stack:
            chosen: list[Observer] = [TableWriter(folder, experiment.names)]
            if serve:
                from experiments_manager.sweeps.live.serving import BestServer

                chosen.append(stack.enter_context(contextlib.closing(BestServer(folder, experiment))))
            if not quiet:
                chosen.append(stack.enter_context(terminal_display(folder, experiment, most)))
            yield Together(chosen)

    return make

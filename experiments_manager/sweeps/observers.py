"""Those who watch a sweep: `trials.csv`, and a bar above a table of trials on a terminal, lines elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.table import Table

from experiments_manager.common.console import warn
from experiments_manager.common.display.progress import ProgressDisplay
from experiments_manager.common.display.quantities import format_duration
from experiments_manager.sweeps.driver import Observer
from experiments_manager.sweeps.experiment import SweptExperiment
from experiments_manager.sweeps.results.table import write_table
from experiments_manager.sweeps.state.folder import SweepFolder
from experiments_manager.sweeps.state.trials import FAILED, FINISHED, PAUSED, PRUNED, RUNNING, SweepState, best_trial

_BARS = "▁▂▃▄▅▆▇█"
_LONGEST_CURVE = 24
_MOST_BEST = 5


@contextlib.contextmanager
def terminal_display(folder: SweepFolder, experiment: SweptExperiment, most: int) -> Iterator[Observer]:
    """Give the display that suits where standard error goes, and take it away at the end."""
    with ProgressDisplay() as display:
        if display.moves:
            yield LiveTable(display, experiment, most)
        else:
            display.say(f"Sweep folder {folder.path}")
            yield Lines(experiment, most)


def sparkline(values: list[float | None]) -> str:
    """Draw a curve as text, one character a value; the last `_LONGEST_CURVE` of them, and `·` where there is none."""
    values = values[-_LONGEST_CURVE:]
    numbers = [value for value in values if value is not None and value == value and abs(value) != float("inf")]
    if not numbers:
        return "·" * len(values)
    low, span = min(numbers), (max(numbers) - min(numbers)) or 1.0
    height = len(_BARS) - 1
    return "".join(_BARS[round((value - low) / span * height)] if value in numbers else "·" for value in values)


def overrides_text(overrides: Mapping[str, Any]) -> str:
    """Write the values of a trial in a line."""
    parts = (f"{name.removeprefix('hparams.')}={_short(value)}" for name, value in sorted(overrides.items()))
    return " ".join(parts)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


class Lines(Observer):
    """A line for each trial that ended, for logs."""

    def __init__(self, experiment: SweptExperiment, most: int) -> None:
        self._experiment, self._most = experiment, most

    def on_event(self, state: SweepState, event: Mapping[str, Any]) -> None:
        """Write a line where a trial has ended, was paused, or goes on."""
        if event["event"] == "submitted":
            warn(f"trial {event['trial']} is job {event['job']}")
        if event["event"] == "interrupted" and event["counts"]:
            warn(f"trial {event['trial']} was broken off after {event['epoch']} epochs: {event['reason']}")
        if event["event"] == "promoted":
            warn(f"trial {event['trial']} goes on after {event['epoch']} epochs")
        if event["event"] not in ("ended", "reported") or event.get("go"):
            return
        trial = state.trials[event["trial"]]
        best = best_trial(state.trials.values(), self._experiment.modes)
        values = " ".join(
            f"{name} {_short(value)}" for name, value in zip(self._experiment.names, trial.values or (), strict=False)
        )
        words = [f"trial {trial.number} of {self._most} {trial.state}:", *([values] if values else [])]
        words += [f"after {trial.epochs} epochs;", overrides_text(trial.overrides)]
        words += [f"({trial.reason})"] if trial.reason else []
        if best is not None:
            words.append(f"- best {_short(best.values[0])} (trial {best.number})")
        warn(" ".join(words))


class LiveTable(Observer):
    """The best trials, those that run with their curves, and how long the rest will take."""

    def __init__(self, display: ProgressDisplay, experiment: SweptExperiment, most: int) -> None:
        self._display, self._experiment, self._most = display, experiment, most
        self._curves: dict[int, list[float | None]] = {}
        self._epochs: dict[int, tuple[int, int]] = {}
        self._waiting: dict[int, str] = {}
        self._began = time.monotonic()
        self._ended_before: int | None = None

    def on_event(self, state: SweepState, event: Mapping[str, Any]) -> None:
        """Forget the curve of a trial that ended, and draw."""
        if event["event"] == "ended":
            self._curves.pop(event["trial"], None)
            self._epochs.pop(event["trial"], None)

    def on_epoch(self, trial: int, epoch: int, epochs: int, value: float | None) -> None:
        """Add an epoch's value to the curve of its trial."""
        self._epochs[trial] = (epoch, epochs)
        self._waiting.pop(trial, None)
        if epoch and value is not None:
            self._curves.setdefault(trial, []).append(value)

    def on_queue(self, trial: int, reason: str) -> None:
        """Show that it waits, until there is an epoch to show."""
        self._waiting[trial] = f"queued ({reason})" if reason and reason != "None" else "queued"

    def on_wait(self, state: SweepState) -> None:
        """Draw, if it is time to."""
        if self._ended_before is None:
            self._ended_before = len(self._ended(state))
        if self._display.is_due():
            ended = len(self._ended(state))
            place = f"trial {ended}/{self._most}"
            self._display.show(place, self._text(state), done=ended, total=self._most, below=self.table(state))

    def table(self, state: SweepState) -> Table:
        """Make the table: the best trials, and those that run."""
        table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
        for name in ("trial", "state", *self._experiment.names, "epochs", "curve", "settings"):
            table.add_column(name, no_wrap=True, overflow="ellipsis")
        for place, trial in enumerate(self._best(state)):
            table.add_row(str(trial.number), "" if place else "best", *map(_short, trial.values), str(trial.epochs),
                          sparkline(trial.curve), overrides_text(trial.overrides))  # fmt: skip
        for trial in state.of_state(RUNNING):
            done, of = self._epochs.get(trial.number, (0, 0))
            curve = self._curves.get(trial.number, [])
            values = [_short(curve[-1]) if curve else "", *[""] * (len(self._experiment.names) - 1)]
            state_of = self._waiting.get(trial.number, "running")
            table.add_row(str(trial.number), state_of, *values, f"{done}/{of}" if of else "starts", sparkline(curve),
                          overrides_text(trial.overrides))  # fmt: skip
        return table

    def _best(self, state: SweepState) -> list[Any]:
        sign = -1 if self._experiment.modes[0] == "max" else 1
        found = [trial for trial in state.trials.values() if trial.has_result]
        return sorted(found, key=lambda trial: (sign * trial.values[0], trial.number))[:_MOST_BEST]

    def _ended(self, state: SweepState) -> list[Any]:
        return state.of_state(FINISHED, FAILED, PRUNED, PAUSED)

    def _text(self, state: SweepState) -> str:
        ended, elapsed = len(self._ended(state)), time.monotonic() - self._began
        here = ended - (self._ended_before or 0)
        rest = max(0, self._most - ended) * elapsed / here if here > 0 else None
        parts = [f"{format_duration(rest)} left"] if rest is not None else []
        for name in (FINISHED, PRUNED, PAUSED, FAILED, RUNNING):
            if found := state.of_state(name):
                parts.append(f"{len(found)} {name}")
        return "  ".join(parts)


_SECONDS_BETWEEN_TABLES = 2.0


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


@contextlib.contextmanager
def chosen_observers(
    folder: SweepFolder, experiment: SweptExperiment, most: int, *, quiet: bool, serve: bool
) -> Iterator[list[Observer]]:
    """Give those who watch a sweep.

    Args:
        folder: Of the sweep.
        experiment: What is known of it.
        most: Trials that it has at most.
        quiet: Whether nothing is shown.
        serve: Whether the best trial so far is served.
    """
    with contextlib.ExitStack() as stack:
        chosen: list[Observer] = [TableWriter(folder, experiment.names)]
        if serve:
            from experiments_manager.sweeps.best_server import BestServer

            chosen.append(stack.enter_context(contextlib.closing(BestServer(folder, experiment))))
        if not quiet:
            chosen.append(stack.enter_context(terminal_display(folder, experiment, most)))
        yield chosen

"""TensorBoard logs: scalars of training and validation on one chart, hparams, and texts.

    logs/                     hparams, the state that the run ended in, texts, the graph of the model
    logs/train/               loss and metrics, learning rate, times, gradient norm, …; histograms of the weights
    logs/validation/          loss and metrics, under the same names; best/… those of the best epoch so far
    logs/train/by_step/       as `train`, under names that begin with `by_step/`
    logs/validation/by_step/
    logs/clients/<number>/    in a federation, written by `federated.watching.client_curves`

The step of every event is the epoch; in the folders `by_step`, it is the global step. They are folders of their own
since after a resume TensorBoard drops what a folder holds from some step on, whatever the name.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from experiments_manager.events import (
    EpochReport,
    ModelView,
    Rollback,
    RunEnd,
    RunStart,
    StepReport,
    Watcher,
    metrics_among,
)
from experiments_manager.monitoring.tensorboard.event_files import EventFile, scalars_summary
from experiments_manager.monitoring.tensorboard.texts import as_table

VALIDATION_PREFIX = "val_"
BY_STEP = "by_step"
FEDERATION = "federation"
"""Group of what is counted in each round of a federation."""
TRAIN, VALIDATION = "train", "validation"
TRAIN_BY_STEP, VALIDATION_BY_STEP = f"{TRAIN}/{BY_STEP}", f"{VALIDATION}/{BY_STEP}"
LARGEST_EXACT = 2**53
"""Up to this integer, floats hold every one."""


class TensorBoardLogs(Watcher):
    """Writes what TensorBoard shows of one run."""

    in_background = True

    def __init__(
        self,
        logs_dir: Path | str,
        texts: Mapping[str, str] | None = None,
        *,
        by_step: bool = False,
        histogram_every: int | None = None,
        further_hparams: Mapping[str, Any] | None = None,
    ) -> None:
        """Remember where to write; nothing is touched before the run starts.

        Args:
            logs_dir: The folder `logs/` of a run.
            texts: Name and content of what the text page shows beside the hparams, in Markdown (see `code_block`).
            by_step: Whether validation values are written by step too; those of training come when there are reports.
            histogram_every: Epochs from one set of histograms to the next; `None` for none.
            further_hparams: Shown beside the hparams that the run tells of.
        """
        self._logs_dir = Path(logs_dir)
        self._texts = dict(texts or {})
        self._by_step, self._histogram_every = by_step, histogram_every
        self._further_hparams = dict(further_hparams or {})
        self._files: dict[str, EventFile] = {}
        self._histograms: dict[int, list[Any]] = {}
        """Summaries by epoch, made while its weights are in place and written with its values."""
        self._monitor = ""

    def on_start(self, start: RunStart) -> None:
        """Open the files. After a resume, what was logged from the step reached on no longer counts."""
        from experiments_manager.compat.tensorboard import hparams_summary

        self._monitor = start.monitor
        self._files = {"": EventFile(self._logs_dir, first_step=0, suffix=".run")}
        for group, first in _first_steps(start.first_epoch, start.first_step, start.global_step).items():
            self._files[group] = EventFile(self._logs_dir / group, first)
        hparams = {name: hparam_value(value) for name, value in {**self._further_hparams, **start.hparams}.items()}
        self._files[""].write(hparams_summary(hparams or {"session_name": start.session_name}), step=0)
        for name, text in {"hparams": as_table(hparams, "hparam"), **self._texts}.items():
            self.write_text(name, text)
        graph = start.model_graph()
        if graph is not None:
            self._files[""].write_graph(graph)
        # TensorBoard keeps the first state that it finds, so the files of the sessions before a resume must go.
        self._files[""].remove_previous()
        for group in (TRAIN_BY_STEP, VALIDATION_BY_STEP):
            self._files[group].supersede_previous()

    def on_rollback(self, to: Rollback) -> None:
        """Training went back: what was logged from there on no longer counts."""
        for group, first in _first_steps(to.epoch, to.step, to.global_step).items():
            self._files[group].restart(first)

    def on_steps(self, report: StepReport) -> None:
        """Write the values of the newest steps."""
        values = {**report.logs, "learning_rate": report.learning_rate, **report.measures}
        self.write_scalars(TRAIN_BY_STEP, _named_by_step(values), report.global_step)

    def on_validated(self, view: ModelView) -> None:
        """Make histograms of the weights, where these are due."""
        if self._histogram_every and view.epoch % self._histogram_every == 0:
            self._histograms[view.epoch] = list(_histograms(view.weights()))

    def on_epoch(self, report: EpochReport) -> None:
        """Write the values of one epoch."""
        for summary in self._histograms.pop(report.epoch, ()):
            self._files[TRAIN].write(summary, report.epoch)
        metrics = metrics_among(report.logs)
        named = {name if name in metrics else f"{FEDERATION}/{name}": value for name, value in report.logs.items()}
        train = {name: value for name, value in named.items() if not name.startswith(VALIDATION_PREFIX)}
        validation = {
            name.removeprefix(VALIDATION_PREFIX): value
            for name, value in report.logs.items()
            if name.startswith(VALIDATION_PREFIX)
        }
        train.update(learning_rate=report.learning_rate, epoch_seconds=report.seconds, **report.measures)
        self.write_scalars(TRAIN, train, report.epoch)
        if validation:
            self.write_scalars(VALIDATION, validation, report.epoch)
        if validation and self._by_step:
            self.write_scalars(VALIDATION_BY_STEP, _named_by_step(validation), report.global_step)
        if report.improved:
            self._write_best(report)

    def on_end(self, end: RunEnd) -> None:
        """Write the state that the run ended in, and close the files."""
        from experiments_manager.compat.tensorboard import run_end_summary

        if self._files:
            self._files[""].write(run_end_summary(end.state), step=0)
        for file in self._files.values():
            file.close()
        self._files = {}

    def _write_best(self, report: EpochReport) -> None:
        """Write what the best epoch so far reached, for the HParams page, whose other columns show the last epoch."""
        validated = [name for name in report.logs if name.startswith(VALIDATION_PREFIX)]
        names = validated or metrics_among(report.logs)
        best = {f"best/{name.removeprefix(VALIDATION_PREFIX)}": report.logs[name] for name in names}
        best["best/epoch"] = report.epoch
        self.write_scalars(VALIDATION if validated else TRAIN, best, report.epoch)
        if self._monitor in report.logs and self._monitor not in names:
            self.write_scalars(TRAIN, {f"best/{self._monitor}": report.logs[self._monitor]}, report.epoch)

    def write_scalars(self, group: str, values: Mapping[str, float], step: int) -> None:
        """Write scalars between `on_start` and `on_end`.

        Args:
            group: `train` or `validation`, or `by_step` under one of these; scalars of the same name share a chart.
            values: Name and value of each.
            step: The epoch, counted from 1; in the groups `by_step`, the global step.
        """
        self._files[group].write(scalars_summary(values), step)

    def write_text(self, name: str, markdown: str, epoch: int = 0) -> None:
        """Show a text in Markdown, between `on_start` and `on_end`."""
        from experiments_manager.compat.tensorboard import text_summary

        self._files[""].write(text_summary(name, markdown), epoch)


def _histograms(weights: Mapping[str, np.ndarray]) -> Iterator[Any]:
    """Make a summary of each array of floating-point numbers."""
    from experiments_manager.compat.tensorboard import histogram_summary

    for name, value in weights.items():
        finite = value[np.isfinite(value)] if np.issubdtype(value.dtype, np.floating) else value[:0]
        if finite.size:
            yield histogram_summary(f"weights/{name}", finite)


def hparam_value(value: Any) -> bool | int | float | str:
    """Give what the HParams page can show: bool, number or text; `None`, lists and all else become text.

    So do numbers that the page would drop (NaN, infinities) or round (integers that a float does not hold).
    """
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        value = value.item()
    if isinstance(value, int) and abs(value) > LARGEST_EXACT or isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple | dict):
        return json.dumps(value, default=str)
    return str(value)


def _first_steps(epoch: int, step_in_epoch: int, global_step: int) -> dict[str, int]:
    """First steps, by folder, of a session that begins in an epoch (counted from 1) after so many of its steps."""
    return {
        TRAIN: epoch,
        VALIDATION: epoch,
        TRAIN_BY_STEP: global_step + 1,
        # After an epoch's last step, its validation may or may not have been; it comes again.
        VALIDATION_BY_STEP: global_step if step_in_epoch else global_step + 1,
    }


def _named_by_step(values: Mapping[str, float]) -> dict[str, float]:
    return {f"{BY_STEP}/{name}": value for name, value in values.items()}

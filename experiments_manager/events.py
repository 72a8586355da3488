"""What a run tells those who watch it.

The training loop knows nothing of bars, TensorBoard or files: it hands these plain records to every `Watcher`. First
comes `on_start`, then for each epoch any number of `on_progress` and `on_steps`, one `on_validated` and one `on_epoch`;
`on_version` and `on_message` come whenever there is something to say, `on_rollback` where training goes back, `on_best`
once a run is finished, and `on_end` last, however it ends.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

ROUND_COUNTS = ("participants", "left_out", "bytes_sent", "bytes_received")
"""What is counted in each round of a federation, and stands among the values of the round."""


@dataclasses.dataclass(frozen=True)
class RunStart:
    """A run begins, or goes on after a resume."""

    run_dir: Path
    session_name: str
    hparams: Mapping[str, Any]
    epochs: int
    """Epochs that the run may take at most."""
    first_epoch: int
    """Number of the first epoch that will be trained here, counted from 1 (more than 1 after a resume)."""
    steps_per_epoch: int | None
    """`None` where the length of the data is not known before it was seen once."""
    parameters: int
    """Number of trainable scalars in the model."""
    devices: tuple[str, ...]
    monitor: str
    """The watched value, e.g. `val_loss`."""
    data_position: str = ""
    """How the place in the data is found again after a resume, in words."""
    global_step: int = 0
    """Steps that were trained before."""
    first_step: int = 0
    """Steps of the first epoch that were trained before: more than 0 after a resume inside an epoch."""
    inexact_reasons: tuple[str, ...] = ()
    """Why a resume of this run would not be exact; nothing where it is."""
    unit: str = "epoch"
    """What an epoch of this run is called: in a federation, `round`."""
    model_graph: Callable[[], bytes | None] = lambda: None
    """Gives the model's graph as a serialised `GraphDef`; `None` where it cannot be traced."""
    reached: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """How far the run was trained before: `epochs`, `global_step`, `metrics` and `best`, as in run.json."""


@dataclasses.dataclass(frozen=True)
class Progress:
    """Some steps were trained; sent about twenty times a second at the most."""

    epoch: int
    """Counted from 1."""
    step: int
    """Steps done in this epoch."""
    global_step: int
    steps_per_epoch: int | None
    read_logs: Callable[[], dict[str, float]]
    """Gives loss and metrics so far in this epoch; costs a device read, so call it only to show them."""


@dataclasses.dataclass(frozen=True)
class StepReport:
    """A step that is a multiple of `log_every_steps` was trained."""

    epoch: int
    """Counted from 1."""
    global_step: int
    logs: Mapping[str, float]
    """Loss over the steps since the last report; metrics over the epoch so far."""
    learning_rate: float
    measures: Mapping[str, float]
    """As in `EpochReport`, over the steps since the last report."""


@dataclasses.dataclass(frozen=True)
class Rollback:
    """Training went back to an earlier state; what was told of later steps does not count."""

    epoch: int
    """The epoch that goes on, counted from 1."""
    step: int
    """Steps done in it."""
    global_step: int


@dataclasses.dataclass(frozen=True)
class Samples:
    """Samples of a split and what the model makes of them; the first axis of every array counts samples."""

    split: str
    """`validation`, or `train` where there is no validation data."""
    x: Any
    """Inputs, nested as the model takes them; NumPy arrays."""
    y: Any
    """Targets, nested as the data gives them; `None` where it gives none."""
    outputs: Mapping[str, np.ndarray]
    """The model's outputs by head."""
    layers: Mapping[str, np.ndarray]
    """Outputs of inner layers that were asked for, by layer."""


class ReadSamples(Protocol):
    """Gives some samples with the model's outputs."""

    def __call__(
        self, count: int, layers: Sequence[str] | None = (), reduce: Callable[[Any], Any] = lambda batch: batch
    ) -> Samples | None:
        """Read at most `count` samples from the beginning of the split; `None` where the data cannot be read again.

        `layers` names those whose outputs come with them; `None` stands for the layers before the model's last ones.
        `reduce` makes less of each batch before it is kept, where all together would not fit into memory: it is given
        the inputs, a list that holds the targets if there are any, the outputs and the layers, and gives the same four.
        """


@dataclasses.dataclass(frozen=True)
class ModelView:
    """The model with the weights that are validated and exported, to be looked at during the call alone."""

    epoch: int
    """The epoch whose weights these are, counted from 1."""
    global_step: int
    logs: Mapping[str, float]
    """Loss and metrics of that epoch, those of the validation with the prefix `val_`; none in `on_best`."""
    weights: Callable[[], dict[str, np.ndarray]]
    """Gives every weight by its path."""
    samples: ReadSamples
    metrics: Sequence[Any] = ()
    """The Keras metrics, in the state that the validation left them in (only in `on_validated`)."""


@dataclasses.dataclass(frozen=True)
class EpochReport:
    """An epoch ended and was validated."""

    epoch: int
    """Counted from 1."""
    global_step: int
    logs: Mapping[str, float]
    """Training values by their names, validation values with the prefix `val_`."""
    learning_rate: float
    """The rate in force at the end of the epoch, before any reduction that this epoch causes."""
    seconds: float
    """Wall time of the epoch, validation included."""
    improved: bool
    """Whether the watched value is the best so far."""
    measures: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """What else was measured over the epoch, as far as it is known: `gradient_norm` (mean over the updates, before
    clipping), `step_seconds`, `data_wait_share` (0 to 1), `ema_distance` (relative, of averages and weights), and
    `memory_mib/…` by device."""
    best: Mapping[str, Any] | None = None
    """The best epoch so far: `{"epoch": …, "step": …, "value": …, "name": …}`."""


@dataclasses.dataclass(frozen=True)
class VersionPublished:
    """A servable version stands in `exported_models/`."""

    version: int
    path: Path


@dataclasses.dataclass(frozen=True)
class RunEnd:
    """The run is over: `state` is `finished`, `failed` or `interrupted`."""

    state: str
    epochs: int
    """Completed epochs, those before a resume included."""
    seconds: float
    best: Mapping[str, Any] | None
    """`{"epoch": …, "step": …, "value": …, "name": …}`."""
    metrics: Mapping[str, float]
    """Values of the last completed epoch."""
    exported_model: Path | None
    run_dir: Path | None = None
    """Where the run folder is now: it may have been moved since the start."""


def metrics_among(names: Iterable[str]) -> list[str]:
    """Return the names of an epoch's values without the counts of a federation's round."""
    names = list(names)
    return [name for name in names if name not in ROUND_COUNTS] if {*ROUND_COUNTS} <= {*names} else names


class Watcher:
    """Base of everything that watches a run; override what you need."""

    in_background: bool = False
    """Whether `on_progress`, `on_steps`, `on_epoch` and `on_version` may come later and from another thread, in their
    order. For those that write files: a slow disk does not hold up training then. Before `on_rollback`, `on_best` and
    `on_end` all of them have come, and before a checkpoint counts, those that came before it."""

    def on_start(self, start: RunStart) -> None:
        """Called once, before the first step."""

    def on_progress(self, progress: Progress) -> None:
        """Called after each call of the compiled training function."""

    def on_steps(self, report: StepReport) -> None:
        """Called at each multiple of `log_every_steps`, where that is set."""

    def on_rollback(self, to: Rollback) -> None:
        """Called when training went back to a checkpoint because the loss was no longer finite."""

    def on_validated(self, view: ModelView) -> None:
        """Called after each validation, with the averaged weights in place."""

    def on_epoch(self, report: EpochReport) -> None:
        """Called when an epoch was trained and validated."""

    def on_version(self, version: VersionPublished) -> None:
        """Called when a new servable version is in place."""

    def on_message(self, text: str) -> None:
        """Called with one sentence that the user should read, for instance an export that failed."""

    def on_best(self, view: ModelView) -> None:
        """Called once a run is finished, with the best weights in place."""

    def on_end(self, end: RunEnd) -> None:
        """Called once, also when the run failed or was interrupted."""

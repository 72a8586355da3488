"""Complete training states on disk: written in the background, proved by checksums, found again newest first."""

from __future__ import annotations

import collections
import json
import logging
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from experiments_manager.common import atomic
from experiments_manager.common.background import LatestJobWorker
from experiments_manager.common.checksums import DamagedError, verify_checksums, write_checksums
from experiments_manager.common.error_text import reason
from experiments_manager.common.machine import disk_space
from experiments_manager.compat.tensorflow import write_iterator_state
from experiments_manager.training.errors import OvertakenError, TrainingError
from experiments_manager.training.state.progress import TrainingProgress
from experiments_manager.training.state.state import StateSnapshot

logger = logging.getLogger(__name__)

LATEST = "latest"
"""File in `checkpoints/` that names the newest whole checkpoint."""
SCHEMA_VERSION = 1


def checkpoint_name(progress: TrainingProgress) -> str:
    """Return the folder's name, e.g. `epoch-00003-step-00000120`: completed epochs, global step."""
    return f"epoch-{progress.epoch:05d}-step-{progress.global_step:08d}"


def write_checkpoint(stage: Path, folder: Path, snapshot: StateSnapshot) -> Path:
    """Write a snapshot into `stage`, move it into `folder` and let `latest` point at it.

    Args:
        stage: A folder beside the place, which is made.
        folder: The run's `checkpoints/`.
        snapshot: The state.

    Returns:
        The checkpoint's folder.

    Raises:
        OSError: Or `tf.errors.OpError`, if it cannot be written; `folder` is as it was then.
    """
    stage.mkdir()
    for name, iterator in snapshot.iterators.items():
        _write_iterator(iterator, stage / f"iterator-{name}")
    names, tensors = list(snapshot.tensors), list(snapshot.tensors.values())
    no_slices = [""] * len(names)
    tf.raw_ops.SaveV2(prefix=str(stage / "variables"), tensor_names=names, shape_and_slices=no_slices, tensors=tensors)
    state = {
        "schema_version": SCHEMA_VERSION,
        "progress": snapshot.progress.to_json(),
        "tensors": {name: snapshot.tensors[name].dtype.name for name in names},
        "extras": snapshot.extras,
    }
    # Metrics may be NaN, which Python's JSON reads and writes; nothing else reads this file. It is brought to the disk
    # with all others of the stage, when that moves into its place.
    (stage / "state.json").write_text(json.dumps(state), encoding="utf-8")
    write_checksums(stage)
    target = folder / checkpoint_name(snapshot.progress)
    atomic.replace_directory(stage, target)
    atomic.write_text(folder / LATEST, target.name + "\n")
    return target


def _write_iterator(state: tf.Tensor, prefix: Path) -> None:
    """Write an iterator's state; where TensorFlow has no form for it on a disk, a resume counts batches instead."""
    try:
        write_iterator_state(state, str(prefix))
    except (tf.errors.OpError, ValueError) as error:
        if disk_space.is_full(error):
            raise
        for file in prefix.parent.glob(f"{prefix.name}*"):
            file.unlink()
        logger.warning("The state of the data's %s cannot be saved; a resume counts it: %s", prefix.name, reason(error))


def read_checkpoint(path: Path) -> StateSnapshot:
    """Read a checkpoint after proving it whole.

    Raises:
        DamagedError: If a file is missing, truncated or altered.
        TrainingError: If a newer release wrote it.
    """
    verify_checksums(path)
    try:
        state = json.loads((path / "state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # its checksums do not know it
        raise DamagedError(path / "state.json", "is missing or damaged") from error
    if state["schema_version"] > SCHEMA_VERSION:
        raise TrainingError(
            f"{path} was written by a newer release (format {state['schema_version']}, this one reads up to "
            f"{SCHEMA_VERSION}). Update experiments_manager."
        )
    names = list(state["tensors"])
    with tf.device("CPU:0"):
        values = tf.raw_ops.RestoreV2(
            prefix=str(path / "variables"),
            tensor_names=names,
            shape_and_slices=[""] * len(names),
            dtypes=[tf.as_dtype(state["tensors"][name]) for name in names],
        )
    progress = TrainingProgress.from_json(state["progress"])
    return StateSnapshot(progress, dict(zip(names, values, strict=True)), state["extras"])


def checkpoints(folder: Path) -> list[Path]:
    """List checkpoints, the one that `latest` names first, then by age, newest first."""
    if not folder.is_dir():
        return []
    found = sorted((path for path in folder.iterdir() if path.name.startswith("epoch-")), reverse=True)
    named = _named_by_latest(folder)
    return sorted(found, key=lambda path: path.name != named)


def _named_by_latest(folder: Path) -> str | None:
    """Return what `latest` holds: nothing where there is none, `None` where it cannot be read or is no text."""
    try:
        return (folder / LATEST).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError):
        return None


def read_latest(
    folder: Path,
    report: Callable[[str], None] = logger.warning,
    require: Callable[[StateSnapshot], None] = lambda snapshot: None,
) -> tuple[Path, StateSnapshot] | None:
    """Read the newest checkpoint that is whole.

    Args:
        folder: The run's `checkpoints/`.
        report: Told of each checkpoint that was passed over.
        require: Raises `OvertakenError` for a checkpoint whose samples another run trains on, too. Such ones are
            removed once an older one is found: when the data has come back to this run, nothing would tell them.

    Returns:
        Its folder and the state, or `None` where there is no checkpoint.

    Raises:
        TrainingError: If there are checkpoints and all are damaged.
    """
    damaged: list[str] = []
    overtaken: list[Path] = []
    if folder.is_dir() and _named_by_latest(folder) is None:
        report(f"{folder / LATEST} is damaged and ignored; the newest valid checkpoint is used.")
    for path in checkpoints(folder):
        try:
            snapshot = read_checkpoint(path)
            require(snapshot)
            if overtaken:
                _give_up(folder, overtaken, path)
            return path, snapshot
        except OvertakenError as error:
            damaged.append(str(error))
            overtaken.append(path)
            report(f"Checkpoint {path.name} is skipped: {error}")
        except DamagedError as error:
            damaged.append(str(error))
            report(f"A checkpoint is damaged and skipped: {error}")
    if damaged:
        raise TrainingError(
            f"All checkpoints in {folder} are damaged. {' '.join(damaged)} "
            "Restore the folder from a backup, or start a new run."
        )
    return None


def _give_up(folder: Path, paths: Sequence[Path], newest: Path) -> None:
    atomic.write_text(folder / LATEST, newest.name + "\n")
    for path in paths:
        shutil.rmtree(path, ignore_errors=True)


class CheckpointWriter:
    """Writes checkpoints in a thread of its own, and keeps the newest few.

    Args:
        folder: The run's `checkpoints/`.
        keep: How many to keep.
        bring_logs_to_disk: Called in that thread before a checkpoint counts. A run that goes on from it writes no line
            of an earlier epoch again, so these must have outlived the machine too.
        is_ours: Whether no other run can train on the samples that led to positions in the data, by split. The newest
            checkpoint of which that is so is kept, too: a run that loses its data to others goes back to it.
        note: Called in that thread with the folder of each checkpoint that became whole.
    """

    def __init__(
        self,
        folder: Path,
        keep: int,
        bring_logs_to_disk: Callable[[], None] = lambda: None,
        is_ours: Callable[[Mapping[str, Any]], bool] = lambda positions: True,
        note: Callable[[Path], None] = lambda path: None,
    ) -> None:
        folder.mkdir(exist_ok=True)  # once: what stands in the place of a run that was removed is left alone
        self._folder, self._keep, self._bring_logs_to_disk = folder, max(1, keep), bring_logs_to_disk
        self._is_ours, self._note = is_ours, note
        self._in_doubt: dict[Path, Mapping[str, Any]] = {}
        self._failing = False
        self.problem: str | None = None
        """Why the last one could not be written; `None` where it could."""
        self._messages: collections.deque[str] = collections.deque()
        self._written: collections.deque[dict[str, Any]] = collections.deque()
        self.last_written = time.monotonic()
        self._worker: LatestJobWorker[StateSnapshot] = LatestJobWorker(
            self._write, lambda snapshot, error: self.failed(error), name="checkpoints"
        )

    def messages(self) -> list[str]:
        """Return what there is to say since the last call: once that writing fails, and once that it works again."""
        return [self._messages.popleft() for _ in range(len(self._messages))]

    def written(self) -> list[dict[str, Any]]:
        """Return the positions in the data, by split, of the checkpoints that became whole since the last call."""
        return [self._written.popleft() for _ in range(len(self._written))]

    def submit(self, snapshot: StateSnapshot) -> None:
        """Hand a snapshot to the thread; an older one that still waits is dropped."""
        self.last_written = time.monotonic()
        self._worker.submit(snapshot)

    @property
    def idle(self) -> bool:
        """Whether nothing is being written."""
        return self._worker.idle

    def move_to(self, folder: Path) -> None:
        """Write into a folder that was moved."""
        self._folder = folder

    def wait(self) -> None:
        """Wait until everything handed in is on disk."""
        self._worker.wait()

    def close(self) -> None:
        """Wait until everything is on disk."""
        self._worker.close()

    def failed(self, error: BaseException) -> None:
        """Note that a checkpoint could not be written; training goes on."""
        self.problem = reason(error)
        if not self._failing:
            remedy = f"; free some space on the disk that holds {self._folder}" if disk_space.is_full(error) else ""
            self._messages.append(
                f"A checkpoint could not be written: {self.problem}. Training goes on and tries again at the next "
                f"checkpoint{remedy}."
            )
        self._failing = True

    def _write(self, snapshot: StateSnapshot) -> None:
        if not _is_finite(snapshot):  # it must not take the place of the last good one
            self.problem = "the weights are not finite"
            logger.warning(
                "Step %d: checkpoint not saved: the weights contain NaN or Inf.", snapshot.progress.global_step
            )
            return
        self._bring_logs_to_disk()
        stage, positions = atomic.staging_path(self._folder / "checkpoint"), snapshot.extras.get("positions", {})
        try:
            path = write_checkpoint(stage, self._folder, snapshot)
        finally:
            shutil.rmtree(stage, ignore_errors=True)  # it is moved into its place, unless writing it failed
        self._written.append(positions)
        self._note(path)
        self._in_doubt[path] = positions
        if self._failing:
            self._messages.append("Checkpoints are written again.")
        self._failing, self.problem = False, None
        self._remove_old()

    def _remove_old(self) -> None:
        self._in_doubt = {path: place for path, place in self._in_doubt.items() if not self._is_ours(place)}
        found = checkpoints(self._folder)
        safe = next((path for path in found if path not in self._in_doubt), None)
        for old in found[self._keep :]:
            if old != safe:
                shutil.rmtree(old, ignore_errors=True)
                self._in_doubt.pop(old, None)


def _is_finite(snapshot: StateSnapshot) -> bool:
    """Return whether the weights are numbers; told by their averages where there are any, which hold no mask."""
    averages = [value for name, value in snapshot.tensors.items() if name.startswith("averages/")]
    weights = averages or [value for name, value in snapshot.tensors.items() if name.startswith("model/")]
    return all(bool(np.isfinite(value.numpy()).all()) for value in weights if value.dtype.is_floating)


def positions_of(feeds: dict[str, Any]) -> tuple[dict[str, Any], dict[str, tf.Tensor], list[str]]:
    """Return the feeds' positions, the states of their iterators, and what there is to say."""
    positions = {name: feed.position() for name, feed in feeds.items()}
    saved = {name: feed.save() for name, feed in feeds.items()}
    iterators = {name: iterator for name, (iterator, _) in saved.items() if iterator is not None}
    return positions, iterators, [text for _, text in saved.values() if text is not None]

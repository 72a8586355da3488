"""Whether a finished run has anything left to do, told from its folder before anything is built or written."""

from __future__ import annotations

import json
import logging
import shlex
from collections.abc import Mapping
from typing import Any

from experiments_manager.common.checksums import DamagedError, verify_checksums
from experiments_manager.common.jsonable import to_jsonable
from experiments_manager.export.versions import versions
from experiments_manager.runs import Run, RunError
from experiments_manager.runs.run import EPOCH
from experiments_manager.settings import Settings
from experiments_manager.training.errors import STREAM_ENDED
from experiments_manager.training.state.checkpoints import checkpoints
from experiments_manager.training.state.progress import TrainingProgress

logger = logging.getLogger(__name__)

STOPPED_BY_CALLBACK = "a callback stopped training"
HOW_LONG = ("epochs", "early_stopping_patience")
"""Settings that move the end of training."""


def training_is_over(progress: TrainingProgress, epochs: int, patience: int | None) -> bool:
    """Return whether training has reached its end under these settings; more epochs or patience move the end."""
    return progress.epoch >= epochs or (progress.stop_reason is not None and not may_go_on(progress, patience))


def may_go_on(progress: TrainingProgress, patience: int | None) -> bool:
    """Return whether a stream or early stopping ended training, and more may have come, or there is more patience."""
    if progress.stop_reason is not None and progress.stop_reason.startswith(STREAM_ENDED):
        return True
    by_patience = progress.stop_reason not in (None, STOPPED_BY_CALLBACK)
    return by_patience and (patience is None or progress.epochs_without_improvement < patience)


def nothing_left_to_train(run: Run, settings: Settings) -> bool:
    """Return whether a resume of a finished run with these settings would do nothing.

    A run whose best weights still have to be exported, for instance because the disk was full, is not done; nor is one
    whose newest checkpoint is damaged. Other settings than those that say how long to train may not suit the run, which
    is found out by building it.

    Raises:
        RunError: There is more to train, but no checkpoint to go on from.
    """
    manifest = run.manifest
    if manifest.get("state") != "finished" or _further_changes(manifest, settings):
        return False
    found = checkpoints(run.checkpoints_dir)
    if not found:
        if (manifest.get("epochs") or 0) >= settings.epochs or manifest.get("stop_reason"):
            return True
        raise RunError(
            f"{run.path} is finished and has no checkpoint. Restore {run.checkpoints_dir} from a backup, "
            "or start a new run."
        )
    try:
        verify_checksums(found[0])
        state = json.loads((found[0] / "state.json").read_text(encoding="utf-8"))
        progress = TrainingProgress.from_json(state["progress"])
    except (DamagedError, OSError, ValueError, LookupError, TypeError):
        return False  # the resume finds the newest that is whole, and names those that are not
    if not training_is_over(progress, settings.epochs, settings.early_stopping_patience):
        return False
    wanted = progress.best.step if progress.best else progress.last_version
    return not settings.export or wanted is None or wanted in versions(run.exports_dir)


def refuse_to_begin_again(run: Run) -> None:
    """Refuse a resume that would begin at step 0 although checkpoints were written; say it where none was yet.

    Raises:
        RunError: The run was trained, and its checkpoints are gone.
    """
    manifest = run.manifest
    trained = bool(manifest.get("epochs") or manifest.get("global_step"))
    if not (trained or manifest.get("checkpoint")) or checkpoints(run.checkpoints_dir):
        return
    if manifest.get("checkpoint") or not run.checkpoints_dir.is_dir():
        wanted = manifest.get("checkpoint") or "the checkpoints of a run that was trained"
        got = "an empty folder" if run.checkpoints_dir.is_dir() else "no such folder"
        raise RunError(
            f"{run.checkpoints_dir}: the run has reached step {manifest.get('global_step')} and its checkpoints are "
            f"gone. Expected {wanted}, got {got}. Put the folder back, e.g. from a backup. A resume does not begin "
            "again over the results of a run: to train from the start, start a new run, or remove this folder first: "
            f"{shlex.quote(str(run.path))}"
        )
    logger.warning("%s has no checkpoint: it ended before its first one was whole. It begins again.", run.path)


def _further_changes(manifest: Mapping[str, Any], settings: Settings) -> bool:
    kept, wanted = manifest.get("overrides") or {}, to_jsonable(settings.overrides)
    return any(kept.get(name) != value for name, value in wanted.items() if name not in HOW_LONG)


def continue_hint(epochs: int, stop_reason: str | None, unit: str = EPOCH) -> str:
    """Return the sentences for a run that has nothing left to do; its epochs may be called otherwise."""
    reason = f": {stop_reason}" if stop_reason else ""
    is_stream = stop_reason is not None and stop_reason.startswith(STREAM_ENDED)
    more = f"more {unit}s" if is_stream else f"more {unit}s or patience"
    return (
        f"The run is already finished, after {epochs} {unit}s{reason}. To go on, resume with {more}, "
        f"e.g. `--set epochs={2 * max(epochs, 1)}`."
    )

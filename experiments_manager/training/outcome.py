"""How a run ended, told to its manifest, to its watchers and to the caller, whatever happened."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from experiments_manager.export.versions import versions
from experiments_manager.runs import Run, RunError
from experiments_manager.settings import Settings, SettingsError, UserCodeError
from experiments_manager.training.checkpoints import checkpoints
from experiments_manager.training.errors import TrainingError
from experiments_manager.training.events import RunEnd, Watcher
from experiments_manager.training.job import Job

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class RunResult:
    """What a run came to."""

    run_dir: Path
    state: str
    """`finished` or `interrupted`."""
    epochs: int
    best: dict[str, Any] | None
    """`{"epoch": …, "step": …, "value": …, "name": …}`."""
    metrics: dict[str, float]
    """Values of the last epoch."""
    exported_model: Path | None
    """Newest published version."""
    stop_reason: str | None = None


def finish(job: Job, state: str, seconds: float) -> RunResult:
    """Writes into the manifest how the run ended, and sums it up."""
    progress = job.experiment.state.progress
    published = versions(job.run.exports_dir)
    best = progress.best
    fields = {
        "epochs": progress.epoch,
        "best": best and dataclasses.asdict(best) | {"name": job.experiment.judge.monitor},
        "metrics": progress.last_logs,
    }
    exported = job.run.exports_dir / str(published[-1]) if published else None
    newest = next(iter(checkpoints(job.run.checkpoints_dir)), None)
    lost = _lost_steps(newest, progress.global_step, state, job.checkpoints.problem)
    if lost is not None:
        job.tell("on_message", lost)
    try:
        job.run.finish(
            state,
            seconds=seconds,
            global_step=progress.global_step,
            stop_reason=progress.stop_reason,
            exported_model=exported and exported.relative_to(job.run.path).as_posix(),
            last_version=published[-1] if published else None,
            checkpoint=newest and newest.name,
            checkpoint_problem=job.checkpoints.problem,
            **fields,
        )
    except RunError as error:  # a full disk: what was trained is there all the same
        job.tell("on_message", f"The run is {state}, but its run.json could not say so: {error}")
    return RunResult(job.run.path, state, exported_model=exported, stop_reason=progress.stop_reason, **fields)


def _lost_steps(newest: Path | None, step: int, state: str, problem: str | None) -> str | None:
    """What there is to say at the end where the newest checkpoint is not of the last step."""
    reached = int(newest.name.rpartition("-")[2]) if newest else 0
    if newest is not None and reached >= step:
        return None
    kept = f"the newest checkpoint is of step {reached}" if newest else "NO CHECKPOINT COULD BE KEPT"
    why = f" ({problem})" if problem else ""
    after = f"a resume goes on from step {reached}" if newest else "a resume begins anew"
    return f"The run is {state} at step {step}, but {kept}{why}: {after}."


def say_goodbye(run: Run, watchers: Sequence[Watcher], state: str, seconds: float) -> None:
    """Tells every watcher that the run is over."""
    manifest = run.manifest
    exported = manifest.get("exported_model")
    end = RunEnd(
        state=state,
        epochs=manifest.get("epochs") or 0,
        seconds=seconds,
        best=manifest.get("best"),
        metrics=manifest.get("metrics") or {},
        exported_model=run.path / exported if exported else None,
    )
    for watcher in watchers:
        try:
            watcher.on_end(end)
        except Exception as error:
            logger.warning("%s failed at the end of the run: %s", type(watcher).__name__, error)


@contextlib.contextmanager
def recorded_failure(run: Run) -> Iterator[None]:
    """Writes into the manifest what made the run fail, and where."""
    try:
        yield
    except BaseException as error:
        cause = error.cause if isinstance(error, UserCodeError) else error
        with contextlib.suppress(RunError):
            run.finish("failed", error={"type": type(cause).__name__, "text": str(error), "place": _place(error)})
        raise


@contextlib.contextmanager
def attributed(settings: Settings) -> Iterator[None]:
    """Says of an error in the user's layers, losses, metrics or callbacks that it is theirs, and where."""
    try:
        yield
    except (SettingsError, UserCodeError, TrainingError, RunError):
        raise
    except Exception as error:
        place = settings.place_of(error)
        if place is None:
            raise
        raise UserCodeError("training", place, error) from error


def _place(error: BaseException) -> str | None:
    """`file:line` in the user's files, where the error knows it."""
    if isinstance(error, UserCodeError):
        return error.location
    if isinstance(error, SettingsError):
        return error.problems[0].place
    return getattr(error, "place", None)

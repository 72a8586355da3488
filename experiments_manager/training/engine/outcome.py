"""How a run ended, told to its manifest, to its watchers and to the caller, whatever happened."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments_manager.events import RunEnd, Watcher
from experiments_manager.export.versions import versions
from experiments_manager.runs import Run, RunError
from experiments_manager.runs.run import RESUMED_FIELDS
from experiments_manager.settings import Settings, SettingsError, UserCodeError
from experiments_manager.training.engine.context import Interrupted, TrainingContext
from experiments_manager.training.engine.exactness import DataChangedError
from experiments_manager.training.hosts.team import WorkerLostError
from experiments_manager.training.observe.manifest_updates import ManifestUpdates
from experiments_manager.training.setup.boundary import OF_THE_ENGINE, translated, what_was_at_work
from experiments_manager.training.state.checkpoints import checkpoints

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


def finish(context: TrainingContext, state: str, seconds: float) -> RunResult:
    """Write into the manifest how the run ended, and sum it up.

    Raises:
        RunError: The run came to its end, but what it trained could not be saved; or its folder is gone.
    """
    context.find_folder()
    if not context.run.manifest_file.exists():
        raise RunError(f"{context.run.path} was removed, and what was trained is lost. Start a new run.")
    progress = context.experiment.state.progress
    published = versions(context.run.exports_dir)
    reached = progress.reached(context.experiment.monitor.name)
    exported = context.run.exports_dir / str(published[-1]) if published else None
    newest = next(iter(checkpoints(context.run.checkpoints_dir)), None)
    if state == "finished" and context.checkpoints.problem is not None:
        with contextlib.suppress(RunError):
            context.run.update(checkpoint=newest and newest.name, checkpoint_problem=context.checkpoints.problem)
        raise RunError(_unsaved(context, newest))
    lost = _lost_steps(newest, progress.global_step, state, context.checkpoints.problem)
    if lost is not None:
        context.dispatch("on_message", lost)
    try:
        context.run.finish(
            state,
            seconds=seconds,
            stop_reason=progress.stop_reason,
            exported_model=exported and exported.relative_to(context.run.path).as_posix(),
            last_version=published[-1] if published else None,
            checkpoint=newest and newest.name,
            checkpoint_problem=context.checkpoints.problem,
            **reached,
        )
    except RunError as error:
        if state == "finished":
            raise
        context.dispatch("on_message", f"The run is {state}, but its run.json could not be updated: {error}")
    fields = {name: reached[name] for name in ("epochs", "best", "metrics")}
    return RunResult(context.run.path, state, exported_model=exported, stop_reason=progress.stop_reason, **fields)


def _unsaved(context: TrainingContext, newest: Path | None) -> str:
    place = f"from its checkpoint {newest.name}" if newest else "from its beginning, for NO CHECKPOINT COULD BE SAVED"
    return (
        f"The last state of the run could not be saved: {context.checkpoints.problem}. It trained "
        f"{context.experiment.state.progress.epoch} {context.unit}s, and what came after its last checkpoint is lost. "
        f"Fix that (if the disk that holds {context.run.path} is full, free some space), then go on {place}: "
        f"experiments_manager resume {shlex.quote(str(context.run.path))}"
    )


def _lost_steps(newest: Path | None, step: int, state: str, problem: str | None) -> str | None:
    """Return what there is to say at the end where the newest checkpoint is not of the last step."""
    reached = int(newest.name.rpartition("-")[2]) if newest else 0
    if newest is not None and reached >= step:
        return None
    kept = f"the newest checkpoint is of step {reached}" if newest else "NO CHECKPOINT COULD BE SAVED"
    why = f" ({problem})" if problem else ""
    after = f"a resume continues from step {reached}" if newest else "a resume begins from the start"
    return f"The run is {state} at step {step}, but {kept}{why}: {after}."


def result_of(run: Run, state: str) -> RunResult:
    """Sum up a run from its manifest, where it was not trained in this process.

    Raises:
        RunError: The manifest cannot be read.
    """
    manifest = run.manifest
    exported = manifest.get("exported_model")
    return RunResult(
        run.path,
        state,
        epochs=manifest.get("epochs") or 0,
        best=manifest.get("best"),
        metrics=manifest.get("metrics") or {},
        exported_model=run.path / exported if exported else None,
        stop_reason=manifest.get("stop_reason"),
    )


def report_end(
    run: Run, watchers: Sequence[Watcher], state: str, seconds: float, reached: Mapping[str, Any] | None = None
) -> None:
    """Tell every watcher that the run is over.

    Args:
        run: The run.
        watchers: Who is told.
        state: How it ended.
        seconds: How long it took.
        reached: Epochs, best and metrics where the manifest may not have them.
    """
    manifest: dict[str, Any] = {}
    with contextlib.suppress(RunError):  # the folder is gone, which must not hide why the run ended
        manifest = run.manifest
    manifest |= reached or {}
    exported = manifest.get("exported_model")
    end = RunEnd(
        state=state,
        epochs=manifest.get("epochs") or 0,
        seconds=seconds,
        best=manifest.get("best"),
        metrics=manifest.get("metrics") or {},
        exported_model=run.path / exported if exported else None,
        run_dir=run.path,
    )
    for watcher in watchers:
        try:
            watcher.on_end(end)
        except Exception as error:
            logger.warning("%s failed at the end of the run: %s", type(watcher).__name__, error)


@contextlib.contextmanager
def recorded_end(run: Run, updates: ManifestUpdates, former: Mapping[str, Any] | None = None) -> Iterator[None]:
    """Write into the manifest what made the run fail, and where, or that it was interrupted.

    Args:
        run: The run.
        updates: Knows how far training came.
        former: The manifest before the run was resumed. One that was finished, or whose data are others now, is what it
            was again, unless steps were trained: it has lost nothing.
    """
    started = time.monotonic()

    def record(state: str, *, refused: bool = False, **fields: Any) -> None:
        with contextlib.suppress(RunError):
            if former and (refused or former.get("state") == "finished") and not updates.has_begun:
                run.update(**{name: former.get(name) for name in RESUMED_FIELDS})
            else:
                run.finish(state, seconds=time.monotonic() - started, **updates.reached, **fields)

    try:
        yield
    except (Interrupted, KeyboardInterrupt, WorkerLostError):
        record("interrupted")
        raise
    except BaseException as error:
        cause = error.cause if isinstance(error, UserCodeError) else error
        told = {"type": type(cause).__name__, "text": str(error), "place": _place(error)}
        record("failed", refused=isinstance(error, DataChangedError), error=told)
        raise


@contextlib.contextmanager
def attributed_to_hooks(settings: Settings) -> Iterator[None]:
    """Say of an error of the user's data, layers, losses, metrics or callbacks that it is theirs, and where.

    Errors whose innermost frame lies in this package, and those of libraries that worked for us and not on what is the
    user's, pass as they are.
    """
    try:
        yield
    except (*OF_THE_ENGINE, Interrupted):
        raise
    except Exception as error:
        name = what_was_at_work(error)
        found = translated(settings, name or "training", error)
        if found is None or (name is None and not isinstance(found, UserCodeError)):
            raise
        raise found from error


def _place(error: BaseException) -> str | None:
    """`file:line` in the user's files, where the error knows it."""
    if isinstance(error, UserCodeError):
        return error.location
    if isinstance(error, SettingsError):
        return error.problems[0].place
    return getattr(error, "place", None)

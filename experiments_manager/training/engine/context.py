"""A run in the making: everything that the loop works with, in one record."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import tensorflow as tf

from experiments_manager.common.atomic import remove_leftovers, sync_files
from experiments_manager.common.background import OrderedWorker
from experiments_manager.events import Watcher
from experiments_manager.export.publisher import LOW_PRECISION_TOLERANCE, TOLERANCE, Publisher
from experiments_manager.export.warmup_file import warmup_requests
from experiments_manager.runs import Run, RunError
from experiments_manager.runs.held_folder import FormerPlaceTakenError, HeldFolder
from experiments_manager.runs.run import EPOCH
from experiments_manager.settings import Settings
from experiments_manager.training.engine.chunks import ChunkSize
from experiments_manager.training.engine.replicas import require_no_accumulation
from experiments_manager.training.engine.steps import CompiledLoops
from experiments_manager.training.engine.user_callbacks import UserCallbacks
from experiments_manager.training.engine.whole_epochs import WholeEpochs
from experiments_manager.training.engine.xla import XlaChoice, chosen_loops
from experiments_manager.training.feeds.factory import first_batch
from experiments_manager.training.hosts.membership import ALONE, TrainingGroup
from experiments_manager.training.observe.model_views import Viewer
from experiments_manager.training.observe.step_statistics import Meter
from experiments_manager.training.observe.user_logs import UserLogs
from experiments_manager.training.setup.experiment import Experiment, InTurn
from experiments_manager.training.setup.metrics import metrics_reset
from experiments_manager.training.setup.same_data import require_same_data
from experiments_manager.training.state.checkpoints import CheckpointWriter
from experiments_manager.training.state.state import StateSnapshot
from experiments_manager.training.state.user_state import UserState

logger = logging.getLogger(__name__)

PROBE_SAMPLES = 1
"""Samples on which each exported version is compared with the live model; training waits for their way through it."""


_MAY_COME_LATER = {"on_progress", "on_steps", "on_epoch", "on_version"}
_COME_AT_ONCE = {"on_message", "on_validated"}
"""Do not wait for those that may come later."""


class Interrupted(Exception):
    """Training was asked to stop; raised between two steps, from where it can go on."""


class EpochTrainer(Protocol):
    """Who trains an epoch in the place of the loop, such as a federation's round; the rest of a run stays as it is."""

    unit: str
    """What an epoch is called in messages."""

    def train_epoch(self, context: TrainingContext) -> dict[str, float]:
        """Train an epoch, leave its weights in the model and count its steps; return its loss and metrics."""

    def state(self) -> tuple[dict[str, Any], dict[str, tf.Tensor]]:
        """Return what it goes on from, besides the state of the run: plain data (JSON), and tensors by name."""

    def restore(self, plain: Mapping[str, Any], tensors: Mapping[str, tf.Tensor]) -> None:
        """Go back to what `state` returned."""

    def inexact_reasons(self) -> Sequence[str]:
        """Return why a resume would not be exact, as far as it lies with the trainer."""


@dataclasses.dataclass
class TrainingContext:
    """Everything that the loop works with."""

    experiment: Experiment
    run: Run
    callbacks: UserCallbacks
    checkpoints: CheckpointWriter
    publisher: Publisher | None
    watchers: list[Watcher]
    loops: CompiledLoops
    xla: XlaChoice
    user_logs: UserLogs
    viewer: Viewer
    meter: Meter
    reset_metrics: Callable[[], None]
    background: OrderedWorker = dataclasses.field(default_factory=lambda: OrderedWorker("watchers"))
    """Tells watchers that write files."""
    should_stop: Callable[[], bool] = lambda: False
    epoch_trainer: EpochTrainer | None = None
    membership: TrainingGroup = ALONE
    folder: HeldFolder | None = None
    """The run folder, which may be moved or removed; `None` where it is nobody else's."""
    chunk_size: ChunkSize = dataclasses.field(default_factory=ChunkSize)
    validation_chunk_size: ChunkSize = dataclasses.field(default_factory=ChunkSize)
    last_checkpoint_step: int = -1
    whole_epochs: WholeEpochs | None = None
    """What trains epochs in one call each, where that is possible."""
    is_to_publish: bool = False
    """Whether the best weights wait until the publisher has nothing to do."""
    user_state: UserState | None = None
    """What the user's objects hold; known once `on_train_begin` was called."""
    before_validation: tuple[dict[str, Any], dict[str, tf.Tensor]] | None = None
    """The user's state from before the validation that goes on, which leaves no trace if it is interrupted."""
    to_put_back: tuple[Path, StateSnapshot] | None = None
    """The checkpoint that was read, until all of it is put back."""
    restored: str | None = None
    """Name of the checkpoint that was read last; to write it again would only risk it."""
    data: dict[str, Any] = dataclasses.field(default_factory=dict)
    """What tells the data from other data, by split; see `exactness.fingerprints`."""
    data_changes: list[str] = dataclasses.field(default_factory=list)
    """What changed of the data at resumes, which makes the run inexact."""
    inexact_reasons: list[str] = dataclasses.field(default_factory=list)
    """Why a resume would not be exact, as far as it was said."""
    reloaded: Path | None = None
    """Checkpoint that training went back to last because the loss was no longer finite."""

    @classmethod
    def make(
        cls,
        experiment: Experiment,
        run: Run,
        watchers: list[Watcher],
        membership: TrainingGroup = ALONE,
        former: Mapping[str, Any] | None = None,
    ) -> TrainingContext:
        """Compile the loops for an experiment, and make what writes its checkpoints and versions.

        Args:
            experiment: What is trained.
            run: Its folder.
            watchers: Who is told of it.
            membership: The processes that train together.
            former: run.json of a run that is gone on with.
        """
        settings, model = experiment.settings, experiment.model
        if membership.team.size > 1:
            require_no_accumulation(model)
        callbacks = UserCallbacks(experiment.callbacks, model, settings.epochs, experiment.train.steps)
        run.checkpoints_dir.mkdir(exist_ok=True)
        remove_leftovers(run.checkpoints_dir)
        background = OrderedWorker("watchers")

        def bring_logs_to_disk() -> None:
            background.wait()
            sync_files(_growing_files(run))

        def note_checkpoint(path: Path) -> None:
            with contextlib.suppress(RunError):  # a full disk; the next one tries again
                run.update(checkpoint=path.name)

        checkpoints = CheckpointWriter(
            run.checkpoints_dir,
            settings.keep_checkpoints,
            bring_logs_to_disk,
            lambda positions: "train" not in positions or experiment.train.is_ours(positions["train"]),
            note_checkpoint,
        )
        publisher, meter = publisher_of(experiment, run.exports_dir), Meter(experiment)
        by_batch = callbacks.want_batches
        loops, xla = chosen_loops(
            experiment, meter.gradient_norm, meter.statistics, calls_by_batch=by_batch, former=former
        )
        context = cls(
            experiment=experiment,
            run=run,
            callbacks=callbacks,
            checkpoints=checkpoints,
            background=background,
            publisher=publisher,
            watchers=watchers,
            user_logs=UserLogs(experiment, run),
            viewer=Viewer(experiment),
            meter=meter,
            loops=loops,
            xla=xla,
            reset_metrics=metrics_reset(model),
            membership=membership,
            chunk_size=ChunkSize(agree=membership.team.chiefs),
            validation_chunk_size=ChunkSize(agree=membership.team.chiefs),
        )
        for feed in filter(None, (experiment.train, experiment.validation)):
            feed.agree = membership.team.gather
        context.whole_epochs = (
            WholeEpochs(experiment, loops, meter)
            if WholeEpochs.suits(experiment, callbacks, meter, membership.team.size)
            else None
        )
        if problem := require_same_data(membership.team, experiment.train, experiment.validation):
            context.dispatch("on_message", problem)
        if experiment.export_problem:
            context.dispatch("on_message", experiment.export_problem)
        return context

    @property
    def unit(self) -> str:
        """What an epoch is called in messages."""
        return EPOCH if self.epoch_trainer is None else self.epoch_trainer.unit

    def close(self) -> None:
        """Wait until checkpoints and versions are on disk, and tell the data so before it is let go."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(contextlib.closing(self.background))  # closed last: checkpoints wait for it
            stack.enter_context(contextlib.closing(self.checkpoints))
            if self.publisher is not None:
                stack.enter_context(contextlib.closing(self.publisher))
            for feed in filter(None, (self.experiment.train, self.experiment.validation)):
                stack.enter_context(contextlib.closing(feed))
            self.checkpoints.wait()
            self.tell_feed()

    def follow_folder(self, *, at_once: bool) -> None:
        """Go on where the run folder is, if it was moved; no call to the disk is made here unless it was.

        Args:
            at_once: Whether to look in any case; else once a second at the most.

        Raises:
            RunError: It is gone.
            Interrupted: It was moved to where training cannot go on.
        """
        if self.folder is not None and self.folder.seems_lost(at_once=at_once):
            self.find_folder()

    def find_folder(self) -> None:
        """Go on where the run folder is, if it was moved.

        Raises:
            RunError: It is gone.
            Interrupted: It was moved to where training cannot go on.
        """
        if self.folder is None:
            return
        path = self.run.path
        try:
            text = self.folder.follow()
        except FormerPlaceTakenError as error:
            text = str(error)
        if self.run.path != path:
            self.checkpoints.move_to(self.run.checkpoints_dir)
            if self.publisher is not None:
                self.publisher.move_to(self.run.exports_dir)
            self.dispatch("on_message", text)
            if not path.is_symlink():
                raise Interrupted

    def tell_feed(self) -> None:
        """Let the training data take note of the checkpoints that became whole."""
        for positions in self.checkpoints.written():
            if "train" in positions:
                self.experiment.train.saved(positions["train"])

    def dispatch(self, event: str, *content: Any) -> None:
        """Tell every watcher; one that fails is told nothing more, and the run goes on."""
        for watcher in list(self.watchers):
            comes_later = isinstance(watcher, Watcher) and watcher.in_background and not self.background.closed
            if not comes_later:
                self._tell(watcher, event, *content)
            elif event in _MAY_COME_LATER:
                if getattr(type(watcher), event) is not getattr(Watcher, event):
                    self.background.submit(functools.partial(self._tell, watcher, event, *content))
            else:
                if event not in _COME_AT_ONCE:
                    self.background.wait()
                self._tell(watcher, event, *content)

    def _tell(self, watcher: Watcher, event: str, *content: Any) -> None:
        if watcher in self.watchers:  # else it failed after this was handed in
            tell_or_disable(self.watchers, watcher, event, *content)


def tell_or_disable(watchers: list[Any], watcher: Any, event: str, *content: Any) -> None:
    """Tell a watcher; one that fails is taken out of the list, and the run goes on."""
    try:
        getattr(watcher, event)(*content)
    except Exception as error:
        watchers.remove(watcher)
        logger.warning("%s failed and is disabled for the rest of the run: %s", type(watcher).__name__, error)
        logger.debug("traceback", exc_info=True)


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """What surrounds a run in this process."""

    make_watchers: Callable[[Run, Settings], Sequence[Watcher]] = lambda run, settings: ()
    """Gives those who are told of the run, once it has its folder."""
    should_stop: Callable[[], bool] = lambda: False
    """Asked between steps; a true answer ends the run as `interrupted`."""
    make_epoch_trainer: Callable[[TrainingContext], contextlib.AbstractContextManager[EpochTrainer | None]] = (
        lambda context: contextlib.nullcontext()
    )
    """Gives who trains the epochs, if not the loop."""
    in_turn: InTurn | None = None
    """How several are trained in turn, if they are; who trains the epochs does it then."""
    trains_here: bool = True
    """Whether there must be training data; else what batches look like may be seen from the validation data."""
    accept_changed_data: bool = False
    """Whether a resume goes on with other data than the run was trained on, not exactly."""
    fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Further fields of run.json from its start on."""
    interruptible: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext
    """Gives a context for what comes before the first step, in which a request to stop raises `KeyboardInterrupt`; the
    run ends as `interrupted` then. By default nothing interrupts it."""


UNWATCHED = RunOptions()
"""What surrounds a run that nobody watches or stops."""


def _growing_files(run: Run) -> list[Path]:
    """Return the logs and tables, which grow line by line.

    Other threads rename folders meanwhile, such as those of embeddings: `os.walk` passes over what is gone, at which
    `Path.rglob` raises.
    """
    logs = (Path(parent, name) for parent, _, names in os.walk(run.logs_dir) for name in names)
    return [*run.path.glob("*.csv"), *(file for file in logs if file.name.startswith("events.out.tfevents."))]


def publisher_of(experiment: Experiment, folder: Path) -> Publisher | None:
    """Return what publishes the model of an experiment into a folder of versions; `None` where nothing is exported."""
    servable, settings = experiment.servable, experiment.settings
    if servable is None:
        return None
    exact = (
        experiment.devices.names == ("CPU",) and settings.mixed_precision is None and settings.jit_compile is not True
    )
    tolerance = TOLERANCE if exact else LOW_PRECISION_TOLERANCE
    probe = servable.probe(experiment.train.sample_batch(), PROBE_SAMPLES)
    warmup = warmup_requests(servable, first_batch(experiment.validation, experiment.train))
    return Publisher(servable, folder, probe, keep=settings.keep_versions, tolerance=tolerance, warmup=warmup)


def new_reasons(context: TrainingContext) -> list[str]:
    """Why a resume would not be exact, as far as it came up since the run began: what changed in the user's objects."""
    reasons = context.user_state.reasons if context.user_state is not None else []
    if context.epoch_trainer is not None:
        reasons += context.epoch_trainer.inexact_reasons()
    return [reason for reason in reasons if reason not in context.inexact_reasons]

"""A process that trains beside the chief of several: it does the same, and nothing of what it writes stays."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from experiments_manager.runs import Run, create_run
from experiments_manager.runs.run_settings import load_run_settings
from experiments_manager.settings import Settings
from experiments_manager.training.hosts.membership import (
    TrainingGroup,
    cluster_of,
    joined,
    require_same,
    settings_digest,
)


def follows(settings: Settings) -> bool:
    """Return whether another process is the chief of this training."""
    cluster = cluster_of(settings)
    return cluster is not None and not cluster.is_chief


@contextlib.contextmanager
def following(
    settings: Settings, interruptible: Callable[[], contextlib.AbstractContextManager[None]]
) -> Iterator[tuple[Run, Settings, TrainingGroup]]:
    """Meet the chief; yield a run of this process' own, which is removed afterwards, and the settings of the chief's.

    Callbacks and hooks that write into the run folder write there.

    Args:
        settings: The experiment as this process was started with it.
        interruptible: Gives a context in which a request to stop raises.
    """
    with contextlib.ExitStack() as stack:
        with interruptible():
            membership = stack.enter_context(joined(settings))
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="experiments_manager-worker-"))
            if membership.resuming:
                settings = load_run_settings(Run(membership.run), settings.overrides)
            run = create_run(Path(folder), settings.session_name, settings.hparams, run_name=membership.run.name)
            run.start(
                settings_file=settings.file,
                model_file=settings.model_file,
                command=(),
                overrides=settings.overrides,
                hparams=settings.hparams,
                settings=settings.values(),
                seed=settings.random_seed,
            )
        yield run, settings, membership


@contextlib.contextmanager
def meeting(
    settings: Settings,
    run: Run,
    membership: TrainingGroup | None,
    interruptible: Callable[[], contextlib.AbstractContextManager[None]],
    *,
    resuming: bool,
) -> Iterator[TrainingGroup]:
    """Meet the other processes of the training, where there are any and that was not done; check that they do the same.

    Args:
        settings: The experiment.
        run: The chief's run.
        membership: From `following`; `None` in the chief.
        interruptible: Gives a context in which a request to stop raises.
        resuming: Whether it goes on with the run.
    """
    with contextlib.ExitStack() as stack:
        with interruptible():
            if membership is None:
                membership = stack.enter_context(joined(settings, run.path, resuming=resuming))
                membership.team.before_exit = run.finish
            require_same(membership.team, "settings", settings_digest(settings.values()))
        yield membership

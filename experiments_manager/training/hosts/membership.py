"""Joining the processes of a training, and what becomes of a process when another one is gone."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from experiments_manager.common.errors import UserError
from experiments_manager.common.exit_codes import ExitCode
from experiments_manager.common.jsonable import to_jsonable
from experiments_manager.settings import Settings
from experiments_manager.training.errors import TrainingError
from experiments_manager.training.hosts import team as teams
from experiments_manager.training.hosts.cluster import STRATEGY, HostCluster, read_cluster
from experiments_manager.training.hosts.peer import LastWords
from experiments_manager.training.hosts.rendezvous import gather_workers, join_chief
from experiments_manager.training.hosts.team import OtherProcessError, Team


@dataclasses.dataclass(frozen=True)
class TrainingGroup:
    """Of a process in a training.

    Attributes:
        team: The processes.
        cluster: Their addresses; `None` where this one is alone.
        run: The chief's run folder, which alone is written to and checkpoints are read from.
        resuming: Whether the chief goes on with a run.
    """

    team: Team = teams.ALONE
    cluster: HostCluster | None = None
    run: Path = Path()
    resuming: bool = False


ALONE = TrainingGroup()
"""Of a process that trains by itself."""


def cluster_of(settings: Settings) -> HostCluster | None:
    """Return the processes that train this experiment together; `None` where one does.

    Raises:
        TrainingError: The environment tells of processes, and makes no sense.
    """
    return read_cluster(os.environ) if settings.strategy == STRATEGY else None


@contextlib.contextmanager
def joined(settings: Settings, run: Path | None = None, *, resuming: bool = False) -> Iterator[TrainingGroup]:
    """Meet the other processes; inside, an error that follows from the end of another one says so.

    Args:
        settings: The experiment's.
        run: The run folder, given by the chief.
        resuming: Whether the chief goes on with it.

    Raises:
        OtherProcessError: Another process ended.
        TrainingError: They do not come together, or do not train the same.
    """
    cluster = cluster_of(settings)
    if cluster is None:
        yield TrainingGroup(run=run or Path(), resuming=resuming)
        return
    peers = gather_workers(cluster) if cluster.is_chief else [join_chief(cluster)]
    team = Team(cluster.index, peers, len(cluster.addresses))
    try:
        with _losses_told(team):
            path, resuming = team.chiefs([str(run), resuming])
            yield TrainingGroup(team, cluster, Path(path), resuming)
            team.leave()
    except BaseException as error:
        team.close(None if isinstance(error, OtherProcessError) else _last_words(cluster, error))
        raise
    team.close()


def require_same(team: Team, what: str, value: Any) -> None:
    """Raise `TrainingError` where processes of a training differ in something."""
    values = team.gather(value)
    for number, other in enumerate(values):
        if other != values[0]:
            raise TrainingError(
                f"The processes of this training have different {what}. Expected the same, got {values[0]!r} in the "
                f"chief and {other!r} in worker {number}. Start all of them with the same settings, code and data."
            )


def settings_digest(values: Mapping[str, Any]) -> str:
    """Return a short text that differs where settings do, but for those that only say where things are."""
    told = {name: value for name, value in values.items() if not name.endswith("_dir")}
    return hashlib.sha256(json.dumps(to_jsonable(told), sort_keys=True, default=str).encode()).hexdigest()[:12]


def change_of_workers(former: Mapping[str, Any], workers: int) -> str | None:
    """Return what there is to say where a run goes on with another number of processes; `None` where it does not.

    Args:
        former: The run's manifest.
        workers: Processes of now.
    """
    before = former.get("workers") or 1
    if before == workers:
        return None
    return (
        f"The run was trained by {before} {'process' if before == 1 else 'processes'} and goes on with {workers}: sums "
        "are rounded differently, so its last digits are not those of a run that kept the number."
    )


@contextlib.contextmanager
def _losses_told(team: Team) -> Iterator[None]:
    try:
        yield
    except (OtherProcessError, KeyboardInterrupt):
        raise
    except Exception as error:
        # TensorFlow notices first, and says little; an error of this process' own is not to wait long.
        if not _is_own(error) and team.has_lost(1.0):
            raise team.error() from error
        raise


def _is_own(error: BaseException) -> bool:
    """Return whether an error cannot follow from the end of another process: one of ours that TensorFlow did not cause.

    All processes find the same mistake in settings; it must not look like a lost worker in the one that is second.
    """
    chain: BaseException | None = error
    while chain is not None:
        if type(chain).__module__.startswith("tensorflow"):
            return False
        chain = chain.__cause__ or chain.__context__
    return isinstance(error, UserError)


def _last_words(cluster: HostCluster, error: BaseException) -> LastWords:
    who = "The chief" if cluster.is_chief else f"Worker {cluster.index}"
    what = str(error).splitlines()[0] if str(error) else type(error).__name__
    text = f"{who} ({cluster.addresses[cluster.index]}) ended: {what[:500]}"
    # A mistake that this process alone met, in its data for instance, would be met again: the job is not to be queued.
    return LastWords(text, error.exit_code if isinstance(error, UserError) and _is_own(error) else ExitCode.INTERRUPTED)

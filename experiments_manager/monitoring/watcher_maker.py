"""Who is told of a run that has no folder yet; imports nothing heavy before there is one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from experiments_manager.events import Watcher
    from experiments_manager.runs import Run
    from experiments_manager.settings import Settings


def watcher_maker(
    further: Sequence[Watcher], quiet: bool, on_run: Callable[[Run], None] | None
) -> Callable[[Run, Settings], list[Watcher]]:
    """Return what makes the watchers of a run when the run has its folder.

    Args:
        further: Who else is told, besides those that the settings choose.
        quiet: Whether the terminal shows messages alone.
        on_run: Called with the run first.
    """

    def make(run: Run, settings: Settings) -> list[Watcher]:
        from experiments_manager.monitoring.watchers import watchers_of

        if on_run is not None:
            on_run(run)
        return [*watchers_of(run, settings, quiet=quiet), *further]

    return make

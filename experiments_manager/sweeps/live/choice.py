"""Who watches a sweep, as its options choose."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from experiments_manager.sweeps.driver import Observer
    from experiments_manager.sweeps.experiment import Experiment
    from experiments_manager.sweeps.state.folder import SweepFolder


def chosen_observers(
    *, quiet: bool, serve: bool
) -> Callable[[SweepFolder, Experiment, int], contextlib.AbstractContextManager[Observer]]:
    """Return what makes those who watch a sweep, given its folder, its experiment and the most trials that it has."""

    @contextlib.contextmanager
    def make(folder: SweepFolder, experiment: Experiment, most: int) -> Iterator[Observer]:
        from experiments_manager.sweeps.live.observers import TableWriter, Together
        from experiments_manager.sweeps.live.terminal import terminal_display

        with contextlib.ExitStack() as stack:
            chosen: list[Observer] = [TableWriter(folder, experiment.names)]
            if serve:
                from experiments_manager.sweeps.live.serving import BestServer

                chosen.append(stack.enter_context(contextlib.closing(BestServer(folder, experiment))))
            if not quiet:
                chosen.append(stack.enter_context(terminal_display(folder, experiment, most)))
            yield Together(chosen)

    return make

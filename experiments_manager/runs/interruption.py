"""A resume that is interrupted before it has touched its run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from experiments_manager.runs.errors import RunError
from experiments_manager.runs.locking import lock
from experiments_manager.runs.run import Run


@contextlib.contextmanager
def interruption_recorded(run: Run) -> Iterator[None]:
    """Inside, a `KeyboardInterrupt` makes run.json say `interrupted`, also where a killed process left `running`.

    A run that is finished has lost nothing and stays that; so does one that another process works on.
    """
    try:
        yield
    except KeyboardInterrupt:
        with contextlib.suppress(RunError):
            if run.is_started and run.manifest.get("state") != "finished":
                with lock(run):
                    run.update(state="interrupted")
        raise

"""`experiments_manager logs` and `experiments_manager cancel`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from experiments_manager.cli import options
from experiments_manager.common.console import warn


def logs(
    run: options.RunFolder,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for more until the job has ended.")] = False,
    debug: options.Debug = False,
) -> None:
    """Show the output of a run's job."""
    from experiments_manager.cluster import jobs
    from experiments_manager.runs import open_run

    for piece in jobs.output(open_run(run), follow=follow, tell=warn):
        sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()


def cancel(run: options.RunFolder, debug: options.Debug = False) -> None:
    """Cancel a run's job.

    What it has trained is kept, and `resume` goes on with it.
    """
    from experiments_manager.cluster import jobs
    from experiments_manager.runs import open_run

    job, ended = jobs.cancel(open_run(run))
    typer.echo(f"Cancelled job {job}" if ended is None else f"Job {job} has ended already ({ended}): nothing to cancel")

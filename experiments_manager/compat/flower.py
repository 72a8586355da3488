"""Names of Flower that are not public, each with why it is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flwr.supercore.run import Run

IN_PROCESS_RUN = 1
"""Number of the run, of the server's node and of its task in a process that talks to no SuperLink."""


def identify_process() -> None:
    """Give this process the identity that Flower's `Message` asks for, unless Flower gave it one.

    Flower sets it in processes that it starts itself, and strategies make their messages by `Message(…)`; in a process
    of ours that fails without it. There is no public way to set it. If a release moves `TaskIdentity`: look for what
    `flwr/app/message/message.py` reads `run_id` from.
    """
    from flwr.supercore.task_identity import TaskIdentity

    for name in ("run_id", "node_id", "task_id"):
        try:
            getattr(TaskIdentity, name)
        except RuntimeError:
            setattr(TaskIdentity, name, IN_PROCESS_RUN)


def in_process_run() -> Run:
    """Return what a grid of this process has to say of its run: Flower's `Grid` asks for it, and nobody reads it.

    The class has no public name. If a release moves it: `flwr/serverapp/grid/grid.py` imports it.
    """
    from flwr.supercore.run import Run

    return Run.create_empty(IN_PROCESS_RUN)

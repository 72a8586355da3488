"""What the driver asks of whoever runs its trials: processes of this machine, or jobs of a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from experiments_manager.sweeps.trials.channel import Message

DIED = "died"
"""Kind of the message that stands for the end of a process or job that has not told its own."""


class TrialPool(Protocol):
    """Runs some trials at the same time."""

    @property
    def running(self) -> list[int]:
        """The numbers of the trials that have a process or a job."""

    @property
    def free(self) -> int:
        """How many more trials can be started now."""

    def reattach(self, tasks: Mapping[int, Message]) -> dict[int, dict[str, Any]]:
        """Reattach to what an earlier driver has left running; called once, before anything is started.

        Args:
            tasks: What the trials that should run would be told, by their numbers.

        Returns:
            For each trial that was reattached, what the journal must be told of it; nothing where it knows all.
        """

    def start(self, trial: int, task: Message) -> dict[str, Any] | None:
        """Start a trial, or go on with it.

        Returns:
            What the journal must be told of it before anything else happens.
        """

    def answer(self, trial: int, *, go: bool) -> None:
        """Tell a trial that has asked whether it goes on."""

    def ask_to_stop(self) -> None:
        """Let all trials write a checkpoint and end at their next step."""

    def poll(self, seconds: float) -> list[tuple[int, Message]]:
        """Wait for messages for some seconds at most.

        Returns:
            Messages with the number of the trial that each is of. The last one of a trial is `ended`, or `died` with
            `reason` and `outside`, which tells whether somebody else has ended it.
        """

    def close(self) -> None:
        """Let go of all that is left."""

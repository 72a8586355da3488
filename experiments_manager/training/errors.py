"""Errors of a run that are neither bad settings nor a failing hook."""

from __future__ import annotations

from experiments_manager.common.errors import UserError
from experiments_manager.common.exit_codes import ExitCode


class TrainingError(UserError):
    """The run cannot begin or go on; the message says why and what to do.

    Attributes:
        place: `file:line` of what it is about in the user's files, with which the message begins; `None` if unknown.
    """

    def __init__(self, message: str, place: str | None = None) -> None:
        super().__init__(f"{place}: {message}" if place else message)
        self.place = place


class DataError(TrainingError):
    """A data set is empty, has the wrong shape, or holds values that cannot be trained on."""


class DivergedError(TrainingError):
    """The loss became NaN or infinite.

    Attributes:
        step: Global step after which the loss was no longer finite.
    """

    exit_code = ExitCode.USER_CODE_FAILED

    def __init__(self, message: str, step: int) -> None:
        super().__init__(message)
        self.step = step


STREAM_ENDED = "no new sample in topic"
"""Begins the reason for which training ended where a stream had: it goes on when more has come."""


class StreamEndedError(Exception):
    """A stream has ended and gave no batch to the epoch that was begun; training ends normally with that reason."""


class OvertakenError(TrainingError):
    """Another run trains on samples that a checkpoint holds; an older checkpoint may do."""

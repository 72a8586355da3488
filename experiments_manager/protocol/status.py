"""Status codes of a request, and the error that carries one."""

from __future__ import annotations

import enum
import logging

logger = logging.getLogger(__name__)


class Code(enum.IntEnum):
    """Status codes of gRPC, which are those of TensorFlow and Abseil too."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class ServingError(Exception):
    """A request that cannot be answered.

    Attributes:
        code: The status to answer with.
        message: The reason, in TensorFlow Serving's words where it has some.
        http_status: What HTTP answers, where that does not follow from the code.
    """

    def __init__(self, code: Code, message: str, http_status: int | None = None) -> None:
        super().__init__(message)
        self.code, self.message, self.http_status = code, message, http_status

    def without_frames(self) -> ServingError:
        """Let go of the frames it came through, which would hold the request until the garbage collector comes.

        Those of its causes hold it as well: futures and tasks keep their exceptions, and frames keep futures and tasks.
        """
        errors: list[BaseException | None] = [self]
        while errors:
            error = errors.pop()
            if error is not None:
                errors += [error.__cause__, error.__context__]
                error.__traceback__ = error.__cause__ = error.__context__ = None
        return self


def invalid_argument(message: str) -> ServingError:
    """Return the error of a request that is wrong whatever the server's state."""
    return ServingError(Code.INVALID_ARGUMENT, message)


def not_found(message: str) -> ServingError:
    """Return the error of a request for what does not exist."""
    return ServingError(Code.NOT_FOUND, message)


def failed_precondition(message: str) -> ServingError:
    """Return the error of a request that needs the server in another state."""
    return ServingError(Code.FAILED_PRECONDITION, message)


def as_serving_error(error: BaseException, asked: str = "a request") -> ServingError:
    """Return what a client is told of an error; one that is not meant for clients is logged, and becomes INTERNAL.

    Args:
        error: What was raised.
        asked: What to call the request in the log.
    """
    if isinstance(error, ServingError):
        return error.without_frames()
    logger.error("%s failed in an unexpected way", asked, exc_info=error)
    return ServingError(Code.INTERNAL, f"{type(error).__name__}: {error}")

"""Status codes of a request, and the error that carries one."""

from __future__ import annotations

import enum


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
    """

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message

    def without_frames(self) -> ServingError:
        """Let go of the frames it came through, which would hold the request until the garbage collector comes.

        Those of its causes hold it as well: futures and tasks keep their exceptions, and frames keep futures and tasks.
        """
        found: list[BaseException | None] = [self]
        while found:
            error = found.pop()
            if error is not None:
                found += [error.__cause__, error.__context__]
                error.__traceback__ = error.__cause__ = error.__context__ = None
        return self


def invalid_argument(message: str) -> ServingError:
    """Return the request itself is wrong, whatever the server's state."""
    return ServingError(Code.INVALID_ARGUMENT, message)


def not_found(message: str) -> ServingError:
    """Return what the request names does not exist."""
    return ServingError(Code.NOT_FOUND, message)


def failed_precondition(message: str) -> ServingError:
    """Return the server is not in the state that the request needs."""
    return ServingError(Code.FAILED_PRECONDITION, message)

"""What goes wrong for a client of a model server."""

from __future__ import annotations

from experiments_manager.common.errors import UserError
from experiments_manager.protocol.status import Code


class ClientError(UserError):
    """A client cannot have its answer; the message is meant for the user.

    Attributes:
        code: The server's status, `OK` where the request never left.
    """

    def __init__(self, message: str, code: Code = Code.OK) -> None:
        super().__init__(message)
        self.code = code


class OutputClosedError(ClientError):
    """The pipe that takes the predictions is closed, as by `head` after its last line."""


class ServerGoneError(ClientError):
    """The server cannot be reached, or not any more."""

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


class ReaderGoneError(ClientError):
    """Whoever read the predictions on standard output wants no more of them, as `head` after its last line."""


class ServerGoneError(ClientError):
    """The server cannot be reached, or not any more."""

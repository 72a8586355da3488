"""What can go wrong in a federation."""

from __future__ import annotations

from experiments_manager.common.error_text import named_reason
from experiments_manager.common.errors import UserError


class FederationError(UserError):
    """A federation, one of its clients or what they send is not as expected; the message says how to fix it."""


def client_problem(error: BaseException) -> str:
    """Return the sentence by which the server hears of an error at a client, whatever a user's hook raised there."""
    return str(error) if isinstance(error, UserError) else f"{named_reason(error)}."

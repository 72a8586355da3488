"""What can go wrong in a federation."""

from __future__ import annotations

from experiments_manager.common.errors import UserError


class FederationError(UserError):
    """A federation, one of its clients or what they send is not as expected; the message says how to fix it."""

"""What can go wrong with a sweep as a whole; a trial that fails is no error of it."""

from __future__ import annotations

from experiments_manager.common.errors import UserError


class SweepError(UserError):
    """A sweep cannot begin or go on; the message says why and what to do."""

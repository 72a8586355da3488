"""Errors before a server answers."""

from __future__ import annotations

from experiments_manager.common.errors import UserError


class ServerStartError(UserError):
    """A server cannot be started as it was asked for; the message is meant for the user."""

"""What goes wrong in serving."""

from __future__ import annotations


class ServerStartError(Exception):
    """A server cannot be started as it was asked for; the message is meant for the user."""

"""Errors of jobs on a cluster."""

from __future__ import annotations

from experiments_manager.common.errors import UserError


class ClusterError(UserError):
    """A job cannot be described, submitted, found or cancelled."""


class RefusedError(ClusterError):
    """The cluster has refused what it was asked for, so that nothing came of it."""

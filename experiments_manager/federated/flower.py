"""The package `flwr`, without its telemetry and its look for updates."""

from __future__ import annotations

import logging
import os
from types import ModuleType

from experiments_manager.common.installation import install_command
from experiments_manager.federated.errors import FederationError

QUIET = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
"""Variables of the environment that keep Flower from asking the internet; also for processes of its own."""


def flower() -> ModuleType:
    """Return the package `flwr`.

    Raises:
        FederationError: It is not installed.
    """
    os.environ.update(QUIET)
    try:
        import flwr.app
        import flwr.serverapp.strategy
    except ImportError as error:
        raise FederationError(
            f"The package flwr is not installed. Install it: {install_command('federated')}"
        ) from error
    logging.getLogger("flwr").setLevel(logging.ERROR)  # it tells of each round; so do we, once
    return flwr

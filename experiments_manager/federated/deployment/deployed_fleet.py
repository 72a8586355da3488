"""The clients of a federation on machines of their own, as a run sees them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments_manager.federated.deployment.addresses import read_address
from experiments_manager.federated.deployment.deployment import KIND, Deployment
from experiments_manager.federated.deployment.server import running_server
from experiments_manager.federated.plan import FederationPlan
from experiments_manager.federated.settings_handshake import terms_of
from experiments_manager.training.engine.context import TrainingContext

if TYPE_CHECKING:
    from flwr.serverapp import Grid

    from experiments_manager.federated.local.trainer import LocalTrainer
    from experiments_manager.federated.server.federation_state import RoundReport

FLOWER = "flower"
"""The folder of the run in which Flower writes."""


@contextlib.contextmanager
def deployed_fleet(context: TrainingContext, server: LocalTrainer, deployment: Deployment) -> Iterator[DeployedFleet]:
    """Listen for the clients of a run; nothing of Flower runs afterwards.

    Args:
        context: The run of the global model.
        server: Knows its variables; clients train on models of their own.
        deployment: Where to listen, and for whom.

    Raises:
        FederationError: The server cannot start.
    """
    deployment.check()
    settings = context.experiment.settings

    def is_over() -> bool:
        progress = context.experiment.state.progress  # a resume puts another one in its place
        return progress.epoch >= settings.epochs or bool(progress.stop_reason)

    config = terms_of(settings) | {"run": context.run.name, "clients": FederationPlan.of(settings).clients}
    with running_server(
        read_address(deployment.address),
        deployment.security,
        insecure=deployment.insecure,
        home=context.run.path / FLOWER,
        is_over=is_over,
    ) as grid:
        context.dispatch("on_message", f"The server of the federation listens at {deployment.address}.")
        yield DeployedFleet(grid, config)


class DeployedFleet:
    """A `Fleet` behind SuperNodes; see `deployed_fleet`."""

    kind = KIND
    keeps_state = True

    def __init__(self, grid: Grid, config: Mapping[str, Any]) -> None:
        self.grid, self.config = grid, config

    def before_round(self, round: int) -> None:  # noqa: A002
        """Do nothing: clients get ready by themselves."""

    def after_round(self, report: RoundReport) -> None:
        """Do nothing: clients keep what they need by themselves."""

    def state(self) -> Mapping[str, np.ndarray]:
        """Return nothing, as what clients keep is with them."""
        return {}

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Do nothing: a client knows by the round what it has to go on from."""

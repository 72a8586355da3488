"""What a strategy remembers from round to round, whether it is the server's or a plain one of Flower."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from experiments_manager.federated.server.federation_state import FederationState
from experiments_manager.federated.strategies import strategy_state
from experiments_manager.federated.strategies.server_strategy import ServerStrategy

if TYPE_CHECKING:
    from flwr.serverapp.strategy import Strategy


def state_of(strategy: Strategy) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return what it remembers, as plain data and as arrays."""
    return strategy.state() if isinstance(strategy, ServerStrategy) else strategy_state.state_of(strategy)


def restore(strategy: Strategy, state: FederationState) -> None:
    """Let a strategy remember what it did after a round."""
    plain, arrays = dict(state.strategy), dict(state.strategy_arrays)
    if isinstance(strategy, ServerStrategy):
        strategy.restore(plain, arrays)
    else:
        strategy_state.restore(strategy, plain, arrays)

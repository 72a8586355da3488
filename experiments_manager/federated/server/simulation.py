"""A federation in this process: clients in threads, rounds, and their state on disk."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from experiments_manager.federated.array_records import require_same_variables
from experiments_manager.federated.errors import FederationError
from experiments_manager.federated.server.federation_state import FederationState
from experiments_manager.federated.server.local_grid import Client, LocalGrid
from experiments_manager.federated.server.rounds.loop import run_rounds
from experiments_manager.federated.server.rounds.plan import RoundHooks, RoundPlan
from experiments_manager.federated.server.state_files import read_latest
from experiments_manager.federated.server.state_writer import StateWriter

if TYPE_CHECKING:
    from flwr.serverapp.strategy import Strategy


def simulate(
    make_client: Callable[[int], Client],
    clients: int,
    *,
    strategy: Strategy,
    arrays: Mapping[str, np.ndarray],
    plan: RoundPlan,
    workers: int | None = None,
    checkpoints: Path | None = None,
    hooks: RoundHooks | None = None,
    bring_logs_to_disk: Callable[[], None] = lambda: None,
) -> FederationState:
    """Run a federation whose clients are all here; the result does not depend on `workers`.

    Args:
        make_client: Makes the client of a number from 0, when it is first asked. It answers one message after the
            other, and what it answers may depend on the message, the number and what it was asked in earlier rounds.
        clients: How many there are.
        strategy: A new one.
        arrays: The first global model.
        plan: How many rounds, and how.
        workers: How many clients work at a time; by default as many as there are processors.
        checkpoints: Where states are kept. If there are some, the newest whole one is where this goes on. They are
            written while the next round runs, and all clients begin again from there: nobody here outlives the process.
        hooks: Who is called on the way; `save` is called when a state was handed over to be written.
        bring_logs_to_disk: Called before a state counts.

    Returns:
        The state after the last round.

    Raises:
        FederationError: There are fewer clients than a round needs, a round failed, all states are damaged or
            of another model.
    """
    hooks = hooks or RoundHooks()
    if not 1 <= max(1, plan.min_clients) <= clients:
        raise FederationError(
            f"There are {clients} clients. Expected at least {max(1, plan.min_clients)} (min_clients). Simulate more "
            "of them (--clients), or lower min_clients."
        )
    grid = LocalGrid(make_client, range(clients), workers=workers or os.cpu_count() or 1)
    state = FederationState(0, dict(arrays))
    if checkpoints is None:
        return run_rounds(grid, strategy, state, plan, hooks)
    state = read_latest(checkpoints, hooks.on_message) or state
    require_same_variables(state.arrays, arrays)
    with StateWriter(checkpoints, bring_logs_to_disk) as writer:
        return run_rounds(grid, strategy, state, plan, dataclasses.replace(hooks, save=_both(writer.save, hooks.save)))


def _both(
    first: Callable[[FederationState], None], then: Callable[[FederationState], None]
) -> Callable[[FederationState], None]:
    def save(state: FederationState) -> None:
        first(state)
        then(state)

    return save

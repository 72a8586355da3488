"""A round of a federation, from a state to the next.

Flower's `Strategy.start` keeps its state in local variables, so it can only begin at round 1. Here, each round begins
from a `FederationState` and ends with one, and what a strategy draws depends on the seed and the round alone: rounds
that were interrupted and go on from a saved state end with the same bits as rounds that were not.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence

from experiments_manager.federated.errors import FederationError
from experiments_manager.federated.fleet import Federation
from experiments_manager.federated.message_records import to_record
from experiments_manager.federated.server.exchange import wait_for_nodes
from experiments_manager.federated.server.federation_state import FederationState, RoundReport
from experiments_manager.federated.server.round_steps import StepResult, evaluate, train
from experiments_manager.federated.strategies.server_strategy import nodes_needed

_SECONDS_BETWEEN_MESSAGES = 60.0


def run_round(federation: Federation, state: FederationState) -> tuple[FederationState, RoundReport] | None:
    """Run the round after a state.

    Args:
        federation: Who takes part, and how. Its strategy is a new one, which gets its memory from the state.
        state: After the last round; before the first one it holds the first arrays alone.

    Returns:
        The state after the round, and what became of it; `None` where the round was stopped.

    Raises:
        FederationError: The round got too few answers as often as it was tried, or the strategy failed.
    """
    if state.round == 0:
        plain, arrays = federation.strategy.state()
        state = dataclasses.replace(state, strategy=plain, strategy_arrays=arrays)
    federation.fleet.restore(state.client_arrays)
    if state.round:
        _restore_strategy(federation, state)
    began = time.monotonic()
    tried = _train(federation, state)
    if tried is None:
        return None
    trained, nodes, tries = tried
    evaluated = evaluate(federation, state.round + 1, trained.arrays, nodes, trained.gone)
    if federation.should_stop():
        return None
    report = _report(state.round + 1, time.monotonic() - began, trained, evaluated, tries)
    plain, arrays = federation.strategy.state()
    federation.fleet.after_round(report)
    return FederationState(report.round, trained.arrays, plain, arrays, dict(federation.fleet.state())), report


def _restore_strategy(federation: Federation, state: FederationState) -> None:
    federation.strategy.restore(dict(state.strategy), state.strategy_arrays, to_record(state.arrays))


def _train(federation: Federation, state: FederationState) -> tuple[StepResult, Sequence[int], int] | None:
    """Begin the round until enough clients answered; `None` where it was stopped.

    Raises:
        FederationError: They did not, as often as it was tried.
    """
    number, least = state.round + 1, federation.options.min_clients
    needed = nodes_needed(federation.strategy, least)
    problem = ""
    for attempt in range(federation.tries):
        nodes = _wait_for_clients(federation, needed, number)
        if federation.should_stop():
            return None
        if len(nodes) < needed:
            problem = f"{len(nodes)} clients are there. Expected at least {needed} (min_clients)."
            continue
        if attempt > 0:  # a strategy remembers that it was asked before
            _restore_strategy(federation, state)
            federation.fleet.restore(state.client_arrays)
        trained = train(federation, state, attempt, nodes)
        if federation.should_stop():
            return None
        if trained.arrays is not None:
            return trained, nodes, attempt + 1
        problem = _too_few(federation, trained)
        if attempt + 1 < federation.tries:
            federation.on_message(f"Round {number}: {problem} It is tried again ({attempt + 2} of {federation.tries}).")
            _pause(federation)
    raise FederationError(
        f"Round {number} could not be done in {federation.tries} tries: {problem} See to the clients, and resume: the "
        f"state of round {state.round} is kept."
    )


def _wait_for_clients(federation: Federation, needed: int, number: int) -> Sequence[int]:
    """Wait for enough clients as long as a round may take, and say so; without a limit, until they are there."""
    grid, limit, should_stop = federation.fleet.grid, federation.options.round_timeout, federation.should_stop
    nodes = wait_for_nodes(grid, needed, timeout=0, should_stop=should_stop)
    while len(nodes) < needed and not should_stop():
        federation.on_message(f"Round {number} waits for clients: {len(nodes)} of {needed} are there.")
        timeout = _SECONDS_BETWEEN_MESSAGES if limit is None else limit
        nodes = wait_for_nodes(grid, needed, timeout=timeout, should_stop=should_stop)
        if limit is not None:
            break
    return nodes


def _pause(federation: Federation) -> None:
    end = time.monotonic() + federation.pause
    while (left := end - time.monotonic()) > 0 and not federation.should_stop():
        time.sleep(min(left, 0.25))


def _too_few(federation: Federation, trained: StepResult) -> str:
    least, came = federation.options.min_clients, len(trained.by_client)
    if came >= least:
        return "the strategy returned no weights."
    why = " ".join(f"{entry.name}: {entry.reason}" for entry in trained.left_out)
    return f"{came} clients answered as expected. Expected at least {least} (min_clients). {why}"


def _report(number: int, seconds: float, trained: StepResult, evaluated: StepResult, tries: int) -> RoundReport:
    return RoundReport(
        round=number,
        seconds=seconds,
        train=trained.metrics,
        clients=evaluated.metrics,
        train_by_client=trained.by_client,
        clients_by_client=evaluated.by_client,
        participants=tuple(sorted(trained.by_client)),
        left_out=(*trained.left_out, *evaluated.left_out),
        bytes_sent=trained.bytes_sent + evaluated.bytes_sent,
        bytes_received=trained.bytes_received + evaluated.bytes_received,
        tries=tries,
    )

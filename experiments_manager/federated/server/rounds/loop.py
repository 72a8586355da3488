"""The rounds of a federation, from a state to the next.

Flower's `Strategy.start` keeps its state in local variables, so it can only begin at round 1. Here, each round begins
from a `FederationState` and ends with one, and what a strategy draws depends on the seed and the round alone: rounds
that were interrupted and go on from a saved state end with the same bits as rounds that were not.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from experiments_manager.federated.array_records import to_record
from experiments_manager.federated.errors import FederationError
from experiments_manager.federated.server.federation_state import FederationState, RoundReport
from experiments_manager.federated.server.rounds.evaluation import Evaluated, evaluate
from experiments_manager.federated.server.rounds.nodes import nodes_needed, wait_for_nodes
from experiments_manager.federated.server.rounds.plan import Federation, RoundHooks, RoundPlan
from experiments_manager.federated.server.rounds.proc_ids import ProcIds, name_of
from experiments_manager.federated.server.rounds.training import Trained, train
from experiments_manager.federated.strategies.server_strategy import ServerStrategy

if TYPE_CHECKING:
    from flwr.serverapp import Grid
    from flwr.serverapp.strategy import Strategy

_SECONDS_BETWEEN_MESSAGES = 60.0


def run_rounds(
    grid: Grid,
    strategy: Strategy,
    state: FederationState,
    plan: RoundPlan,
    hooks: RoundHooks | None = None,
    proc_ids: ProcIds | None = None,
) -> FederationState:
    """Run the rounds that are left.

    Args:
        grid: How clients are reached.
        strategy: A new one; where `state` is of a later round, it gets its memory from there.
        state: Where to begin: round 0 with the first arrays, or what was saved after a round.
        plan: How many rounds, and how.
        hooks: Who is called on the way.
        proc_ids: What is known of the clients' numbers, for who runs rounds in several calls.

    Returns:
        The state after the last round that counts; it has fewer rounds than planned where `should_stop` said so.

    Raises:
        FederationError: A round got too few answers as often as it was tried, or the strategy failed.
    """
    hooks = hooks or RoundHooks()
    strategy = strategy if isinstance(strategy, ServerStrategy) else ServerStrategy(strategy)
    federation = Federation(grid, strategy, plan, hooks, proc_ids or ProcIds(grid))
    if state.round == 0:
        plain, arrays = strategy.state()
        state = dataclasses.replace(state, strategy=plain, strategy_arrays=arrays)
        hooks.save(state)
    else:
        _restore(strategy, state)
    hooks.restore(state)
    while state.round < plan.rounds and not hooks.should_stop():
        after = _run_round(federation, state)
        if after is None:
            break
        hooks.save(after)
        state = after
    return state


def _restore(strategy: ServerStrategy, state: FederationState) -> None:
    strategy.restore(dict(state.strategy), state.strategy_arrays, to_record(state.arrays))


def _run_round(federation: Federation, state: FederationState) -> FederationState | None:
    """Run the round after `state`; `None` where it was stopped."""
    began = time.monotonic()
    hooks, number = federation.hooks, state.round + 1
    tried = _train(federation, state)
    if tried is None:
        return None
    trained, nodes, tries = tried
    evaluated = evaluate(federation, number, trained.arrays, nodes, trained.gone)
    if hooks.should_stop():
        return None
    report = _report(number, time.monotonic() - began, trained, evaluated, tries)
    plain, arrays = federation.strategy.state()
    after = FederationState(number, trained.arrays, plain, arrays, state.extra_arrays)
    hooks.on_round(report, after)
    return after if hooks.extra_arrays is None else dataclasses.replace(after, extra_arrays=dict(hooks.extra_arrays()))


def _train(federation: Federation, state: FederationState) -> tuple[Trained, Sequence[int], int] | None:
    """Begin the round until enough clients answered; `None` where it was stopped.

    Raises:
        FederationError: They did not, as often as it was tried.
    """
    plan, hooks, number = federation.plan, federation.hooks, state.round + 1
    needed = nodes_needed(federation.strategy, plan.min_clients)
    problem = ""
    for attempt in range(max(1, plan.tries)):
        nodes = _wait_for_clients(federation, needed, number)
        if hooks.should_stop():
            return None
        if len(nodes) < needed:
            problem = f"{len(nodes)} clients are there. Expected at least {needed} (min_clients)."
            continue
        if attempt > 0:  # a strategy remembers that it was asked before
            _restore(federation.strategy, state)
            hooks.restore(state)
        trained = train(federation, state, attempt, nodes)
        if hooks.should_stop():
            return None
        if trained.arrays is not None:
            return trained, nodes, attempt + 1
        problem = _too_few(trained, plan.min_clients)
        if attempt + 1 < plan.tries:
            hooks.on_message(f"Round {number}: {problem} It is tried again ({attempt + 2} of {plan.tries}).")
            _pause(plan.pause, hooks)
    raise FederationError(
        f"Round {number} could not be done in {plan.tries} tries: {problem} See to the clients, and resume: the "
        f"state of round {state.round} is kept."
    )


def _wait_for_clients(federation: Federation, needed: int, number: int) -> Sequence[int]:
    """Wait for enough clients as long as a round may take, and say so; without a limit, until they are there."""
    plan, hooks = federation.plan, federation.hooks
    nodes = wait_for_nodes(federation.grid, needed, timeout=0, should_stop=hooks.should_stop)
    while len(nodes) < needed and not hooks.should_stop():
        hooks.on_message(f"Round {number} waits for clients: {len(nodes)} of {needed} are there.")
        timeout = _SECONDS_BETWEEN_MESSAGES if plan.round_timeout is None else plan.round_timeout
        nodes = wait_for_nodes(federation.grid, needed, timeout=timeout, should_stop=hooks.should_stop)
        if plan.round_timeout is not None:
            break
    return nodes


def _pause(seconds: float, hooks: RoundHooks) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0 and not hooks.should_stop():
        time.sleep(min(left, 0.25))


def _too_few(trained: Trained, min_clients: int) -> str:
    if len(trained.by_client) >= min_clients:
        return "the strategy returned no weights."
    why = " ".join(f"{name_of(entry)}: {entry.reason}" for entry in trained.left_out)
    return (
        f"{len(trained.by_client)} clients answered as expected. Expected at least {min_clients} (min_clients). {why}"
    )


def _report(number: int, seconds: float, trained: Trained, evaluated: Evaluated, tries: int) -> RoundReport:
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

"""The two halves of a round: clients train, and evaluate what came of it; who is asked, and what comes back."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments_manager.common.error_text import named_reason
from experiments_manager.federated.errors import FederationError
from experiments_manager.federated.fleet import Federation
from experiments_manager.federated.message_records import ARRAY_DTYPES, cast_like, to_arrays, to_record, widened_dtypes
from experiments_manager.federated.server.exchange import Exchange, FixedNodes, exchange
from experiments_manager.federated.server.federation_state import FederationState, Values
from experiments_manager.federated.server.masked_round import MaskedRound
from experiments_manager.federated.server.seeds import seeded
from experiments_manager.federated.strategies.reply_checks import (
    EXAMPLES,
    Bounds,
    LeftOut,
    arrays_in,
    checked_replies,
    proc_id_of,
)

if TYPE_CHECKING:
    from flwr.app import ArrayRecord, Message, MetricRecord

_CODES_OF_NODES_GONE = {3, 4, 5}
"""Flower's: a message or its reply is not available, or the node sends no heartbeat."""
_CONFIGURE_TRAIN, _AGGREGATE_TRAIN, _CONFIGURE_EVALUATE, _AGGREGATE_EVALUATE = range(4)
"""Name parts of a round among those that are seeded."""


@dataclasses.dataclass(frozen=True)
class StepResult:
    """What a try of training, or an evaluation, came to."""

    metrics: Values
    by_client: Mapping[int, Values]
    left_out: Sequence[LeftOut]
    bytes_sent: int
    bytes_received: int
    arrays: Mapping[str, np.ndarray] | None = None
    """The new global model; `None` where too few clients answered as expected."""
    gone: Sequence[int] = ()
    """Nodes that did not answer, or for which the SuperLink answered that they are gone."""


def train(federation: Federation, state: FederationState, attempt: int, nodes: Sequence[int]) -> StepResult:
    """Let clients train the model of `state` for one round, and aggregate.

    Args:
        federation: Who takes part, and how.
        state: The state before the round; it is not changed, but the strategy is.
        attempt: Which try this is, counted from 0.
        nodes: Who is there.

    Raises:
        FederationError: The strategy failed, or the new weights are not finite.
    """
    options, number, sent = federation.options, state.round + 1, to_record(state.arrays)
    config = _config_record({**federation.fleet.config, **federation.train_config}, state.arrays)
    with _strategy_works(federation, "choose the clients that train", number, attempt, _CONFIGURE_TRAIN):
        grid = FixedNodes(federation.fleet.grid, nodes)
        messages = list(federation.strategy.configure_train(number, sent, config, grid))
    came = _ask(federation, messages)
    masked = MaskedRound(federation, options.masks, number) if options.masks else None
    good, left_out = _usable(federation, came, None if masked else sent, is_training=True)
    by_client = _metrics_by_client(good)
    if masked and len(good) >= options.min_clients and not federation.should_stop():
        whole, took_part = masked.mean(good, sent)
        in_sum = {proc_id_of(reply) for reply in took_part}
        by_client = {client: told for client, told in by_client.items() if client in in_sum}
        left_out = federation.proc_ids.named([*left_out, *masked.left_out])
        good = [] if whole is None else [whole]
    arrays, metrics = None, {}
    if good and len(by_client) >= options.min_clients and not federation.should_stop():
        arrays, metrics = _aggregate(federation, state, attempt, good)
    if arrays is not None:
        federation.strategy.note_examples({client: told[EXAMPLES] for client, told in by_client.items()})
    gone = [*came.silent, *(reply.metadata.src_node_id for reply in came.replies if _is_gone(reply))]
    sent_masks, received_masks = (masked.bytes_sent, masked.bytes_received) if masked else (0, 0)
    sizes = came.bytes_sent + sent_masks, came.bytes_received + received_masks
    return StepResult(metrics, by_client, left_out, *sizes, arrays, gone)


def evaluate(
    federation: Federation, number: int, arrays: Mapping[str, np.ndarray], nodes: Sequence[int], gone: Sequence[int]
) -> StepResult:
    """Let clients evaluate a model.

    A round counts without it: who does not answer as expected is left out, and if that is everybody there are no
    metrics.

    Args:
        federation: Who takes part, and how.
        number: The round.
        arrays: The new model.
        nodes: Who is there.
        gone: Nodes that did not answer when they should train; they are not waited for again.
    """
    config = _config_record(federation.fleet.config, arrays)
    with _strategy_works(federation, "choose the clients that evaluate", number, _CONFIGURE_EVALUATE):
        grid = FixedNodes(federation.fleet.grid, nodes)
        messages = list(federation.strategy.configure_evaluate(number, to_record(arrays), config, grid))
    came = _ask(federation, [message for message in messages if message.metadata.dst_node_id not in gone])
    good, left_out = _usable(federation, came, None)
    metrics: Values = {}
    if good and not federation.should_stop():
        with _strategy_works(federation, "aggregate metrics", number, _AGGREGATE_EVALUATE):
            metrics = _scalars(federation.strategy.aggregate_evaluate(number, good) or {})
    return StepResult(metrics, _metrics_by_client(good), left_out, came.bytes_sent, came.bytes_received)


def _ask(federation: Federation, messages: Sequence[Message]) -> Exchange:
    """Send messages and wait for replies as long as a round may take."""
    timeout = federation.options.round_timeout
    return exchange(federation.fleet.grid, messages, timeout=timeout, should_stop=federation.should_stop)


def _usable(
    federation: Federation, came: Exchange, sent: ArrayRecord | None, *, is_training: bool = False
) -> tuple[list[Message], list[LeftOut]]:
    """Return the replies that can be aggregated, by the clients' numbers, and who is left out and why.

    Args:
        federation: Who takes part, and how.
        came: What was sent and came back.
        sent: The arrays that were to be trained; `None` where replies have none.
        is_training: Whether clients trained, so that their numbers of samples are compared with earlier rounds.
    """
    federation.proc_ids.learn(came.replies)
    good, left_out = checked_replies(
        came.replies,
        sent,
        federation.proc_ids.known,
        must_differ=federation.strategy.needs_changes,
        bounds=Bounds(federation.options.max_examples, federation.strategy.examples if is_training else {}),
    )
    timeout = federation.options.round_timeout
    why = "It could not be sent the message." if timeout is None else f"It did not answer within {timeout:g} s."
    return good, federation.proc_ids.named([*left_out, *(LeftOut(None, node_id, why) for node_id in came.silent)])


def _aggregate(
    federation: Federation, state: FederationState, attempt: int, replies: Sequence[Message]
) -> tuple[Mapping[str, np.ndarray] | None, Values]:
    """Return the new global model and the metrics of training; no model where the strategy makes none.

    Raises:
        FederationError: The strategy failed, or the new weights are not finite, or all zero.
    """
    number = state.round + 1
    any_zero = any(_is_zero(to_arrays(arrays_in(reply))) for reply in replies)
    with _strategy_works(federation, "aggregate", number, attempt, _AGGREGATE_TRAIN):
        record, metrics = federation.strategy.aggregate_train(number, replies)
    if record is None:
        return None, {}
    arrays = cast_like(to_arrays(record), state.arrays)
    _require_finite(arrays, number)
    if not any_zero and _is_zero(arrays):
        raise FederationError(
            f"Round {number}: all aggregated weights are exactly zero, though those of no client are. Expected their "
            "mean. Look at the options of the strategy (federated), and resume."
        )
    return arrays, _scalars(metrics or {})


def _is_gone(reply: Message) -> bool:
    return reply.has_error() and reply.error.code in _CODES_OF_NODES_GONE


def _metrics_by_client(replies: Sequence[Message]) -> dict[int, Values]:
    """Return the metrics of replies that can be aggregated, by the clients' numbers."""
    return {proc_id_of(reply): _scalars(reply.content["metrics"]) for reply in replies}


def _config_record(values: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Any:
    """Return the `config` of a message; strategies write into it, so each round has its own."""
    from flwr.app import ConfigRecord

    dtypes = widened_dtypes(arrays)
    return ConfigRecord({**values, **({ARRAY_DTYPES: dtypes} if dtypes else {})})


def _scalars(metrics: MetricRecord | Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics that are one number each."""
    return {name: float(value) for name, value in metrics.items() if isinstance(value, (int, float))}


@contextlib.contextmanager
def _strategy_works(federation: Federation, work: str, *place: int) -> Iterator[None]:
    """Let the strategy draw what follows from its place, which begins with the round, and say at what it failed."""
    try:
        with seeded(federation.seed, *place):
            yield
    except FederationError:
        raise
    except Exception as error:  # the strategy may be the user's own
        raise FederationError(
            f"Round {place[0]}: the strategy {type(federation.strategy.strategy).__name__} could not {work}: "
            f"{named_reason(error)}. Fix its options (federated), or the hook federated_strategy."
        ) from error


def _is_zero(arrays: Mapping[str, np.ndarray]) -> bool:
    """Return whether no variable of real numbers has another element than zero; what overflows may end so."""
    floating = [array for array in arrays.values() if array.dtype.kind not in "biu"]
    return bool(floating) and not any(np.any(array) for array in floating)


def _require_finite(arrays: Mapping[str, np.ndarray], number: int) -> None:
    for name, array in arrays.items():
        floating = array if array.dtype.kind in "fc" else array.astype(np.float32)
        if not np.isfinite(floating).all():
            raise FederationError(
                f"Round {number}: the aggregated {name} is not finite, though all clients sent finite weights. "
                "Expected numbers, got NaN or Inf. Lower the strategy's learning rate (federated), and resume."
            )

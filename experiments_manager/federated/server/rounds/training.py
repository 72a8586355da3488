"""One try of a round: who trains, what comes back, and what the strategy makes of it."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments_manager.common.error_text import named_reason
from experiments_manager.federated.array_records import ARRAY_DTYPES, cast_like, to_arrays, to_record, widened_dtypes
from experiments_manager.federated.errors import FederationError
from experiments_manager.federated.server.federation_state import FederationState, Values
from experiments_manager.federated.server.rounds.exchange import Exchange, exchange
from experiments_manager.federated.server.rounds.nodes import FixedNodes
from experiments_manager.federated.server.rounds.plan import Federation
from experiments_manager.federated.server.rounds.secure import MaskedRound
from experiments_manager.federated.server.rounds.seeds import seeded
from experiments_manager.federated.strategies import reply_checks
from experiments_manager.federated.strategies.reply_checks import EXAMPLES, Bounds, LeftOut

if TYPE_CHECKING:
    from flwr.app import ArrayRecord, Message, MetricRecord

_CODES_OF_NODES_GONE = {3, 4, 5}
"""Flower's: a message or its reply is not available, or the node sends no heartbeat."""
_CONFIGURE_TRAIN, _AGGREGATE_TRAIN = 0, 1


@dataclasses.dataclass(frozen=True)
class Trained:
    """What a try came to."""

    arrays: Mapping[str, np.ndarray] | None
    """The new global model; `None` where too few clients answered as expected."""
    metrics: Values
    by_client: Mapping[int, Values]
    left_out: Sequence[LeftOut]
    gone: Sequence[int]
    """Nodes that did not answer, or for which the SuperLink answered that they are gone."""
    bytes_sent: int
    bytes_received: int


def train(federation: Federation, state: FederationState, attempt: int, nodes: Sequence[int]) -> Trained:
    """Let clients train the model of `state` for one round, and aggregate.

    Args:
        federation: Who takes part, and how.
        state: The state before the round; it is not changed, but the strategy is.
        attempt: Which try this is, counted from 0.
        nodes: Who is there.

    Raises:
        FederationError: The strategy failed, or the new weights are not finite.
    """
    plan, number = federation.plan, state.round + 1
    sent = to_record(state.arrays)
    config = config_record(plan.train_config, state.arrays)
    with (
        strategy_works(federation, number, "choose the clients that train"),
        seeded(plan.seed, number, attempt, _CONFIGURE_TRAIN),
    ):
        fixed = FixedNodes(federation.grid, nodes)
        messages = list(federation.strategy.configure_train(number, sent, config, fixed))
    came = ask(federation, messages)
    masked = MaskedRound(federation, plan.secure, number) if plan.secure else None
    good, left_out = usable(federation, came, None if masked else sent, is_training=True)
    by_client = metrics_by_client(good)
    if masked and len(good) >= max(1, plan.min_clients) and not federation.hooks.should_stop():
        whole, took_part = masked.mean(good, sent)
        lost = set(by_client) - {reply_checks.proc_id_of(reply) for reply in took_part}
        by_client = {client: told for client, told in by_client.items() if client not in lost}
        left_out = federation.proc_ids.named([*left_out, *masked.left_out])
        good = [] if whole is None else [whole]
    is_enough = len(by_client) >= max(1, plan.min_clients) and len(good) > 0
    arrays, metrics = None, {}
    if is_enough and not federation.hooks.should_stop():
        any_zero = any(_is_zero(to_arrays(next(iter(reply.content.array_records.values())))) for reply in good)
        with strategy_works(federation, number, "aggregate"), seeded(plan.seed, number, attempt, _AGGREGATE_TRAIN):
            record, aggregated = federation.strategy.aggregate_train(number, good)
        if record is not None:
            arrays, metrics = cast_like(to_arrays(record), state.arrays), scalars(aggregated or {})
            _require_finite(arrays, number)
            if not any_zero and _is_zero(arrays):
                raise FederationError(
                    f"Round {number}: all aggregated weights are exactly zero, though those of no client are. Expected "
                    "their mean. Look at the options of the strategy (federated), and resume."
                )
            federation.strategy.note_examples({number: told[EXAMPLES] for number, told in by_client.items()})
    gone = [*came.silent, *(reply.metadata.src_node_id for reply in came.replies if _is_gone(reply))]
    sizes = [came.bytes_sent, came.bytes_received]
    if masked:
        sizes = [sizes[0] + masked.bytes_sent, sizes[1] + masked.bytes_received]
    return Trained(arrays, metrics, by_client, left_out, gone, *sizes)


def _is_gone(reply: Message) -> bool:
    return reply.has_error() and reply.error.code in _CODES_OF_NODES_GONE


def ask(federation: Federation, messages: Sequence[Message]) -> Exchange:
    """Send messages and wait for replies as long as the plan says."""
    return exchange(
        federation.grid, messages, timeout=federation.plan.round_timeout, should_stop=federation.hooks.should_stop
    )


def usable(
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
    good, left_out = reply_checks.checked_replies(
        came.replies,
        sent,
        federation.proc_ids.known,
        must_differ=federation.strategy.needs_changes,
        bounds=Bounds(federation.plan.max_examples, federation.strategy.examples if is_training else {}),
    )
    timeout = federation.plan.round_timeout
    why = "It could not be sent the message." if timeout is None else f"It did not answer within {timeout:g} s."
    return good, federation.proc_ids.named([*left_out, *(LeftOut(None, node_id, why) for node_id in came.silent)])


def metrics_by_client(replies: Sequence[Message]) -> dict[int, Values]:
    """Return the metrics of replies that can be aggregated, by the clients' numbers."""
    return {reply_checks.proc_id_of(reply): scalars(reply.content["metrics"]) for reply in replies}


def config_record(values: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Any:
    """Return the `config` of a message; strategies write into it, so each round has its own."""
    from flwr.app import ConfigRecord

    dtypes = widened_dtypes(arrays)
    return ConfigRecord({**values, **({ARRAY_DTYPES: dtypes} if dtypes else {})})


def scalars(metrics: MetricRecord | Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics that are one number each."""
    return {name: float(value) for name, value in metrics.items() if isinstance(value, (int, float))}


@contextlib.contextmanager
def strategy_works(federation: Federation, number: int, work: str) -> Iterator[None]:
    """Say which strategy failed at what, where it does: it may be the user's own."""
    try:
        yield
    except FederationError:
        raise
    except Exception as error:
        raise FederationError(
            f"Round {number}: the strategy {type(federation.strategy.strategy).__name__} could not {work}: "
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

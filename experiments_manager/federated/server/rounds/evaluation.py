"""The clients' evaluation of a round's new model."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from experiments_manager.federated.array_records import to_record
from experiments_manager.federated.server.federation_state import Values
from experiments_manager.federated.server.rounds.nodes import FixedNodes
from experiments_manager.federated.server.rounds.seeds import seeded
from experiments_manager.federated.server.rounds.training import (
    Federation,
    ask,
    config_record,
    metrics_by_client,
    scalars,
    strategy_works,
    usable,
)
from experiments_manager.federated.strategies.reply_checks import LeftOut

_CONFIGURE_EVALUATE, _AGGREGATE_EVALUATE = 2, 3


@dataclasses.dataclass(frozen=True)
class Evaluated:
    """The metrics that clients measured with the global model."""

    metrics: Values
    by_client: Mapping[int, Values]
    left_out: Sequence[LeftOut]
    bytes_sent: int
    bytes_received: int


def evaluate(
    federation: Federation, number: int, arrays: Mapping[str, np.ndarray], nodes: Sequence[int], gone: Sequence[int]
) -> Evaluated:
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
    plan = federation.plan
    config = config_record(plan.evaluate_config, arrays)
    with (
        strategy_works(federation, number, "choose the clients that evaluate"),
        seeded(plan.seed, number, _CONFIGURE_EVALUATE),
    ):
        fixed = FixedNodes(federation.grid, nodes)
        messages = list(federation.strategy.configure_evaluate(number, to_record(arrays), config, fixed))
    came = ask(federation, [message for message in messages if message.metadata.dst_node_id not in gone])
    good, left_out = usable(federation, came, None)
    metrics: Values = {}
    if good and not federation.hooks.should_stop():
        with strategy_works(federation, number, "aggregate metrics"), seeded(plan.seed, number, _AGGREGATE_EVALUATE):
            metrics = scalars(federation.strategy.aggregate_evaluate(number, good) or {})
    return Evaluated(metrics, metrics_by_client(good), left_out, came.bytes_sent, came.bytes_received)

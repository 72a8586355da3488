"""The masked part of a round: the server learns the mean of the clients' updates, and no single one (SecAgg+)."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments_manager.common.error_text import reason
from experiments_manager.compat.flower import masked_vector, secure_sum
from experiments_manager.federated.fleet import Federation
from experiments_manager.federated.message_records import (
    MAX_WEIGHT,
    NODE,
    ROUND,
    SECURE,
    SHARES,
    THRESHOLD,
    in_dtype,
    to_arrays,
)
from experiments_manager.federated.server.exchange import exchange
from experiments_manager.federated.strategies.reply_checks import CLIENT, ERROR, EXAMPLES, LeftOut, examples_of
from experiments_manager.settings.options.secure_aggregation import LEAST_CLIENTS, SecureAggregation

if TYPE_CHECKING:
    from flwr.app import ArrayRecord, Message

_KINDS = ("keys", "secrets", "vector", "shares")
"""What clients answer, stage by stage."""


class MaskedRound:
    """Masks and unmasks the updates of clients that trained.

    Args:
        federation: Who takes part, and how.
        options: How it is done.
        number: Of the round.

    Attributes:
        left_out: Clients that were lost on the way, or answered something else, and why.
        bytes_sent: Of all stages.
        bytes_received: Of all stages.
    """

    def __init__(self, federation: Federation, options: SecureAggregation, number: int) -> None:
        self._federation, self._options, self._number = federation, options, number
        self._told: dict[str, Any] = {ROUND: number}
        self._size, self._stage = 0, 0
        self.left_out: list[LeftOut] = []
        self.bytes_sent = self.bytes_received = 0

    def mean(self, trained: Sequence[Message], sent: ArrayRecord) -> tuple[Message | None, list[Message]]:
        """Return one reply with the mean of the weights and of the metrics, as of a client that has all samples.

        Args:
            trained: The checked replies of clients that trained, which tell numbers alone.
            sent: What they trained.

        Returns:
            That reply, or `None` where too many were lost; and the replies of the clients whose updates are in it.
        """
        options, arrays = self._options, to_arrays(sent)
        self._size = sum(array.size for array in arrays.values())
        if len(trained) < LEAST_CLIENTS or len(trained) * options.quantization_range > options.modulus_range:
            limit = options.modulus_range // options.quantization_range
            why = f"Secure aggregation is for {LEAST_CLIENTS} to {limit} clients. Got {len(trained)}."
            self.left_out += [LeftOut(None, reply.metadata.src_node_id, why) for reply in trained]
            return None, []
        shares, threshold = options.for_clients(len(trained))
        weight = max(examples_of(reply) for reply in trained)
        self._told |= {SHARES: shares, THRESHOLD: threshold, MAX_WEIGHT: weight}
        ranges = options.model_dump(include={"clipping_range", "quantization_range", "modulus_range"})
        nodes = [reply.metadata.src_node_id for reply in trained]
        try:
            mean, summed = secure_sum(self, nodes, self._number, shares, threshold, weight, ranges)
        except Exception as error:  # whatever clients answered must not stop the server
            self._federation.on_message(f"Round {self._number}: the masks cannot be taken off: {reason(error)}.")
            return None, []
        took_part = [reply for reply in trained if reply.metadata.src_node_id in summed]
        if mean is None or len(took_part) < self._federation.options.min_clients:
            return None, took_part
        return _as_reply(took_part, _moved(arrays, mean)), took_part

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Do what the workflow asks of a grid: send the messages of a stage and return the answers that can be used."""
        from flwr.app import ConfigRecord, RecordDict

        messages = list(messages)
        for message in messages:
            told = ConfigRecord({**self._told, NODE: message.metadata.dst_node_id})
            message.content = RecordDict({**message.content, SECURE: told})
        federation, began = self._federation, time.monotonic()
        timeout, should_stop = federation.options.round_timeout, federation.should_stop
        came = exchange(federation.fleet.grid, messages, timeout=timeout, should_stop=should_stop)
        self.bytes_sent += came.bytes_sent
        self.bytes_received += came.bytes_received
        waited = f"It was lost while updates were masked (no answer in {time.monotonic() - began:.0f} s)."
        self.left_out += [LeftOut(None, node_id, waited) for node_id in came.silent]
        kind, self._stage = _KINDS[self._stage], self._stage + 1
        return [reply for reply in came.replies if self._is_usable(reply, kind)]

    def _is_usable(self, reply: Message, kind: str) -> bool:
        try:
            problem = self._problem(reply, kind)
        except Exception as error:  # whatever a client sends must not stop the server
            problem = f"Its part of the secure aggregation cannot be read: {reason(error)}."
        if problem:
            self.left_out.append(LeftOut(None, reply.metadata.src_node_id, problem))
        return not problem

    def _problem(self, reply: Message, kind: str) -> str:
        if reply.has_error():
            return f"It reports an error (code {reply.error.code}): {reply.error.reason}"
        if error := reply.content.config_records.get(CLIENT, {}).get(ERROR):
            return f"It reports an error: {error}"
        got, masked = masked_vector(reply.content)
        if got != kind:
            return f"It answered {got} in a secure aggregation. Expected {kind}."
        if kind == "vector":
            sizes = [array.size for array in masked]
            if sizes != [1, self._size] or any(array.dtype.kind not in "iu" for array in masked):
                return f"Its masked vectors have {sizes} elements. Expected integers, {[1, self._size]}."
        return ""


def _moved(arrays: dict[str, np.ndarray], mean: np.ndarray) -> dict[str, np.ndarray]:
    """Return the weights that were sent, changed by the mean of the updates."""
    moved, begin = {}, 0
    for name, array in arrays.items():
        change = mean[begin : begin + array.size].reshape(array.shape)
        moved[name] = in_dtype(np.asarray(array.astype("float64") + change), array.dtype)
        begin += array.size
    return moved


def _as_reply(took_part: Sequence[Message], arrays: dict[str, np.ndarray]) -> Message:
    from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict

    told = [next(iter(reply.content.metric_records.values())) for reply in took_part]
    weights = np.array([examples_of(reply) for reply in took_part])
    means = {
        name: np.average([np.asarray(each[name], "float64") for each in told], axis=0, weights=weights).tolist()
        for name in told[0]
        if name != EXAMPLES
    }
    first = took_part[0]
    first.content = RecordDict(
        {
            **first.content,
            "arrays": ArrayRecord({name: Array(array) for name, array in arrays.items()}),
            "metrics": MetricRecord({EXAMPLES: float(weights.sum()), **means}),
        }
    )
    return first

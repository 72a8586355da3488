"""The epochs that a client trains in a round, chunk by chunk as a run does, without what makes a run."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from typing import NamedTuple

import keras
import tensorflow as tf

from experiments_manager.federated.local.client import HOST_RANDOM, FederatedClient
from experiments_manager.federated.local.task import LocalTask
from experiments_manager.training.engine.chunks import ChunkSize, source_after, train_chunk
from experiments_manager.training.engine.steps import CompiledLoops
from experiments_manager.training.engine.user_callbacks import UserCallbacks
from experiments_manager.training.errors import DataError, TrainingError
from experiments_manager.training.feeds.feed import Feed
from experiments_manager.training.setup.metrics import as_numbers

logger = logging.getLogger(__name__)


class ClientStopped(BaseException):
    """A client was asked to stop; like `KeyboardInterrupt`, it is no error that anybody is to be told of."""


class LocalSteps(NamedTuple):
    """What was trained in a round."""

    steps: int
    epochs: int
    """Those that were begun."""
    logs: dict[str, float]
    """Loss and metrics of the last one."""


class LocalEpochs:
    """Trains epochs on the data of one client after the other.

    Args:
        model: What is trained.
        loops: Its compiled loops.
    """

    def __init__(self, model: keras.Model, loops: CompiledLoops) -> None:
        self._model, self._loops, self._chunk_size = model, loops, ChunkSize()

    def train(
        self, client: FederatedClient, feed: Feed, task: LocalTask, callbacks: UserCallbacks | None
    ) -> LocalSteps:
        """Train a round's epochs, fewer where a callback ends them or the data has ended.

        Args:
            client: Whose data it is.
            feed: Its data, in the form that the loop takes batches from.
            task: What is asked for.
            callbacks: The client's, told of the model.

        Returns:
            What was done.
        """
        steps, epochs, logs = 0, 0, {}
        if callbacks:
            callbacks.list.on_train_begin()
        for epoch in range((task.round - 1) * task.epochs, task.round * task.epochs):
            taken, logs = self._epoch(client, feed, epoch, task.round, callbacks)
            steps, epochs = steps + taken, epochs + 1
            if callbacks and callbacks.stop_training:
                break
            if feed.end_reason is not None:
                logger.info("Client %d: %s.", client.number, feed.end_reason)
                break
        if callbacks:
            callbacks.list.on_train_end(logs)
        return LocalSteps(steps, epochs, logs)

    def _epoch(
        self,
        client: FederatedClient,
        feed: Feed,
        epoch: int,
        round: int,  # noqa: A002
        callbacks: UserCallbacks | None,
    ) -> tuple[int, dict[str, float]]:
        self._model.reset_metrics()
        if self._loops.prequential is not None:
            self._loops.prequential.reset()
        if callbacks:
            callbacks.list.on_epoch_begin(epoch)
        steps, logs = self._steps(client, feed, epoch, round, callbacks)
        if not steps:
            why = feed.end_reason or f'Look at what `dataset("{feed.split}")` returns'
            raise DataError(f"dataset: client {client.number} has no batch to train on. Expected at least one. {why}.")
        numbers = as_numbers(logs)
        if callbacks:
            callbacks.list.on_epoch_end(epoch, dict(numbers))
        return steps, numbers

    def _steps(
        self,
        client: FederatedClient,
        feed: Feed,
        epoch: int,
        round: int,  # noqa: A002
        callbacks: UserCallbacks | None,
    ) -> tuple[int, Mapping[str, tf.Tensor]]:
        with HOST_RANDOM:
            source = feed.open(epoch)
        step, logs = 0, {}
        while feed.steps is None or step < feed.steps:
            first, last = step, step + self._ready(client, feed, step, callbacks)
            chunk = train_chunk(self._loops, feed, callbacks, self._chunk_size, source, first, last)
            step, logs = chunk.done, chunk.logs if chunk.done > first else logs
            if not chunk.finite:
                raise TrainingError(
                    f"loss: it is NaN or infinite in round {round} at client {client.number}. "
                    "Expected a finite number. Lower `learning_rate`, or look for such values in the data."
                )
            if callbacks and callbacks.stop_training:
                break
            with HOST_RANDOM if chunk.exhausted else contextlib.nullcontext():
                source, ends = source_after(feed, source, first, chunk)
            if ends:
                break
        feed.close_epoch()
        return step, logs

    def _ready(self, client: FederatedClient, feed: Feed, step: int, callbacks: UserCallbacks | None) -> int:
        """Wait until batches can be taken; return how many."""
        wanted = self._chunk_size.steps(None if feed.steps is None else feed.steps - step)
        wanted = 1 if callbacks and callbacks.want_batches else wanted
        while not client.should_stop():
            if (ready := feed.ready(wanted)) > 0:
                return ready if feed.steps is None else min(ready, feed.steps - step)
            if (text := feed.news()) is not None:
                logger.info("Client %d: %s", client.number, text)
        raise ClientStopped(f"Client {client.number} was asked to stop.")

"""Training for clients of a federation: a few epochs between two sets of weights.

One compiled model serves any number of clients, one after the other: whatever a client keeps from one round to the
next is put into its variables before, and taken out afterwards. So what a client trains depends on the weights that it
got, its data, its number, the round and what it keeps, and not on who was trained before.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from experiments_manager.federated.local.client import HOST_RANDOM, FederatedClient
from experiments_manager.federated.local.model_variables import InitialVariables, ModelVariables
from experiments_manager.federated.local.proximal import ProximalTerm
from experiments_manager.federated.local.shared_feed import SharedFeed
from experiments_manager.federated.local.shifted_schedule import shift_schedule
from experiments_manager.federated.local.task import LocalResult, LocalTask
from experiments_manager.settings import Settings
from experiments_manager.settings.options.federated import FederatedOptions
from experiments_manager.training.devices.devices import Devices
from experiments_manager.training.engine.chunks import ChunkSize, run_test_steps, source_after, train_chunk
from experiments_manager.training.engine.steps import CompiledLoop, CompiledLoops, XlaScope
from experiments_manager.training.engine.user_callbacks import UserCallbacks
from experiments_manager.training.errors import DataError, TrainingError
from experiments_manager.training.feeds.feed import Feed
from experiments_manager.training.setup.experiment import Experiment, InTurn, bare_experiment
from experiments_manager.training.setup.metrics import as_numbers

logger = logging.getLogger(__name__)


def _measured_by_clients(settings: Settings, names: Sequence[str]) -> Sequence[str]:
    return [f"clients/{name}" for name in names] if settings.federated.get("fraction_evaluate") else ()


FOR_CLIENTS = InTurn(SharedFeed, shift_schedule, _measured_by_clients)
"""One compiled model trains for clients in turn."""


class ClientStopped(BaseException):
    """A client was asked to stop; like `KeyboardInterrupt`, it is no error that anybody is to be told of."""


class LocalTrainer:
    """Trains a model for clients, one at a time. Not for several threads.

    Args:
        experiment: What is trained, built for clients.
        loops: Its compiled loops.
        proximal: The term of FedProx in its loss, if there is one.
        like: What another trainer of the same settings began with, whose layers have the names that the settings know.
    """

    def __init__(
        self,
        experiment: Experiment,
        loops: CompiledLoops,
        proximal: ProximalTerm | None = None,
        like: InitialVariables | None = None,
    ) -> None:
        self._experiment, self._loops, self._proximal = experiment, loops, proximal
        self._model, self._shared = experiment.model, experiment.train
        self._keeps_optimizer = FederatedOptions.of(experiment.settings.federated).keep_optimizer
        self._train_chunks, self._test_chunks = ChunkSize(), ChunkSize()
        self._variables = ModelVariables(experiment, like)
        self._evaluation: tuple[SharedFeed, CompiledLoop] | None = None

    @classmethod
    def make(
        cls,
        settings: Settings,
        devices: Devices,
        first: Feed,
        *,
        proximal: bool = False,
        like: InitialVariables | None = None,
    ) -> LocalTrainer:
        """Build and compile a model of its own.

        Args:
            settings: Checked settings.
            devices: From `prepared_devices`, whose scope must be open.
            first: Training data of some client, which says what batches look like.
            proximal: Whether the loss has the term of FedProx.
            like: What another trainer of the same settings in this process began with, if there is one.
        """
        experiment = bare_experiment(settings, devices, SharedFeed(first), in_turn=FOR_CLIENTS)
        term = ProximalTerm(experiment.model) if proximal else None
        xla = XlaScope.by_step(settings.jit_compile)
        loops = CompiledLoops.of(experiment, ignored=term.variables if term else (), xla=xla)
        return cls(experiment, loops, term, like)

    @property
    def beginning(self) -> InitialVariables:
        """What the model began with, for further trainers of the same settings."""
        return self._variables.beginning

    @property
    def not_trained(self) -> frozenset[str]:
        """The names of the weights that no gradient changes, such as the moving averages of batch normalisation."""
        return self._variables.not_trained

    def weights(self) -> dict[str, np.ndarray]:
        """Return the weights that clients share as they are now, trainable or not."""
        return self._variables.sent()

    def train(self, client: FederatedClient, weights: Mapping[str, np.ndarray], task: LocalTask) -> LocalResult:
        """Train a client's epochs of a round, fewer where a callback ends them or the data has ended.

        Args:
            client: The client. After an error it is as it was before.
            weights: To begin with, by name as in `weights`.
            task: What is to be trained.

        Raises:
            TrainingError: The weights are those of another model, or something is not finite.
            DataError: The client's data looks different from that of others, or there is none.
        """
        self._variables.check(weights)
        keeps = self._keeps_optimizer
        try:
            with HOST_RANDOM if client.reads_alone else contextlib.nullcontext():
                callbacks = client.prepare(self._model)
                feed = self._begin(client, weights, task)
                result = self._train_epochs(client, feed, task, callbacks)
            client.keep(
                callbacks,
                self._experiment.state.holds,
                others=self._variables.others() if keeps else (),
                layers=self._variables.layers(),
                rate_scale=task.rate_scale if keeps else 1.0,
            )
            if client.train.end_reason is not None:
                client.invalidate()  # more may have come of the stream until the next round
            return result
        except BaseException:
            client.invalidate()
            raise
        finally:
            self._model.stop_training = False

    def evaluate(self, client: FederatedClient, weights: Mapping[str, np.ndarray]) -> LocalResult:
        """Evaluate weights, and the layers that stay at the client, on its validation data.

        Raises:
            TrainingError: The weights are those of another model, or there is no validation data.
        """
        if client.validation is None:
            raise TrainingError(
                f'Client {client.number} has no validation data. Expected data for `dataset("validation")`, got None. '
                "Return it, or set fraction_evaluate to 0."
            )
        self._variables.check(weights)
        if self._evaluation is None:
            shared, xla = SharedFeed(client.validation), XlaScope.by_step(self._experiment.settings.jit_compile)
            loop = CompiledLoop.for_evaluation(self._experiment, shared, xla=xla)
            self._evaluation = shared, loop
        shared, loop = self._evaluation
        feed = shared.use(client.validation, client.number)
        layers = client.kept.layers if client.kept else {}
        self._variables.begin(weights, client=client.number, round=0, layers=layers)
        self._model.reset_metrics()
        logs = run_test_steps(loop, feed, 0, self._test_chunks)
        return LocalResult({}, shared.samples(), 0, logs)

    def put_back(self, weights: Mapping[str, np.ndarray], round: int, steps: int = 0) -> None:  # noqa: A002
        """Let the model have these weights, and all else be as it was before any training.

        Args:
            weights: Those of the global model.
            round: The round that they came of.
            steps: Steps that it has behind it, by which a schedule of the learning rate goes.
        """
        self._variables.begin(weights, client=-1, round=round)
        if self._experiment.schedule is not None:
            self._experiment.schedule.steps_before.assign(steps)

    def close(self) -> None:
        """Let go of what reads ahead."""
        self._shared.close()

    def _begin(self, client: FederatedClient, weights: Mapping[str, np.ndarray], task: LocalTask) -> Feed:
        """Let the model be the client's at the beginning of a round; return its data as the loop takes batches."""
        feed, kept = self._shared.use(client.train, client.number), client.kept
        layers = kept.layers if kept else {}
        others = kept.others if kept and self._keeps_optimizer else ()
        self._variables.begin(weights, client=client.number, round=task.round, layers=layers, others=others)
        self._set_rate(client, task)
        if self._experiment.class_weight is not None:
            self._experiment.class_weight.assign(client.class_weight)
        if self._proximal is not None:
            self._proximal.begin(task.proximal_mu)
        return feed

    def _set_rate(self, client: FederatedClient, task: LocalTask) -> None:
        """Let the learning rate be that of the round: a schedule's, or the client's own, scaled by the server."""
        keeps = self._keeps_optimizer
        if self._experiment.schedule is not None:
            self._experiment.schedule.steps_before.assign(0 if keeps else task.steps_before)
            return
        before = client.kept.rate_scale if keeps and client.kept else 1.0
        # Where the scale is that of before, the rate stays as a callback may have left it.
        if task.rate_scale != before and self._model.optimizer is not None:
            self._model.optimizer.learning_rate = self.beginning.rate * task.rate_scale

    def _train_epochs(
        self, client: FederatedClient, feed: Feed, task: LocalTask, callbacks: UserCallbacks | None
    ) -> LocalResult:
        steps, epochs, logs = 0, 0, {}
        if callbacks:
            callbacks.list.on_train_begin()
        for epoch in range((task.round - 1) * task.epochs, task.round * task.epochs):
            taken, logs = self._train_epoch(client, feed, epoch, task.round, callbacks)
            steps, epochs = steps + taken, epochs + 1
            if callbacks and callbacks.stop_training:
                break
            if feed.end_reason is not None:
                logger.info("Client %d: %s.", client.number, feed.end_reason)
                break
        if callbacks:
            callbacks.list.on_train_end(logs)
        trained = self.weights()
        everything = [*trained.values(), *self._variables.layers().values()]
        if not all(np.isfinite(value).all() for value in everything if value.dtype.kind == "f"):
            raise TrainingError(
                f"The weights are NaN or infinite after round {task.round} at client {client.number}. Expected finite "
                "numbers. Lower `learning_rate`, or set `gradient_clip_norm`."
            )
        return LocalResult(trained, self._shared.samples(epochs), steps, logs)

    def _train_epoch(
        self,
        client: FederatedClient,
        feed: Feed,
        epoch: int,
        round: int,  # noqa: A002
        callbacks: UserCallbacks | None,
    ) -> tuple[int, dict[str, float]]:
        """Train an epoch chunk by chunk, as a run does; return how many steps it had, and its loss and metrics."""
        self._model.reset_metrics()
        if self._loops.prequential is not None:
            self._loops.prequential.reset()
        if callbacks:
            callbacks.list.on_epoch_begin(epoch)
        with HOST_RANDOM:
            source = feed.open(epoch)
        step, ends = 0, False
        tensors: Mapping[str, tf.Tensor] = {}
        while not ends and (feed.steps is None or step < feed.steps):
            first, last = step, step + self._wait_for_batches(client, feed, step, callbacks)
            chunk = train_chunk(self._loops, feed, callbacks, self._train_chunks, source, first, last)
            step, tensors = chunk.done, chunk.logs if chunk.done > first else tensors
            if not chunk.finite:
                raise TrainingError(
                    f"loss: it is NaN or infinite in round {round} at client {client.number}. "
                    "Expected a finite number. Lower `learning_rate`, or look for such values in the data."
                )
            if callbacks and callbacks.stop_training:
                break
            with HOST_RANDOM if chunk.exhausted else contextlib.nullcontext():
                source, ends = source_after(feed, source, first, chunk)
        feed.close_epoch()
        if not step:
            why = feed.end_reason or f'Look at what `dataset("{feed.split}")` returns'
            raise DataError(f"dataset: client {client.number} has no batch to train on. Expected at least one. {why}.")
        logs = as_numbers(tensors)
        if callbacks:
            callbacks.list.on_epoch_end(epoch, dict(logs))
        return step, logs

    def _wait_for_batches(self, client: FederatedClient, feed: Feed, step: int, callbacks: UserCallbacks | None) -> int:
        """Wait until batches can be taken; return how many.

        Raises:
            ClientStopped: The client was asked to stop.
        """
        wanted = self._train_chunks.steps(None if feed.steps is None else feed.steps - step)
        wanted = 1 if callbacks and callbacks.want_batches else wanted
        while not client.should_stop():
            if (ready := feed.ready(wanted)) > 0:
                return ready if feed.steps is None else min(ready, feed.steps - step)
            if (text := feed.news()) is not None:
                logger.info("Client %d: %s", client.number, text)
        raise ClientStopped(f"Client {client.number} was asked to stop.")

"""Training for clients of a federation: a few epochs between two sets of weights.

One compiled model serves any number of clients, one after the other: whatever a client keeps from one round to the
next is put into its variables before, and taken out afterwards. So what a client trains depends on the weights that it
got, its data, its number, the round and what it keeps, and not on who was trained before.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from experiments_manager.federated.local.client import HOST_RANDOM, FederatedClient
from experiments_manager.federated.local.epochs import LocalEpochs
from experiments_manager.federated.local.kept import Kept
from experiments_manager.federated.local.model_variables import InitialVariables, ModelVariables
from experiments_manager.federated.local.proximal import ProximalTerm
from experiments_manager.federated.local.shared_feed import SharedFeed
from experiments_manager.federated.local.shifted_schedule import shift_schedule
from experiments_manager.federated.local.task import LocalTask
from experiments_manager.settings import Settings
from experiments_manager.training.devices.devices import Devices
from experiments_manager.training.engine.chunks import ChunkSize
from experiments_manager.training.engine.steps import CompiledLoop, CompiledLoops
from experiments_manager.training.engine.user_callbacks import UserCallbacks
from experiments_manager.training.engine.validation import run_test_steps
from experiments_manager.training.errors import TrainingError
from experiments_manager.training.feeds.feed import Feed
from experiments_manager.training.setup.experiment import Experiment, InTurn, bare_experiment


def _measured_by_clients(settings: Settings, names: Sequence[str]) -> Sequence[str]:
    return [f"clients/{name}" for name in names] if settings.federated.get("fraction_evaluate") else ()


FOR_CLIENTS = InTurn(SharedFeed, shift_schedule, _measured_by_clients)
"""One compiled model trains for clients in turn."""


@dataclasses.dataclass(frozen=True)
class LocalResult:
    """What came of local training, or of an evaluation.

    Attributes:
        weights: Of the model by name, without those that stay at the client; empty after an evaluation.
        samples: How many it trained on, or was evaluated on, each counted once.
        steps: How many steps it took.
        logs: Loss and metrics.
    """

    weights: dict[str, np.ndarray]
    samples: int
    steps: int
    logs: dict[str, float]


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
        self._experiment, self._proximal = experiment, proximal
        self._model, self._shared = experiment.model, experiment.train
        self._epochs = LocalEpochs(experiment.model, loops)
        self._chunk_size = ChunkSize()
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
        loops = CompiledLoops.of(experiment, ignored=term.variables if term else ())
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

    def train(
        self, client: FederatedClient, weights: Mapping[str, np.ndarray], task: LocalTask, *, keep: bool = False
    ) -> LocalResult:
        """Train a client's epochs of a round.

        Args:
            client: The client. After an error it is as it was before.
            weights: To begin with, by name as in `weights`.
            task: What is to be trained.
            keep: Whether the client goes on with the optimizer's variables of its last round, and keeps them.

        Raises:
            TrainingError: The weights are those of another model, or something is not finite.
            DataError: The client's data looks different from that of others.
        """
        self._variables.check(weights)
        try:
            with HOST_RANDOM if client.reads_alone else contextlib.nullcontext():
                callbacks = client.prepare(self._model)
                result = self._train(client, weights, task, callbacks, keep=keep)
            client.keep(self._what_is_kept(client, callbacks, task, keep=keep))
            if client.train.end_reason is not None:
                client.spoil()  # more may have come of the stream until the next round
            return result
        except BaseException:
            client.spoil()
            raise
        finally:
            self._model.stop_training = False

    def _train(
        self,
        client: FederatedClient,
        weights: Mapping[str, np.ndarray],
        task: LocalTask,
        callbacks: UserCallbacks | None,
        *,
        keep: bool,
    ) -> LocalResult:
        feed = self._shared.use(client.train, client.number)
        kept = client.kept or Kept()
        others = kept.others if keep else ()
        self._variables.begin(weights, client=client.number, round=task.round, layers=kept.layers, others=others)
        self._set_rate(client, task, keep=keep)
        if self._experiment.class_weight is not None:
            self._experiment.class_weight.assign(client.class_weight)
        if self._proximal is not None:
            self._proximal.begin(task.proximal_mu)
        done = self._epochs.train(client, feed, task, callbacks)
        trained = self.weights()
        everything = [*trained.values(), *self._variables.layers().values()]
        if not all(np.isfinite(value).all() for value in everything if value.dtype.kind == "f"):
            raise TrainingError(
                f"The weights are NaN or infinite after round {task.round} at client {client.number}. Expected finite "
                "numbers. Lower `learning_rate`, or set `gradient_clip_norm`."
            )
        return LocalResult(trained, self._shared.samples(done.epochs), done.steps, done.logs)

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
            shared, jit_compile = SharedFeed(client.validation), self._experiment.settings.jit_compile
            loop = CompiledLoop.for_evaluation(self._experiment, shared, jit_compile=jit_compile)
            self._evaluation = shared, loop
        shared, loop = self._evaluation
        feed = shared.use(client.validation, client.number)
        layers = client.kept.layers if client.kept else {}
        self._variables.begin(weights, client=client.number, round=0, layers=layers)
        self._model.reset_metrics()
        logs = run_test_steps(loop, feed, 0, self._chunk_size)
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

    def _set_rate(self, client: FederatedClient, task: LocalTask, *, keep: bool) -> None:
        """Let the learning rate be that of the round: a schedule's, or the client's own, scaled by the server."""
        if self._experiment.schedule is not None:
            self._experiment.schedule.steps_before.assign(0 if keep else task.steps_before)
            return
        before = client.kept.rate_scale if keep and client.kept else 1.0
        # Where the scale is that of before, the rate stays as a callback may have left it.
        if task.rate_scale != before and self._model.optimizer is not None:
            self._model.optimizer.learning_rate = self.beginning.rate * task.rate_scale

    def _what_is_kept(
        self, client: FederatedClient, callbacks: UserCallbacks | None, task: LocalTask, *, keep: bool
    ) -> Kept:
        return client.what_is_kept(
            callbacks,
            self._experiment.state.holds,
            others=self._variables.others() if keep else (),
            layers=self._variables.layers(),
            rate_scale=task.rate_scale if keep else 1.0,
        )

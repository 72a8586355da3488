"""Training for clients of a federation: a few epochs between two sets of weights.

One compiled model serves any number of clients, one after the other: whatever a client keeps from one round to the
next is put into its variables before, and taken out afterwards. So what a client trains depends on the weights that it
got, its data, its number and the round alone, and not on who was trained before.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from experiments_manager.compat.keras import seed_states
from experiments_manager.settings import Settings
from experiments_manager.training.engine.chunk_size import ChunkSize
from experiments_manager.training.engine.steps import ChunkResult, CompiledLoops, as_numbers
from experiments_manager.training.engine.validation import run_test_steps
from experiments_manager.training.errors import DataError, TrainingError
from experiments_manager.training.feeds.array_feed import ArrayFeed
from experiments_manager.training.feeds.feed import Feed
from experiments_manager.training.local.proximal import ProximalTerm
from experiments_manager.training.local.shared_arrays import SharedArrays, shared
from experiments_manager.training.local.task import LocalTask
from experiments_manager.training.setup.devices import Devices
from experiments_manager.training.setup.experiment import Experiment, experiment_on
from experiments_manager.training.setup.seeds import derive


@dataclasses.dataclass(frozen=True)
class LocalResult:
    """What came of local training, or of an evaluation.

    Attributes:
        weights: Of the model by name; empty after an evaluation.
        samples: How many it trained on, or was evaluated on, each counted once.
        steps: How many steps it took.
        logs: Loss and metrics.
    """

    weights: dict[str, np.ndarray]
    samples: int
    steps: int
    logs: dict[str, float]


@dataclasses.dataclass
class Client:
    """A client of a federation.

    Attributes:
        number: Its number.
        train: Its training data.
        validation: Its validation data, or `None`.
        kept: Variables of the optimizer and others, as the last round left them; `None` before the first.
    """

    number: int
    train: Feed
    validation: Feed | None = None
    kept: list[np.ndarray] | None = None


class LocalTrainer:
    """Trains a model for clients, one at a time. Not for several threads.

    Args:
        experiment: What is trained. Where its training data is `SharedArrays`, it serves any number of clients.
        loops: Its compiled loops.
        proximal: The term of FedProx in its loss, if there is one.
    """

    def __init__(self, experiment: Experiment, loops: CompiledLoops, proximal: ProximalTerm | None = None) -> None:
        self._loops, self._proximal = loops, proximal
        self._seed, self._chunk_size = experiment.settings.random_seed, ChunkSize()
        self._model, self._train, self._validation = experiment.model, experiment.train, experiment.validation
        # Numbers and not paths: Keras counts layers of the same kind over all models of a process.
        self._weights = {f"{number:04d}/{w.name}": w.value for number, w in enumerate(self._model.weights)}
        self._seeds = [variable.value for variable in seed_states(self._model)]
        known = {id(variable) for variable in [*self._weights.values(), *self._seeds]}
        averages = experiment.state.averages
        self._averages = list(zip(averages.averages, averages.weights, strict=True)) if averages else []
        known |= {id(average) for average, _ in self._averages}
        self._others = [v for v in experiment.state.variables.values() if id(v) not in known]
        self._fresh = [variable.numpy() for variable in self._others]
        self._begin = tf.function(self._assign, autograph=False)

    @classmethod
    def make(cls, settings: Settings, devices: Devices, first: Client, *, proximal: bool = False) -> LocalTrainer:
        """Build and compile a model of its own.

        Args:
            settings: Checked settings.
            devices: From `prepared_devices`, whose scope must be open.
            first: Some client, whose data says what batches look like.
            proximal: Whether the loss has the term of FedProx.
        """
        train, validation = shared(first.train), shared(first.validation)
        experiment = experiment_on(settings, devices, train, validation, with_export=False)
        term = ProximalTerm(experiment.model) if proximal else None
        loops = CompiledLoops.of(experiment, ignored=term.variables if term else ())
        return cls(experiment, loops, term)

    @property
    def not_trained(self) -> frozenset[str]:
        """The names of the weights that no gradient changes, such as the moving averages of batch normalisation."""
        trained = {id(variable.value) for variable in self._model.trainable_variables}
        return frozenset(name for name, variable in self._weights.items() if id(variable) not in trained)

    def weights(self) -> dict[str, np.ndarray]:
        """Return the weights of the model as they are now, trainable or not."""
        return {name: variable.numpy() for name, variable in self._weights.items()}

    def train(
        self,
        client: Client,
        weights: Mapping[str, np.ndarray],
        task: LocalTask,
        *,
        keep: bool = False,
    ) -> LocalResult:
        """Train a client's epochs of a round.

        Args:
            client: The client.
            weights: To begin with, by name as in `weights`.
            task: What is to be trained.
            keep: Whether the client goes on with the optimizer's variables of its last round, and keeps them.

        Raises:
            TrainingError: The weights are those of another model, or the loss is not finite.
            DataError: The client's data looks different from that of others.
        """
        _use(self._train, client.train, client)
        self._check(weights)
        others = client.kept if keep and client.kept is not None else self._fresh
        self._begin([weights[name] for name in self._weights], others, self._seed_values(client.number, task.round))
        if task.rate_scale != 1.0:
            self._model.optimizer.learning_rate = self._model.optimizer.learning_rate * task.rate_scale
        if self._proximal is not None:
            self._proximal.begin(task.proximal_mu)
        steps, done = None, 0
        for epoch in range(task.epochs):
            steps = self._train_epoch((task.round - 1) * task.epochs + epoch, client, task.round)
            done += steps.done
        if keep:
            client.kept = [variable.numpy() for variable in self._others]
        logs = as_numbers(steps.logs) if steps is not None else {}
        return LocalResult(self.weights(), _samples(client.train), done, logs)

    def evaluate(self, client: Client, weights: Mapping[str, np.ndarray]) -> LocalResult:
        """Evaluate weights on the validation data of a client.

        Raises:
            TrainingError: The weights are those of another model, or there is no validation data.
        """
        if client.validation is None or self._validation is None:
            raise TrainingError(
                f'Client {client.number} has no validation data. Expected data for `dataset("validation")`, got None. '
                "Return it, or set fraction_evaluate to 0."
            )
        _use(self._validation, client.validation, client)
        self._check(weights)
        self._begin([weights[name] for name in self._weights], self._fresh, self._seed_values(client.number, 0))
        self._model.reset_metrics()
        logs = run_test_steps(self._loops.validation, self._validation, 0, self._chunk_size)
        return LocalResult({}, _samples(client.validation), 0, logs)

    def put_back(self, weights: Mapping[str, np.ndarray], round: int) -> None:
        """Let the model have these weights, and all else be as it was before any training."""
        self._begin([weights[name] for name in self._weights], self._fresh, self._seed_values(-1, round))

    def close(self) -> None:
        """Let go of what reads ahead."""
        self._train.close()

    def _check(self, weights: Mapping[str, np.ndarray]) -> None:
        ours = {name: tuple(variable.shape) for name, variable in self._weights.items()}
        theirs = {name: tuple(value.shape) for name, value in weights.items()}
        if ours != theirs:
            name = next(name for name in [*ours, *theirs] if ours.get(name) != theirs.get(name))
            raise TrainingError(
                f"The weights are those of another model: {name}. Expected shape {ours.get(name, 'none')}, got "
                f"{theirs.get(name, 'none')}. Let server and clients use the same `model` and hparams."
            )

    def _assign(self, weights: Sequence[tf.Tensor], others: Sequence[tf.Tensor], seeds: Sequence[tf.Tensor]) -> None:
        variables = [*self._weights.values(), *self._others, *self._seeds]
        for variable, value in zip(variables, [*weights, *others, *seeds], strict=True):
            variable.assign(tf.cast(value, variable.dtype))
        for average, weight in self._averages:
            average.assign(weight)

    def _seed_values(self, client: int, round: int) -> list[np.ndarray]:
        """Return the states of the seed generators, which follow from seed, client and round."""
        return [
            np.array([derive(self._seed, "client", client, round, number, part) for part in range(state.shape[0])])
            for number, state in enumerate(self._seeds)
        ]

    def _train_epoch(self, epoch: int, client: Client, round: int) -> ChunkResult:
        self._model.reset_metrics()
        source, step = self._train.open(epoch), 0
        while True:
            last = step + self._chunk_size.steps(None if self._train.steps is None else self._train.steps - step)
            with self._chunk_size.measured(last - step):
                steps = self._loops.train(self._train.current(source), step, last)
            step = steps.done
            self._train.took(last - step)
            if not steps.finite:
                raise TrainingError(
                    f"loss: it is NaN or infinite in round {round} at client {client.number}. "
                    "Expected a finite number. Lower `learning_rate`, or look for such values in the data."
                )
            if steps.exhausted or step == self._train.steps:
                self._train.close_epoch()
                return steps


def _use(place: Feed, feed: Feed, client: Client) -> None:
    """Let a client's data be what is trained on."""
    if isinstance(place, SharedArrays) and isinstance(feed, ArrayFeed):
        place.use(feed)
    elif feed is not place:
        raise DataError(
            f"dataset: the {feed.split} data of client {client.number} cannot be exchanged for that of another client. "
            f"Expected arrays, got {type(feed).__name__}. Return arrays, or train clients in processes of their own."
        )


def _samples(feed: Feed) -> int:
    if isinstance(feed, ArrayFeed):
        return min(feed.samples, feed.steps * feed.batch_size)
    return sum(int(tf.shape(tf.nest.flatten(batch)[0])[0]) for batch in feed.as_dataset().take(feed.steps or -1))

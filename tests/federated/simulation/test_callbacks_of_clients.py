"""Callbacks of the user's at clients: their own, told of each round's epochs, and kept over a resume."""

import collections

import pytest

from experiments_manager import api
from experiments_manager.runs import open_run
from tests.helpers.simulated_federations import same

pytest.importorskip("flwr")
pytestmark = pytest.mark.slow

TELLING = """
class Telling(keras.callbacks.Callback):
    def __init__(self, partition):
        super().__init__()
        self.partition, self.rounds = partition, 0

    def tell(self, what):
        print(f"client {self.partition}: {what}")

    def on_train_begin(self, logs=None):
        self.rounds += 1
        self.tell(f"training {self.rounds}")

    def on_epoch_begin(self, epoch, logs=None):
        self.tell(f"epoch {epoch}")

    def on_train_batch_end(self, batch, logs=None):
        if batch == 0:
            self.tell(f"batch of {len(self.model.weights)} weights, loss is a number: {logs['loss'] > 0}")

    def on_epoch_end(self, epoch, logs=None):
        self.tell(f"epoch {epoch} ended")

    def on_train_end(self, logs=None):
        self.tell("end")


def callbacks(partition):
    if partition is not None:
        print(f"callbacks of client {partition}")
    return [] if partition is None else [Telling(partition)]
"""
STOPPING = """
class Stopping(keras.callbacks.Callback):
    def __init__(self, partition):
        super().__init__()
        self.partition = partition

    def on_epoch_end(self, epoch, logs=None):
        print(f"client {self.partition}: {epoch}")
        self.model.stop_training = self.partition == 0


def callbacks(partition):
    return [Stopping(partition)] if partition is not None else []
"""
RATE_BY_ROUNDS = """
class Lowering(keras.callbacks.Callback):
    rounds = 0

    def on_train_begin(self, logs=None):
        self.rounds += 1
        self.model.optimizer.learning_rate = 0.01 / self.rounds


def callbacks(partition):
    return [Lowering()] if partition is not None else []
"""
UNKEEPABLE = """
import threading


class Holding(keras.callbacks.Callback):
    def on_train_begin(self, logs=None):
        self.source = (number for number in range(3))


def callbacks(partition):
    return [Holding()] if partition == 1 else []
"""


def test_callbacks_are_told_of_the_epochs_of_each_round(federation, several_models):
    federation.write(TELLING, federated='{"rounds": 2, "clients": 2, "local_epochs": 2}')
    told = collections.defaultdict(list)
    for line in federation.printed(lambda: federation.simulate(workers=2)):
        if line.startswith("client "):
            told[line[7]].append(line[10:])
        else:
            told[line].append(line)
    batch = "batch of 4 weights, loss is a number: True"
    for client in "01":
        assert len(told[f"callbacks of client {client}"]) == 1
        assert told[client] == [
            *("training 1", "epoch 0", batch, "epoch 0 ended", "epoch 1", batch, "epoch 1 ended", "end"),
            *("training 2", "epoch 2", batch, "epoch 2 ended", "epoch 3", batch, "epoch 3 ended", "end"),
        ]


def test_a_callback_that_stops_training_ends_the_round_of_its_client_alone(federation):
    federation.write(STOPPING, federated='{"rounds": 2, "clients": 2, "local_epochs": 3}')
    told = federation.printed(federation.simulate)
    assert [line for line in told if "client 0" in line] == ["client 0: 0", "client 0: 3"]
    assert [line for line in told if "client 1" in line] == [f"client 1: {epoch}" for epoch in range(6)]


def test_what_callbacks_remember_is_there_after_a_resume(federation):
    federation.write(RATE_BY_ROUNDS, federated='{"rounds": 4, "clients": 2}')
    whole = federation.simulate("whole")
    stopped = federation.simulate("stopped", stop_after=2)
    assert same(whole, api.resume(stopped.run_dir, quiet=True))
    assert open_run(stopped.run_dir).manifest["exactness"]["exact"]


def test_a_callback_that_cannot_be_kept_makes_the_run_not_exact(federation):
    federation.write(UNKEEPABLE)
    result = federation.simulate()
    exactness = open_run(result.run_dir).manifest["exactness"]
    assert not exactness["exact"]
    assert [reason for reason in exactness["reasons"] if "client 1: callback attribute Holding.source" in reason]
    assert [text for text in federation.watching.said if "Holding.source" in text]

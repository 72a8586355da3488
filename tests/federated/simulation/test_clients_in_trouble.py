"""Clients that fail, hang or return nothing: they are left out and named, and the others go on."""

import threading

import numpy as np
import pytest

from experiments_manager import api
from tests.helpers.simulated_federations import arrays, same

pytest.importorskip("flwr")
pytestmark = pytest.mark.slow

FAILING_ONCE = """
from pathlib import Path


class Failing(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        marker = Path(__file__).with_name("failed")
        if epoch == 2 and MARKED and not marker.exists():
            marker.touch()
            raise OSError("the disk is full")


def callbacks(partition):
    return [Failing()] if partition == 1 else []
"""
HANGING = """
class Hanging(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            import builtins
            builtins.hanging_client.wait(60)


def callbacks(partition):
    return [Hanging()] if partition == 0 else []
"""
LEAVING = """
class Leaving(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        raise SystemExit(3)


def callbacks(partition):
    return [Leaving()] if partition == 1 else []
"""
WITHOUT_DATA = """
def dataset(split, partition=None):
    return None if partition == 1 and split == "train" else arrays(split, partition)
"""
INTERRUPTING = """
import os
import signal
from pathlib import Path


class Interrupting(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if self.epoch in (0, 2) and batch == 2 and WANTED and not (Path(FOLDER) / f"{self.epoch}").exists():
            (Path(FOLDER) / f"{self.epoch}").touch()
            os.kill(os.getpid(), signal.SIGTERM)

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch


def callbacks(partition):
    return [Interrupting()] if partition == 1 else []
"""
PIPELINE = """
def dataset(split, partition=None):
    return tf.data.Dataset.from_tensor_slices(arrays(split, partition)).shuffle(18).batch(batch_size)
"""


@pytest.fixture
def hanging(monkeypatch):
    """The event for which a client waits; it is set at the end."""
    import builtins

    event = threading.Event()
    monkeypatch.setattr(builtins, "hanging_client", event, raising=False)
    yield event
    event.set()


def test_a_round_that_is_tried_again_begins_with_what_clients_kept(federation):
    settings = {
        "federated": '{"rounds": 4, "clients": 2, "min_clients": 2, "keep_optimizer": True}',
        "federated_local_layers": '["head"]',
        "optimizer": '"adam"',
        "steps_per_epoch": "3",
    }
    federation.write(PIPELINE + FAILING_ONCE.replace("MARKED", "False"), **settings)
    whole = federation.simulate("whole")
    federation.write(PIPELINE + FAILING_ONCE.replace("MARKED", "True"), **settings)
    again = federation.simulate("again")
    assert [text for text in federation.watching.said if "the disk is full" in text and "tried again (2 of 3)" in text]
    assert same(whole, again)
    assert same(whole, again, "clients")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_federation_that_is_stopped_within_a_round_begins_the_round_anew(federation, several_models, workers):
    given = f"FOLDER = {str(federation.folder)!r}\nWANTED = "
    settings = {
        "federated": '{"rounds": 4, "clients": 2, "keep_optimizer": True}',
        "optimizer": '"adam"',
        "ema_momentum": "0.9",
    }
    federation.write(given + "False" + INTERRUPTING, **settings)
    whole = federation.simulate("whole")
    federation.write(given + "True" + INTERRUPTING, **settings)
    result, rounds = federation.simulate("stopped", workers=workers), []
    while result.state == "interrupted":
        rounds.append(result.epochs)
        result = api.resume(result.run_dir, quiet=True)
    assert rounds == [0, 2]
    assert same(whole, result)
    assert whole.metrics == result.metrics


@pytest.mark.parametrize("workers", [1, 2])
def test_a_client_that_hangs_is_left_out_and_the_others_go_on(federation, hanging, workers):
    federated = '{"rounds": %s, "clients": 3, "round_timeout": 2.0, "min_clients": 2, "keep_optimizer": True}'
    first = federation.write(HANGING, federated=federated.replace("%s", "1")).simulate("first")
    federation.write(HANGING, federated=federated.replace("%s", "4"))
    result = federation.simulate(workers=workers)
    assert (result.state, result.epochs) == ("finished", 4)
    said = [text for text in federation.watching.said if "client 0" in text]
    assert said
    assert "did not answer within 2 s" in said[0]
    before, kept = arrays(first, "clients"), arrays(result, "clients")
    of_the_first_round = [name for name in before if np.array_equal(before[name], kept[name])]
    assert [name for name in before if name.startswith("0/")] == [
        name for name in of_the_first_round if name.startswith("0/")
    ]
    assert len(of_the_first_round) < len(before)


@pytest.mark.parametrize(
    ("added", "why"), [(LEAVING, "SystemExit: 3"), (WITHOUT_DATA, "client 1 has no training data")]
)
def test_a_client_that_leaves_or_has_nothing_is_left_out_and_named(federation, added, why):
    result = federation.write(added, federated='{"rounds": 2, "clients": 3}').simulate()
    assert (result.state, result.epochs) == ("finished", 2)
    assert len([text for text in federation.watching.said if "client 1 was left out" in text and why in text]) == 2


def test_nothing_is_said_of_validation_data_that_clients_do_not_need(federation, several_models, caplog):
    federation.write(federated='{"rounds": 3, "clients": 2}').simulate(workers=2)
    assert "There is no validation data" not in caplog.text

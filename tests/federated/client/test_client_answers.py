"""Messages of the server are answered by local training, or by one sentence that says why not."""

import ml_dtypes
import numpy as np
import pytest

pytest.importorskip("flwr")

from flwr.app import ConfigRecord, Message, RecordDict

from experiments_manager.compat.flower import identify_process
from experiments_manager.federated.errors import FederationError
from experiments_manager.federated.local.task import LocalTask
from experiments_manager.federated.message_records import ARRAY_DTYPES, to_arrays, to_record, widened_dtypes
from tests.helpers.line_clients import Result, bits, reply_of

WEIGHTS = {
    "single": np.array([[1.5, -2.0]], "float32"),
    "half": np.array([1.5], "float16"),
    "brain": np.array([1.0, 3.140625], ml_dtypes.bfloat16),
    "flag": np.array(True),
    "count": np.array(2**53 - 1, "int64"),
    "seed": np.array([1, 2**32 - 1], "uint32"),
    "double": np.array(0.1),
    "none": np.zeros((0, 3), "float32"),
}


class Echo:
    """Gives back what it was sent, and notes what it was asked."""

    def train(self, client, weights, task):
        self.weights, self.asked = weights, task
        return Result(dict(reversed(weights.items())), 5, {"loss": np.float32(0.5)})

    def evaluate(self, client, weights):
        self.weights = weights
        return Result({}, 3, {"loss": 0.25})


class Failing:
    def __init__(self, error):
        self.error = error

    def train(self, client, weights, task):
        raise self.error


def message(kind="train", weights=WEIGHTS, **config):
    identify_process()
    dtypes = {ARRAY_DTYPES: widened_dtypes(weights)}
    return Message(RecordDict({"arrays": to_record(weights), "config": ConfigRecord({**config, **dtypes})}), 1003, kind)


def test_the_trainer_gets_the_weights_in_their_own_types():
    trainer = Echo()
    reply_of(message(), trainer, 3)
    assert bits(trainer.weights) == bits(WEIGHTS)
    assert list(trainer.weights) == list(WEIGHTS)


def test_the_reply_holds_trained_weights_in_the_order_of_those_sent():
    sent = message()
    reply = reply_of(sent, Echo(), 3)
    assert list(reply.content["arrays"]) == list(WEIGHTS)
    assert bits(to_arrays(reply.content["arrays"], widened_dtypes(WEIGHTS))) == bits(WEIGHTS)
    assert dict(reply.content["metrics"]) == {"num-examples": 5.0, "num-steps": 1.0, "loss": 0.5}
    assert reply.content["client"]["proc-id"] == 3
    assert reply.metadata.src_node_id == sent.metadata.dst_node_id


def test_types_that_flower_does_not_know_travel_as_some_that_it_can_average():
    reply = reply_of(message(), Echo(), 3)
    assert reply.content["arrays"]["brain"].numpy().dtype == np.float32


def test_what_the_strategy_asks_for_reaches_the_trainer():
    trainer = Echo()
    reply_of(message(**{"server-round": 4, "local-epochs": 2, "proximal-mu": 0.5}), trainer, 0)
    assert trainer.asked == LocalTask(round=4, epochs=2, proximal_mu=0.5)
    reply_of(message(**{"server-round": 5}), trainer, 0)
    assert trainer.asked == LocalTask(round=5)


def test_an_evaluation_is_answered_by_metrics_alone():
    reply = reply_of(message("evaluate"), Echo(), 1)
    assert sorted(reply.content) == ["client", "metrics"]
    assert dict(reply.content["metrics"]) == {"num-examples": 3.0, "loss": 0.25}


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (FederationError("The data are gone. Expected a file."), "The data are gone. Expected a file."),
        (ValueError("bad shape\nand much more"), "ValueError: bad shape."),
        (KeyError("w"), "KeyError: 'w'."),
    ],
)
def test_an_error_of_the_trainer_is_told_in_one_sentence(error, sentence):
    reply = reply_of(message(), Failing(error), 0)
    assert reply.has_error()
    assert reply.error.reason == sentence


def test_a_message_of_another_kind_is_refused():
    assert "Expected train or evaluate" in reply_of(message("query"), Echo(), 0).error.reason


def test_a_message_without_weights_is_refused():
    identify_process()
    reply = reply_of(Message(RecordDict(), 1000, "train"), Echo(), 0)
    assert "Expected a record named arrays, got nothing" in reply.error.reason


def test_a_result_that_holds_no_numbers_is_an_error_that_names_the_variable():
    class Words(Echo):
        def train(self, client, weights, task):
            return Result({**weights, "flag": np.array(["yes"])}, 5, {})

    assert reply_of(message(), Words(), 0).error.reason.startswith("flag cannot be aggregated.")

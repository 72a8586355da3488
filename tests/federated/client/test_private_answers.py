"""What a client sends is clipped, and noise is added, before it leaves."""

import numpy as np
import pytest
from flwr.app import ConfigRecord, RecordDict

from experiments_manager.federated.array_records import to_record
from experiments_manager.federated.client.messages import answer_content
from experiments_manager.federated.client.private_answers import PrivateAnswers
from experiments_manager.federated.errors import FederationError
from experiments_manager.federated.strategies.privacy import client_mods
from tests.helpers.line_clients import Result

SENT = {"kernel": np.ones(4, "float32"), "steps": np.int64(4)}
LOCAL = {"side": "local", "clipping_norm": 0.5, "sensitivity": 1.0, "epsilon": 1.0, "delta": 1e-5}
CLIPPED = {"side": "client", "noise_multiplier": 1.0, "clipping_norm": 0.5}


class Trainer:
    """Moves each weight by as much, and evaluates nothing."""

    def __init__(self, moved):
        self.moved = moved

    def train(self, weights, task):
        return Result({name: np.asarray(value + self.moved, value.dtype) for name, value in weights.items()}, 5, {})


def answered(privacy, seed=None, *, moved=10, proc_id=3, number=1):
    content = RecordDict(
        {"arrays": to_record(SENT), "config": ConfigRecord({"server-round": number, "clipping_norm": 0.5})}
    )
    private = PrivateAnswers(client_mods({"differential_privacy": privacy}), seed)
    return answer_content("train", content, Trainer(moved), proc_id, private)


def kernel(content):
    return content["arrays"]["kernel"].numpy()


def test_an_update_is_clipped_and_all_else_is_as_it_was():
    content = answered(CLIPPED)
    assert np.linalg.norm(kernel(content) - 1) == pytest.approx(0.5, rel=1e-5)
    assert list(content["arrays"]) == list(SENT)
    assert content["arrays"]["steps"].numpy() == 14
    assert content["client"]["proc-id"] == 3
    assert content["metrics"]["num-examples"] == 5


def test_noise_of_a_simulation_follows_from_seed_round_and_client():
    same = [kernel(answered(LOCAL, 7)).tolist() for _ in range(2)]
    others = [answered(LOCAL, 8), answered(LOCAL, 7, proc_id=4), answered(LOCAL, 7, number=2)]
    assert same[0] == same[1]
    assert all(kernel(other).tolist() != same[0] for other in others)


def test_noise_of_a_client_on_its_own_cannot_be_computed_from_the_settings():
    results = []
    for _ in range(2):
        np.random.seed(0)
        results.append(kernel(answered(LOCAL)).tolist())
    assert results[0] != results[1]


def test_an_update_that_cannot_be_clipped_is_told():
    with pytest.raises(FederationError, match="changed no variable"):
        answered(CLIPPED, moved=0)

"""What a client sends is clipped, and noise is added, before it leaves."""

import flwr.serverapp.strategy as flower
import numpy as np
import pytest
from flwr.app import ConfigRecord, MetricRecord, RecordDict

from experiments_manager.federated.client.private_answers import PrivateAnswers, mod_for, mod_of
from experiments_manager.federated.errors import FederationError
from experiments_manager.federated.message_records import to_record
from experiments_manager.federated.strategies.catalogue import checked_strategy
from tests.helpers.federations import FakeGrid, arrays_of, strategy_of

SENT = {"kernel": np.ones(4, "float32"), "steps": np.int64(4)}
LOCAL = {"side": "local", "clipping_norm": 0.5, "sensitivity": 1.0, "epsilon": 1.0, "delta": 1e-5}
CLIPPED = {"side": "client", "noise_multiplier": 1.0, "clipping_norm": 0.5}


def answered(privacy, seed=None, *, moved=10, proc_id=3, number=1, mod=None):
    """What a client may send that moved each weight by as much."""
    sent = RecordDict(
        {"arrays": to_record(SENT), "config": ConfigRecord({"server-round": number, "clipping_norm": 0.5})}
    )
    trained = {name: np.asarray(value + moved, value.dtype) for name, value in SENT.items()}
    records = {"arrays": to_record(trained), "metrics": MetricRecord({"num-examples": 5.0})}
    return PrivateAnswers(mod or mod_of(privacy), seed).apply(sent, RecordDict(records), proc_id)


def kernel(content):
    return content["arrays"]["kernel"].numpy()


def test_an_update_is_clipped_and_all_else_is_as_it_was():
    content = answered(CLIPPED)
    assert np.linalg.norm(kernel(content) - 1) == pytest.approx(0.5, rel=1e-5)
    assert list(content["arrays"]) == list(SENT)
    assert content["arrays"]["steps"].numpy() == 14
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


@pytest.mark.parametrize("clipping", ["fixed", "adaptive"])
def test_the_norm_is_the_one_that_the_server_sends(clipping):
    privacy = {"side": "client", "clipping": clipping, "noise_multiplier": 0.0}
    privacy |= {"clipping_norm": 0.5} if clipping == "fixed" else {"initial_clipping_norm": 0.5}
    strategy = strategy_of({"differential_privacy": privacy})
    message, _ = strategy.configure_train(1, arrays_of(**SENT), ConfigRecord(), FakeGrid([1, 2]))
    assert message.content["config"]["clipping_norm"] == 0.5
    content = answered(privacy)
    assert np.linalg.norm(kernel(content) - 1) == pytest.approx(0.5, rel=1e-5)
    assert content["metrics"].get("norm_bit", 1) == 1


def test_local_privacy_clips_before_it_adds_noise():
    length = np.linalg.norm(kernel(answered({**LOCAL, "sensitivity": 1e-6})) - 1)
    assert length == pytest.approx(0.5, rel=1e-3)
    assert length != 0.5


def test_clients_of_a_server_that_clips_apply_nothing():
    assert mod_of(None) is None
    assert mod_of({"noise_multiplier": 1.0, "clipping_norm": 0.5}) is None


def test_what_clients_apply_follows_from_a_strategy_of_a_hook_too():
    clipped = flower.DifferentialPrivacyClientSideFixedClipping(flower.FedAvg(), 0.0, 0.5, 2)
    content = answered(None, mod=mod_for(checked_strategy(clipped)))
    assert np.linalg.norm(kernel(content) - 1) < 0.51
    assert mod_for(checked_strategy(flower.FedAvg())) is None

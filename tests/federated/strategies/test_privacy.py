"""Differential privacy: the strategy is wrapped, and clients clip what they send."""

import flwr.serverapp.strategy as flower
import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, RecordDict

from experiments_manager.federated.errors import FederationError
from experiments_manager.federated.strategies.catalogue import checked_strategy, server_strategy
from experiments_manager.federated.strategies.privacy import client_mods, mods_for, with_mods
from tests.helpers.federations import FakeGrid, arrays_of, error_to, message_to, numpy_of, one_round, reply_to

FIXED = {"noise_multiplier": 0.0, "clipping_norm": 0.5}
SENT = {"steps": np.int64(4), "kernel": np.ones(4, "float32")}
CONTEXT = Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config={})


def setting(**privacy):
    return {"differential_privacy": privacy}


def refused(**privacy):
    with pytest.raises(FederationError) as caught:
        server_strategy(setting(**privacy))
    return str(caught.value)


def far(message, _context=None):
    """A client whose update has length 20."""
    got = numpy_of(message.content["arrays"])
    return reply_to(message, 1, {"steps": got["steps"] + 1, "kernel": got["kernel"] + np.float32(10)})


def length_of_update(reply):
    return np.linalg.norm(reply.content["arrays"]["kernel"].numpy() - SENT["kernel"])


@pytest.mark.parametrize(
    ("privacy", "kind"),
    [
        ({**FIXED}, "DifferentialPrivacyServerSideFixedClipping"),
        ({**FIXED, "side": "client"}, "DifferentialPrivacyClientSideFixedClipping"),
        ({"noise_multiplier": 0.0, "clipping": "adaptive"}, "DifferentialPrivacyServerSideAdaptiveClipping"),
        (
            {"noise_multiplier": 0.0, "clipping": "adaptive", "side": "client"},
            "DifferentialPrivacyClientSideAdaptiveClipping",
        ),
    ],
)
def test_side_and_clipping_choose_what_wraps_the_strategy(privacy, kind):
    strategy = server_strategy({"strategy": "FedMedian", "min_clients": 3, **setting(**privacy)}).strategy
    assert type(strategy) is getattr(flower, kind)
    assert type(strategy.strategy) is flower.FedMedian
    assert strategy.num_sampled_clients == 3


def test_local_privacy_wraps_nothing():
    privacy = {"side": "local", "clipping_norm": 1.0, "sensitivity": 1.0, "epsilon": 1.0, "delta": 1e-5}
    assert type(server_strategy(setting(**privacy)).strategy) is flower.FedAvg


def test_the_server_clips_updates():
    grid = FakeGrid(
        [1, 2],
        lambda message: reply_to(message, message.metadata.dst_node_id, numpy_of(far(message).content["arrays"])),
    )
    arrays, _ = one_round(server_strategy(setting(**FIXED)), 1, arrays_of(**SENT), grid)
    assert np.linalg.norm(arrays["kernel"].numpy() - SENT["kernel"]) == pytest.approx(0.5, rel=1e-5)
    assert arrays["steps"].numpy() == 5


def test_noise_follows_from_the_seed():
    results = []
    for seed in (1, 1, 2):
        np.random.seed(seed)
        grid = FakeGrid([1, 2], far)
        strategy = server_strategy(setting(noise_multiplier=1.0, clipping_norm=0.5))
        results.append(one_round(strategy, 1, arrays_of(**SENT), grid)[0]["kernel"].numpy().tolist())
    assert results[0] == results[1] != results[2]


@pytest.mark.parametrize("clipping", ["fixed", "adaptive"])
def test_clients_clip_to_the_norm_that_the_server_sends(clipping):
    privacy = {"side": "client", "clipping": clipping, "noise_multiplier": 0.0}
    privacy |= {"clipping_norm": 0.5} if clipping == "fixed" else {"initial_clipping_norm": 0.5}
    strategy = server_strategy(setting(**privacy))
    messages = list(strategy.configure_train(1, arrays_of(**SENT), ConfigRecord(), FakeGrid([1, 2])))
    assert messages[0].content["config"]["clipping_norm"] == 0.5
    reply = with_mods(far, client_mods(setting(**privacy)))(messages[0], CONTEXT)
    assert list(reply.content["arrays"]) == ["steps", "kernel"]
    assert length_of_update(reply) == pytest.approx(0.5, rel=1e-5)
    assert reply.content["arrays"]["steps"].numpy() == 5
    assert reply.content["metrics"].get("norm_bit", 1) == 1
    assert list(messages[0].content["arrays"]) == ["steps", "kernel"]


def test_local_privacy_clips_and_adds_noise_at_the_client():
    privacy = {"side": "local", "clipping_norm": 0.5, "sensitivity": 1e-6, "epsilon": 1.0, "delta": 1e-5}
    (mod,) = client_mods(setting(**privacy))
    reply = with_mods(far, [mod])(message_to(1, arrays_of(**SENT)), CONTEXT)
    assert length_of_update(reply) == pytest.approx(0.5, rel=1e-3)
    assert length_of_update(reply) != 0.5
    assert reply.content["arrays"]["steps"].numpy() == 5


def test_mods_leave_evaluations_and_errors_alone():
    mods = client_mods(setting(**FIXED, side="client"))
    evaluated = with_mods(lambda message, _: reply_to(message, 1), mods)(
        message_to(1, arrays_of(**SENT), "evaluate"), CONTEXT
    )
    assert evaluated.has_content()
    failed = with_mods(lambda message, _: error_to(message), mods)(
        message_to(1, arrays_of(**SENT), clipping_norm=0.5), CONTEXT
    )
    assert failed.error.reason == "it fell over"


def test_clients_of_a_server_that_clips_apply_nothing():
    assert client_mods({}) == []
    assert client_mods(setting(**FIXED)) == []


def test_mods_follow_from_a_strategy_of_a_hook_too():
    clipped = flower.DifferentialPrivacyClientSideFixedClipping(flower.FedAvg(), 0.0, 0.5, 2)
    message = message_to(1, arrays_of(**SENT), clipping_norm=0.5)
    assert length_of_update(with_mods(far, mods_for(checked_strategy(clipped)))(message, CONTEXT)) < 0.51
    assert mods_for(checked_strategy(flower.FedAvg())) == []


def test_what_is_wrong_is_told_with_its_place():
    assert refused(side="serv").startswith(
        "federated['differential_privacy']['side'] is wrong. Expected one of 'server'"
    )
    assert "Expected one of 'fixed', 'adaptive'" in refused(clipping="fix", **FIXED)
    assert "['clipping_norm'] is missing" in refused(noise_multiplier=1.0)
    assert "['clipping_norm'] is wrong" in refused(noise_multiplier=1.0, clipping_norm=0)
    assert "['clipping'] is not an option of LocalDpMod" in refused(
        side="local", clipping="fixed", clipping_norm=0.5, sensitivity=1.0, epsilon=1.0, delta=1e-5
    )
    with pytest.raises(FederationError, match="Expected a dictionary, got True"):
        server_strategy({"differential_privacy": True})


def test_noise_of_the_server_is_refused_with_clusters():
    with pytest.raises(FederationError, match="does not protect the model of a cluster"):
        server_strategy({"strategy": "ClusteredCosine", **setting(**FIXED)})

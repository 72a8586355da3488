"""A strategy is built from the setting `federated`, or comes from a hook."""

import flwr.serverapp.strategy as flower
import numpy as np
import pytest
from flwr.serverapp.strategy import FedAvg

from experiments_manager.federated.errors import FederationError
from experiments_manager.federated.strategies.catalogue import checked_strategy
from experiments_manager.federated.strategies.server_strategy import ServerStrategy
from experiments_manager.settings.options.federated import STRATEGIES
from tests.helpers.federations import FakeGrid, arrays_of, numpy_of, one_round, reply_to, strategy_of

FIXED = {"noise_multiplier": 0.0, "clipping_norm": 0.5}
SENT = {"steps": np.int64(4), "kernel": np.ones(4, "float32")}


def test_the_default_is_the_mean_of_all():
    strategy = strategy_of({}).strategy
    assert type(strategy) is FedAvg
    assert (strategy.fraction_train, strategy.min_train_nodes, strategy.weighted_by_key) == (1.0, 2, "num-examples")


def test_keys_of_ours_become_those_of_flower():
    strategy = strategy_of({"fraction_train": 0.5, "fraction_evaluate": 0.25, "min_clients": 4}).strategy
    assert (strategy.fraction_train, strategy.fraction_evaluate) == (0.5, 0.25)
    assert (strategy.min_train_nodes, strategy.min_evaluate_nodes, strategy.min_available_nodes) == (4, 4, 4)


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_every_strategy_can_be_named(name):
    options = {"client_learning_rate": 0.1} if name == "QFedAvg" else {}
    strategy = strategy_of({"strategy": name, "options": options, "min_clients": 3}).strategy
    assert type(strategy).__name__ == name
    assert (strategy.min_train_nodes, strategy.min_evaluate_nodes) == (3, 3)


def test_all_that_flower_has_is_named_but_what_is_not_for_keras():
    flowers = {name for name in flower.__all__ if name not in ("Strategy", "Result")}
    left = flowers - set(STRATEGIES)
    assert {name for name in left if not name.startswith("DifferentialPrivacy")} == {
        "FedXgbBagging",
        "FedXgbCyclic",
    }


def test_options_reach_the_strategy():
    strategy = strategy_of({"strategy": "FedAdam", "options": {"eta": 0.02, "beta_1": 0}}).strategy
    assert (strategy.eta, strategy.beta_1) == (0.02, 0)


def test_the_loss_is_read_under_the_name_that_clients_give_it():
    assert (
        strategy_of({"strategy": "QFedAvg", "options": {"client_learning_rate": 1}}).strategy.train_loss_key == "loss"
    )


def test_what_only_flower_knows_is_wrong_is_told_as_ours():
    privacy = {"clipping": "adaptive", "noise_multiplier": 1.0}
    with pytest.raises(FederationError, match="Flower refuses the setting `federated`"):
        strategy_of({"differential_privacy": privacy})


def test_a_hook_may_return_any_strategy():
    inner = flower.FedMedian()
    assert checked_strategy(inner).strategy is inner
    whole = ServerStrategy(inner)
    assert checked_strategy(whole) is whole


@pytest.mark.parametrize(("value", "words"), [(None, "got NoneType"), (FedAvg, "got the class FedAvg. Call it")])
def test_a_hook_that_returns_no_strategy_is_refused(value, words):
    with pytest.raises(FederationError, match=words):
        checked_strategy(value)


def test_a_hook_whose_strategy_reads_other_words_is_refused():
    privacy = flower.DifferentialPrivacyServerSideFixedClipping(FedAvg(arrayrecord_key="weights"), 1.0, 1.0, 2)
    with pytest.raises(FederationError, match="Expected arrayrecord_key = 'arrays', got 'weights'"):
        checked_strategy(privacy)


def far(message):
    """A client whose update has length 20."""
    got = numpy_of(message.content["arrays"])
    moved = {"steps": got["steps"] + 1, "kernel": got["kernel"] + np.float32(10)}
    return reply_to(message, message.metadata.dst_node_id, moved)


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
    strategy = strategy_of({"strategy": "FedMedian", "min_clients": 3, "differential_privacy": privacy}).strategy
    assert type(strategy) is getattr(flower, kind)
    assert type(strategy.strategy) is flower.FedMedian
    assert strategy.num_sampled_clients == 3


def test_local_privacy_wraps_nothing():
    privacy = {"side": "local", "clipping_norm": 1.0, "sensitivity": 1.0, "epsilon": 1.0, "delta": 1e-5}
    assert type(strategy_of({"differential_privacy": privacy}).strategy) is flower.FedAvg


def test_the_server_clips_updates():
    arrays, _ = one_round(strategy_of({"differential_privacy": FIXED}), 1, arrays_of(**SENT), FakeGrid([1, 2], far))
    assert np.linalg.norm(arrays["kernel"].numpy() - SENT["kernel"]) == pytest.approx(0.5, rel=1e-5)
    assert arrays["steps"].numpy() == 5


def test_noise_follows_from_the_seed():
    results = []
    for seed in (1, 1, 2):
        np.random.seed(seed)
        grid = FakeGrid([1, 2], far)
        strategy = strategy_of({"differential_privacy": {"noise_multiplier": 1.0, "clipping_norm": 0.5}})
        results.append(one_round(strategy, 1, arrays_of(**SENT), grid)[0]["kernel"].numpy().tolist())
    assert results[0] == results[1] != results[2]

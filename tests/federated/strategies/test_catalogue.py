"""A strategy is built from a plain dictionary, and all that is wrong with it is told at once."""

import re

import flwr.serverapp.strategy as flower
import pytest
from flwr.serverapp.strategy import FedAvg

from experiments_manager.federated.errors import FederationError
from experiments_manager.federated.strategies.catalogue import (
    checked_strategy,
    problems_of_strategy,
    server_strategy,
    strategy_names,
)
from experiments_manager.federated.strategies.server_strategy import ServerStrategy


def refused(setting):
    with pytest.raises(FederationError) as caught:
        server_strategy(setting)
    return str(caught.value)


def test_the_default_is_the_mean_of_all():
    strategy = server_strategy({}).strategy
    assert type(strategy) is FedAvg
    assert (strategy.fraction_train, strategy.min_train_nodes, strategy.weighted_by_key) == (1.0, 2, "num-examples")


def test_keys_of_ours_become_those_of_flower():
    strategy = server_strategy({"fraction_train": 0.5, "fraction_evaluate": 0.25, "min_clients": 4}).strategy
    assert (strategy.fraction_train, strategy.fraction_evaluate) == (0.5, 0.25)
    assert (strategy.min_train_nodes, strategy.min_evaluate_nodes, strategy.min_available_nodes) == (4, 4, 4)


@pytest.mark.parametrize("name", strategy_names())
def test_every_strategy_can_be_named(name):
    options = {"client_learning_rate": 0.1} if name == "QFedAvg" else {}
    strategy = server_strategy({"strategy": name, "options": options, "min_clients": 3}).strategy
    assert type(strategy).__name__ == name
    assert (strategy.min_train_nodes, strategy.min_evaluate_nodes) == (3, 3)


def test_all_that_flower_has_is_named_but_what_is_not_for_keras():
    flowers = {name for name in flower.__all__ if name not in ("Strategy", "Result")}
    left = flowers - set(strategy_names())
    assert {name for name in left if not name.startswith("DifferentialPrivacy")} == {
        "FedXgbBagging",
        "FedXgbCyclic",
    }


def test_options_reach_the_strategy():
    strategy = server_strategy({"strategy": "FedAdam", "options": {"eta": 0.02, "beta_1": 0}}).strategy
    assert (strategy.eta, strategy.beta_1) == (0.02, 0)


def test_the_loss_is_read_under_the_name_that_clients_give_it():
    assert (
        server_strategy({"strategy": "QFedAvg", "options": {"client_learning_rate": 1}}).strategy.train_loss_key
        == "loss"
    )


def test_all_problems_are_told_at_once():
    told = refused(
        {
            "strategy": "FedAdam",
            "fraction_train": 3,
            "min_clients": 0,
            "options": {"beta1": 0.9, "eta": -1, "tau": "x", "beta_2": True, "fraction_train": 0.5},
        }
    )
    assert "7 problems" in told
    assert "federated['fraction_train'] is wrong. Expected a number from 0 to 1, got 3." in told
    assert "federated['min_clients'] is wrong. Expected an integer of at least 1, got 0." in told
    assert "['beta1'] is not an option of FedAdam. Did you mean `beta_1`?" in told
    assert "['eta'] is wrong. Expected a number, got -1: Input should be greater than 0." in told
    assert "['tau'] is wrong. Expected a number, got 'x'" in told
    assert "['beta_2'] is wrong. Expected a number, got True" in told
    assert "['fraction_train'] cannot be set here. Set federated['fraction_train'] instead." in told


def test_a_strategy_that_nobody_knows_is_refused_with_the_nearest_name():
    assert "Did you mean `FedAdam`?" in refused({"strategy": "FedAdm"})
    assert "got 7" in refused({"strategy": 7})


def test_strategies_that_wrap_others_or_train_trees_are_refused_with_the_reason():
    assert "Set federated['differential_privacy'] instead" in refused(
        {"strategy": "DifferentialPrivacyServerSideFixedClipping"}
    )
    for name in ("FedXgbBagging", "FedXgbCyclic"):
        assert f"cannot be '{name}': it is for trees of XGBoost" in refused({"strategy": name})


def test_an_option_that_is_needed_is_missed():
    assert refused({"strategy": "QFedAvg"}) == (
        "federated['options']['client_learning_rate'] is missing. QFedAvg needs it. Expected a number."
    )


@pytest.mark.parametrize("name", ["weighted_by_key", "arrayrecord_key", "train_metrics_aggr_fn", "min_available_nodes"])
def test_what_is_set_by_us_cannot_be_an_option(name):
    assert f"['{name}'] cannot be set here" in refused({"options": {name: "x"}})


@pytest.mark.parametrize(
    ("name", "bad", "needed"), [("Bulyan", 1, 7), ("Krum", 1, 5), ("MultiKrum", 2, 7), ("Bulyan", 0, 3)]
)
def test_too_few_clients_for_a_robust_strategy_are_refused(name, bad, needed):
    setting = {"strategy": name, "options": {"num_malicious_nodes": bad}, "min_clients": needed - 1}
    assert f"Expected at least {needed} for {name} with num_malicious_nodes = {bad}" in refused(setting)
    assert server_strategy({**setting, "min_clients": needed})


def test_options_of_clusters_are_checked_too():
    told = refused({"strategy": "ClusteredCosine", "options": {"eps": 1, "split_rounds": [0], "gamma_max": 2}})
    assert "Did you mean `eps1`?" in told
    assert "['split_rounds'] is wrong" in told
    assert "['gamma_max'] is wrong" in told


def test_what_only_flower_knows_is_wrong_is_told_as_ours():
    privacy = {"clipping": "adaptive", "noise_multiplier": 1.0}
    assert "Flower refuses the setting `federated`" in refused({"differential_privacy": privacy})


def test_problems_can_be_had_without_building_anything():
    assert problems_of_strategy({"strategy": "FedAvgM", "options": {"server_momentum": 0.9}}) == []
    assert len(problems_of_strategy({"strategy": "FedAvgM", "options": {"server_momentum": 1, "x": 2}})) == 2
    assert problems_of_strategy({"options": [1]}) == ["federated['options'] is wrong. Expected a dictionary, got [1]."]


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


@pytest.mark.parametrize(
    ("federated", "told"),
    [
        ({"secure_aggregation": 3}, "Expected True, False or a dictionary of options, got 3"),
        ({"secure_aggregation": {"num_share": 5}}, r"\['num_share'\] is unknown. Did you mean .num_shares"),
        ({"secure_aggregation": {"num_shares": 2}}, r"\['num_shares'\] is wrong. Expected .* got 2"),
        (
            {"secure_aggregation": {"num_shares": 5, "reconstruction_threshold": 6}},
            "Expected at most num_shares = 5, got 6",
        ),
        (
            {"secure_aggregation": {"reconstruction_threshold": 0.4}},
            r"\['reconstruction_threshold'\] is wrong. Expected .* got 0.4",
        ),
        ({"secure_aggregation": {"clipping_range": float("inf")}}, r"\['clipping_range'\] is wrong"),
        ({"secure_aggregation": {"modulus_range": 2**31 + 1}}, "Expected a power of two above quantization_range"),
        ({"secure_aggregation": True, "strategy": "Krum"}, "cannot be used with the strategy 'Krum'"),
        (
            {"secure_aggregation": True, "strategy": "ClusteredCosine"},
            "cannot be used with the strategy 'ClusteredCosine'",
        ),
        ({"secure_aggregation": True, "min_clients": 2}, "Expected at least 3, got 2"),
        (
            {"secure_aggregation": True, "differential_privacy": {"noise_multiplier": 1.0, "clipping_norm": 1.0}},
            "differential_privacy of the side 'server'",
        ),
    ],
)
def test_what_secure_aggregation_cannot_do_is_refused_by_name(federated, told):
    assert re.search(told, refused({"min_clients": 3, **federated}))


def test_secure_aggregation_goes_with_strategies_that_need_the_mean_alone():
    local = {"side": "local", "clipping_norm": 1.0, "sensitivity": 1.0, "epsilon": 1.0, "delta": 1e-5}
    for name in ("FedAvg", "FedProx", "FedAdam", "FedYogi", "FedAdagrad", "FedAvgM"):
        options = {"proximal_mu": 0.1} if name == "FedProx" else {}
        federated = {"strategy": name, "min_clients": 3, "options": options, "differential_privacy": local}
        assert problems_of_strategy({**federated, "secure_aggregation": {"num_shares": 5}}) == []

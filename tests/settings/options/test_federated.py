"""What a federation may say of itself: all that is wrong is told at once, without Flower, and options are Flower's."""

import inspect
import re

import flwr.serverapp.strategy as flower
import pytest
from flwr.clientapp.mod import LocalDpMod

from experiments_manager.federated.strategies import clustered
from experiments_manager.settings.options.federated import PRIVACY, STRATEGIES, FederatedOptions, federated_problems


def parameters(kind):
    """The names of the parameters of a constructor, and whether each must be given."""
    given = inspect.signature(kind.__init__).parameters.values()
    plain = [p for p in given if p.name != "self" and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    return {p.name: p.default is p.empty for p in plain}


def refused(given):
    return "\n".join(federated_problems(given).values())


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_options_of_a_strategy_are_those_of_its_constructor(name):
    model = STRATEGIES[name]
    own = parameters(getattr(flower, name, None) or getattr(clustered, name))
    needed = {key: must for key, must in own.items() if key not in model.REMEDIES}
    assert {key: field.is_required() for key, field in model.model_fields.items()} == needed


@pytest.mark.parametrize(("side", "clipping"), sorted(PRIVACY))
def test_options_of_privacy_are_those_of_flower(side, clipping):
    flowers = f"DifferentialPrivacy{side.capitalize()}Side{clipping.capitalize()}Clipping"
    own = parameters(LocalDpMod if side == "local" else getattr(flower, flowers))
    ours = {"strategy": True, "accountant": False, "num_sampled_clients": False}  # we give these, or nobody does
    needed = {key: must for key, must in own.items() if key not in ours}
    model = PRIVACY[side, clipping].model_fields
    assert {key: field.is_required() for key, field in model.items() if key not in ours} == needed


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"stratgy": "FedAvg"}, "federated['stratgy'] is unknown. Did you mean `strategy`?"),
        ({"strategy": "FedAdamm"}, "Did you mean `FedAdam`?"),
        ({"rounds": True}, "Expected an integer of at least 1, got True"),
        ({"round_timeout": -1}, "Expected seconds, or None, got -1"),
        ({"fraction_train": float("nan")}, "Expected a number from 0 to 1, got nan"),
        ({"strategy": "FedAdam", "options": {"bta_1": 0.9}}, "Did you mean `beta_1`?"),
        ({"strategy": "FedAdam", "options": {"eta": 0}}, "Expected a number above 0, got 0"),
        ({"differential_privacy": {"side": "sever"}}, "Did you mean 'server'?"),
        ({"clients": 3, "true_groups": [0, 1]}, "Expected a group for each of 3 clients, got 2"),
        ({"differential_privacy": {"noise_multiplyer": 1.0}}, "Did you mean `noise_multiplier`?"),
        ({"secure_aggregation": {"clipping_range": -1}}, "Expected a number above 0, got -1"),
        ({"options": [1]}, "federated['options'] is wrong. Expected a dictionary, got [1]."),
    ],
)
def test_what_is_wrong_with_a_federation_is_told(given, told):
    (text,) = federated_problems(given).values()
    assert told in text


def test_all_problems_are_told_at_once():
    options = {"beta1": 0.9, "eta": -1, "tau": "x", "beta_2": True, "fraction_train": 0.5}
    told = refused({"strategy": "FedAdam", "fraction_train": 3, "min_clients": 0, "options": options})
    assert len(told.splitlines()) == 7
    assert "federated['fraction_train'] is wrong. Expected a number from 0 to 1, got 3." in told
    assert "federated['min_clients'] is wrong. Expected an integer of at least 1, got 0." in told
    assert "federated['options']['beta1'] of FedAdam is unknown. Did you mean `beta_1`?" in told
    assert "['eta'] of FedAdam is wrong. Expected a number above 0, got -1." in told
    assert "['tau'] of FedAdam is wrong. Expected a number above 0, got 'x'." in told
    assert "['beta_2'] of FedAdam is wrong. Expected a number of 0 or more and below 1, got True." in told
    assert "['fraction_train'] of FedAdam is unknown. Set federated['fraction_train'] instead." in told


def test_strategies_that_wrap_others_or_train_trees_are_refused_with_the_reason():
    assert "Set federated['differential_privacy'] instead" in refused(
        {"strategy": "DifferentialPrivacyServerSideFixedClipping"}
    )
    for name in ("FedXgbBagging", "FedXgbCyclic"):
        assert f"cannot be '{name}': it is for trees of XGBoost" in refused({"strategy": name})


def test_an_option_that_is_needed_is_missed():
    assert refused({"strategy": "QFedAvg"}) == (
        "federated['options']['client_learning_rate'] of QFedAvg is missing. Expected a number above 0. Add it."
    )
    assert "['clipping_norm'] is missing" in refused({"differential_privacy": {"noise_multiplier": 1.0}})


@pytest.mark.parametrize("name", ["weighted_by_key", "arrayrecord_key", "train_metrics_aggr_fn", "min_available_nodes"])
def test_what_is_set_by_us_cannot_be_an_option(name):
    assert re.search(rf"\['{name}'\] of FedAvg is unknown. (Set|Leave)", refused({"options": {name: "x"}}))


@pytest.mark.parametrize(
    ("name", "bad", "needed"), [("Bulyan", 1, 7), ("Krum", 1, 5), ("MultiKrum", 2, 7), ("Bulyan", 0, 3)]
)
def test_too_few_clients_for_a_robust_strategy_are_refused(name, bad, needed):
    setting = {"strategy": name, "options": {"num_malicious_nodes": bad}, "min_clients": needed - 1}
    assert f"Expected at least {needed} for {name} with num_malicious_nodes = {bad}" in refused(setting)
    assert refused({**setting, "min_clients": needed}) == ""


def test_options_of_clusters_are_checked_too():
    told = refused({"strategy": "ClusteredCosine", "options": {"eps": 1, "split_rounds": [0], "gamma_max": 2}})
    assert "Did you mean `eps1`?" in told
    assert "['split_rounds'] of ClusteredCosine is wrong" in told
    assert "['gamma_max'] of ClusteredCosine is wrong" in told


def test_privacy_names_what_it_does_not_know_and_local_privacy_has_one_way_of_clipping():
    local = {"side": "local", "clipping_norm": 0.5, "sensitivity": 1.0, "epsilon": 1.0, "delta": 1e-5}
    fixed = {"noise_multiplier": 0.0, "clipping_norm": 0.5}
    assert "['clipping'] is unknown" in refused({"differential_privacy": {**local, "clipping": "fixed"}})
    assert "Expected one of 'fixed', 'adaptive'" in refused({"differential_privacy": {**fixed, "clipping": "fix"}})
    assert "['clipping_norm'] is wrong" in refused({"differential_privacy": {**fixed, "clipping_norm": 0}})
    assert "Expected a dictionary, got True" in refused({"differential_privacy": True})


def test_noise_of_the_server_is_refused_with_clusters():
    privacy = {"noise_multiplier": 0.0, "clipping_norm": 0.5}
    told = refused({"strategy": "ClusteredCosine", "differential_privacy": privacy})
    assert "does not protect the model of a cluster" in told


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
        assert federated_problems({**federated, "secure_aggregation": {"num_shares": 5}}) == {}


def test_the_least_number_of_clients_follows_from_the_others():
    assert FederatedOptions.of({"clients": 5}).min_clients == 2
    assert FederatedOptions.of({"clients": 1}).min_clients == 1
    assert FederatedOptions.of({"clients": 5, "secure_aggregation": True}).min_clients == 3
    assert FederatedOptions.of({"clients": 5, "min_clients": 4}).min_clients == 4

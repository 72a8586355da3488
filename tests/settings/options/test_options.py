"""The options of federations, clusters and topics are checked with the settings, and know what those rooms know."""

import dataclasses
import inspect

import pytest
from flwr.clientapp.mod import LocalDpMod

from experiments_manager.federated.plan import OF_STRATEGY, FederationPlan
from experiments_manager.federated.strategies.catalogue import strategy_names
from experiments_manager.federated.strategies.option_checks import own_parameters
from experiments_manager.settings import SettingsError, load_settings
from experiments_manager.settings.options.cluster import ClusterOptions
from experiments_manager.settings.options.federated import (
    OWN,
    PRIVACY,
    STRATEGIES,
    FederatedOptions,
    federated_problems,
)
from experiments_manager.settings.options.kafka_fields import KafkaFields

import flwr.serverapp.strategy as flower_strategies  # isort: skip


def test_the_keys_of_a_federation_are_those_that_it_reads():
    own = {field.name for field in dataclasses.fields(FederationPlan)} - {"strategy"}
    assert own == OWN
    assert {*own, *OF_STRATEGY} == set(FederatedOptions.model_fields)


def test_strategies_and_their_options_are_those_of_flower_and_ours():
    assert sorted(STRATEGIES) == strategy_names()
    for name, options in STRATEGIES.items():
        kind = getattr(flower_strategies, name, None)
        if kind is not None:
            assert set(options) == set(own_parameters(kind)), name
        else:
            from experiments_manager.federated.strategies import clustered_strategies

            kind = getattr(clustered_strategies, name)
            parameters = inspect.signature(kind.__init__).parameters.values()
            assert set(options) == {p.name for p in parameters if p.kind is p.KEYWORD_ONLY}, name


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
    ],
)
def test_what_is_wrong_with_a_federation_is_told(given, told):
    (text,) = federated_problems(given).values()
    assert told in text


def test_what_a_federation_may_say_is_taken():
    given = {
        "clients": 3,
        "rounds": 2,
        "strategy": "FedAdam",
        "options": {"eta": 0.1, "beta_1": 0},
        "fraction_train": 1,
        "round_timeout": None,
        "true_groups": ("a", "a", "b"),
        "differential_privacy": {"noise_multiplier": 1.0, "clipping_norm": 0.5},
    }
    assert federated_problems(given) == {}
    assert federated_problems({"strategy": "own"}, with_strategy=False) == {}
    assert KafkaFields.problems({"x": ("a", "b"), "y": {"label": "l"}}) == {}
    assert ClusterOptions.problems({"time": 60, "gpus": 2, "bind": "/data", "sbatch": ["--qos=long"]}) == {}


def test_a_key_is_told_at_its_own_line_of_the_file(write):
    text = """\
    federated = {
        "clients": 2,
        "ronds": 3,
    }
    cluster = dict(
        mem=-5,
    )
    kafka_fields = {"y": "label"}
    """
    with pytest.raises(SettingsError) as caught:
        load_settings(write(text))
    told = [(problem.line, problem.name) for problem in caught.value.problems]
    assert told == [(3, "federated"), (6, "cluster"), (8, "kafka_fields")]


def test_options_of_privacy_are_those_of_flower():
    for kind, names in PRIVACY.items():
        side, clipping = kind.split()
        flowers = f"DifferentialPrivacy{side.capitalize()}Side{clipping.capitalize()}Clipping"
        own = inspect.signature(LocalDpMod if side == "local" else getattr(flower_strategies, flowers)).parameters
        assert {*names} == {*own} - {"strategy", "accountant"}, kind


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"differential_privacy": {"noise_multiplyer": 1.0}}, "Did you mean `noise_multiplier`?"),
        ({"secure_aggregation": {"num_share": 3}}, "Did you mean `num_shares`?"),
        ({"secure_aggregation": {"clipping_range": -1}}, "Expected a number above 0, got -1"),
        ({"secure_aggregation": True, "strategy": "Krum"}, "cannot be used with the strategy 'Krum'"),
    ],
)
def test_options_of_privacy_and_masks_are_checked_without_flower(given, told):
    (text,) = federated_problems(given).values()
    assert told in text

"""The options of federations, clusters and topics are checked with the settings, and know what those rooms know."""

import pytest

from experiments_manager.settings import SettingsError, load_settings
from experiments_manager.settings.options.cluster import ClusterOptions
from experiments_manager.settings.options.federated import federated_problems
from experiments_manager.settings.options.kafka_fields import KafkaFields


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

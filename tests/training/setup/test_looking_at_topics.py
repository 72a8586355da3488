"""What looks at a topic without training from it ends, also where the topic never does."""

import numpy as np
import pytest

from experiments_manager.settings import load_settings
from experiments_manager.training.dry_run.dry_run import dry_run
from experiments_manager.training.engine.evaluation import evaluate_run
from tests.helpers.topics import produce

pytestmark = pytest.mark.slow

X = np.random.default_rng(0).normal(size=(40, 3)).astype("float32")
Y = np.tanh(X.sum(axis=1, keepdims=True))


@pytest.fixture
def live(kafka_broker, topic):
    """The overrides of a run that follows the test's topic."""
    return {
        "consume_data_from_kafka": True,
        "kafka_bootstrap_servers": [kafka_broker],
        "kafka_topics": {"train": topic, "validation": None},
        "kafka_mode": "live",
        "steps_per_epoch": 5,
        "kafka_idle_timeout": 1.0,
        "epochs": 9,
    }


@pytest.mark.parametrize("start", ["earliest", "latest"])
def test_a_dry_run_of_a_live_topic_waits_for_nothing(kafka, topic, live, settings_file, start):
    produce(kafka, topic, (X, Y))
    said = dry_run(load_settings(settings_file(), {**live, "kafka_start": start})).lines
    assert any("position: offsets" in line for line in said)
    assert any(line.startswith("one step") for line in said)


def test_a_live_run_is_evaluated_on_what_its_topic_holds(kafka, topic, live, experiment):
    produce(kafka, topic, (X, Y))
    trained = experiment("", live)
    assert trained.result.stop_reason == f"no new sample in topic {topic} for 1 s"
    evaluation = evaluate_run(trained.run, "train")
    assert evaluation.samples == len(X)
    assert evaluation.metrics["loss"] > 0


def test_prequential_variables_do_not_keep_a_run_from_being_evaluated(kafka, topic, live, experiment):
    produce(kafka, topic, (X, Y))
    trained = experiment("", {**live, "prequential": True, "monitor": "prequential_loss"})
    assert evaluate_run(trained.run, "validation").samples == 16

"""Several processes read the same range of a Kafka topic, and train what one process does."""

import numpy as np
import pytest

from experiments_manager.kafka.producing.producer import SampleProducer
from experiments_manager.kafka.records.structure import Structure
from experiments_manager.runs import open_run
from experiments_manager.training.state.checkpoints import read_latest
from tests.helpers.training_hosts import Training, assert_near, trained, weights_of

pytestmark = pytest.mark.slow


def send(kafka, topic, first, last):
    """Sends samples with numbers in a range."""
    number = np.arange(first, last)
    x = np.stack([np.sin(number), np.cos(number), number / 400], 1).astype("float32")
    y = x.sum(axis=1, keepdims=True)
    producer = SampleProducer(kafka, topic, Structure.of((x[:1], y[:1])), partitions=3)
    producer.send((x, y))
    producer.flush()


def test_a_range_of_a_topic_is_trained_on_and_resumed_within_a_pass_as_by_one_process(
    kafka, kafka_broker, topic, tmp_path
):
    send(kafka, topic, 0, 250)  # 11 batches, the last of 10 samples
    settings = {
        "consume_data_from_kafka": "True",
        "kafka_bootstrap_servers": f"['{kafka_broker}']",
        "kafka_topics": f"{{'train': '{topic}', 'validation': None}}",
        "kafka_cache": "0",
        "steps_per_epoch": "7",
        "figures": "False",
        "export": "False",
    }
    words = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    alone = trained(tmp_path, "alone", 1, *words)
    two = trained(tmp_path, "two", 2, *words, "--set", "epochs=2")
    send(kafka, topic, 250, 300)  # which is no part of the range
    with Training(tmp_path / "two", 2, "resume", two, "--set", "epochs=4") as training:
        assert training.end() == [0, 0], training.output
    assert_near(weights_of(alone), weights_of(two))
    position, other = (position_of(run) for run in (alone, two))
    assert position["train"]["pass"] == 2
    assert position == other


def position_of(run):
    """Gives the place in the data that the newest checkpoint holds."""
    _, snapshot = read_latest(open_run(run).checkpoints_dir)
    return snapshot.extras["positions"]

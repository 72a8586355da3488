"""What is found out about a topic."""

import confluent_kafka
import numpy as np
import pytest

from experiments_manager.kafka.errors import TopicError
from experiments_manager.kafka.inspection.topic_report import inspect_topic
from experiments_manager.kafka.producing.producer import SampleProducer
from experiments_manager.kafka.records.structure import Structure
from experiments_manager.kafka.topics import Topics

pytestmark = pytest.mark.slow

SAMPLES = {"picture": np.zeros([30, 8, 8, 1], np.uint8), "text": np.array([b"abc"] * 30)}


@pytest.fixture
def filled(kafka, topic):
    """A topic of 30 samples in 10 records and 2 partitions."""
    producer = SampleProducer(kafka, topic, Structure.of(SAMPLES), partitions=2, samples_per_record=3)
    producer.send(SAMPLES)
    producer.flush()
    return topic


def test_samples_sizes_and_partitions_are_known(kafka, filled):
    report = inspect_topic(kafka, filled, 4)
    assert (report.bounds, report.records, report.problem) == ({0: (0, 5), 1: (0, 5)}, 10, None)
    assert [len(values) for values in report.samples] == [4, 4]
    assert (report.samples[0][0].shape, report.samples[1][0]) == ((8, 8, 1), b"abc")
    assert report.mean_bytes > 3 * (64 + 3)
    assert report.bytes == 10 * report.mean_bytes
    assert report.first_time <= report.last_time


def test_groups_that_committed_are_named_with_their_lag(kafka, filled):
    consumer = confluent_kafka.Consumer(kafka.config(group_id=f"run-of-{filled}"))
    consumer.commit(offsets=[confluent_kafka.TopicPartition(filled, 0, 2)], asynchronous=False)
    consumer.close()
    [group] = inspect_topic(kafka, filled, 0).groups
    assert (group.name, group.committed, group.lag) == (f"run-of-{filled}", {0: 2}, 8)


def test_records_of_another_program_are_shown_as_they_are(kafka, topic):
    Topics(kafka).create(topic)
    writer = confluent_kafka.Producer(kafka.config())
    writer.produce(topic, b'{"x": 1}')
    writer.flush()
    report = inspect_topic(kafka, topic, 5)
    assert (list(report.values), list(report.samples)) == ([b'{"x": 1}'], [])
    assert "another program writes it" in report.problem


def test_records_that_cannot_be_decoded_do_not_hide_the_others(kafka, filled):
    writer = confluent_kafka.Producer(kafka.config())
    writer.produce(filled, b"rubbish", partition=0)
    writer.flush()
    report = inspect_topic(kafka, filled, 100)
    assert len(report.samples[0]) == 30
    assert "cannot be decoded" in report.problem


def test_an_empty_topic_has_no_samples(kafka, topic):
    SampleProducer(kafka, topic, Structure.of(SAMPLES))
    report = inspect_topic(kafka, topic, 5)
    assert (report.records, report.mean_bytes, report.rate) == (0, 0, None)
    assert "holds no records" in report.problem


def test_a_missing_topic_is_an_error_that_names_one_like_it(kafka, filled):
    with pytest.raises(TopicError, match=f"Did you mean `{filled}`"):
        inspect_topic(kafka, filled + "x", 5)

"""Producing samples to a real broker, and reading them back."""

import numpy as np
import pytest

from experiments_manager.kafka.connection import BrokerConnection
from experiments_manager.kafka.errors import TopicError
from experiments_manager.kafka.producing.producer import SampleProducer
from experiments_manager.kafka.reading.reader import TopicReader, load_structures
from experiments_manager.kafka.reading.rotation import Position
from experiments_manager.kafka.records.record_format import RecordFormat
from experiments_manager.kafka.records.structure import Structure
from experiments_manager.kafka.topics import TopicRange, Topics

pytestmark = pytest.mark.slow


def samples(count, start=0):
    numbers = np.arange(start, start + count)
    return np.stack([numbers, -numbers], axis=1).astype("float32"), numbers


@pytest.fixture
def produce(kafka, topic):
    """Sends samples with the numbers from 0 on to the test's topic; gives the producer."""

    def send(count, **options):
        producer = SampleProducer(kafka, topic, Structure.of(samples(1)), **options)
        producer.send(samples(count))
        producer.flush()
        return producer

    return send


def read(connection, topic, position=None, *, part=None, most=None):
    """Gives the numbers of the samples in the order of reading, and the position after them."""
    [structure] = load_structures(connection, topic).values()
    form, numbers = RecordFormat(structure), []
    part = part or Topics(connection).range_of(topic)
    position = position or Position({number: start for number, (start, _) in part.bounds.items()})
    with TopicReader(connection, topic, position, {number: end for number, (_, end) in part.bounds.items()}) as reader:
        for chunk in reader:
            (_, y), _ = form.decode(chunk.values)
            numbers += y.tolist()
            position = chunk.end
            if most is not None and len(numbers) >= most:
                break
    return numbers, position


def test_samples_come_back_in_their_order(kafka, topic, produce):
    producer = produce(1000)
    assert (producer.sent, producer.acknowledged, producer.failed) == (1000, 1000, 0)
    assert read(kafka, topic)[0] == list(range(1000))


def test_a_record_of_many_samples_counts_once(kafka, topic, produce):
    assert produce(1000, samples_per_record=300).acknowledged == 4
    assert Topics(kafka).range_of(topic).offsets == 4
    assert read(kafka, topic)[0] == list(range(1000))


def test_several_partitions_are_read_in_the_same_order_each_time(kafka, topic, produce):
    produce(1000, partitions=3)
    first, _ = read(kafka, topic)
    assert sorted(first) == list(range(1000))
    assert first == list(range(1000))  # the order in which they were produced
    assert read(kafka, topic)[0] == first


def test_reading_that_was_broken_off_goes_on_with_the_next_sample(kafka, topic, produce):
    produce(3000, partitions=3)
    whole, _ = read(kafka, topic)
    begun, position = read(kafka, topic, most=1)
    rest, _ = read(kafka, topic, position)
    assert 1 <= len(begun) < 3000
    assert begun + rest == whole


def test_what_comes_after_the_range_was_fixed_is_not_read(kafka, topic, produce):
    produce(100)
    part = Topics(kafka).range_of(topic)
    produce(50)
    assert read(kafka, topic, part=part)[0] == list(range(100))


def test_an_empty_topic_ends_at_once(kafka, topic, produce):
    produce(0)
    assert read(kafka, topic)[0] == []


def test_a_range_that_retention_removed_is_refused(kafka, topic, produce):
    produce(10)
    with pytest.raises(TopicError, match="does not hold offset 500 any more. Expected it within 0 to 10"):
        read(kafka, topic, Position({0: 500}), part=TopicRange(topic, {0: (0, 600)}))


def test_samples_of_an_aborted_transaction_are_not_seen(kafka, topic, produce):
    import confluent_kafka

    produce(100)
    form = RecordFormat(Structure.of(samples(1)))
    writer = confluent_kafka.Producer(kafka.config(transactional_id=topic))
    writer.init_transactions(30)
    for numbers, end in ((samples(5, 900), writer.abort_transaction), (samples(5, 100), writer.commit_transaction)):
        writer.begin_transaction()
        for record in form.encode(numbers):
            writer.produce(topic, record)
        writer.flush()
        end()
    assert read(kafka, topic)[0] == list(range(105))


def test_a_topic_that_is_missing_is_named_with_one_that_is_like_it(kafka, topic, produce):
    produce(1)
    with pytest.raises(TopicError, match=f"Topic {topic}s not found at 127.0.0.1:.* Did you mean `{topic}`"):
        Topics(kafka).range_of(topic + "s")


def test_a_broker_that_does_not_answer_is_named(kafka_broker, monkeypatch, free_port):
    monkeypatch.setattr("experiments_manager.kafka.topics.REQUEST_SECONDS", 1.0)
    port = free_port()
    with pytest.raises(TopicError, match=f"No Kafka broker answers at 127.0.0.1:{port}"):
        Topics(BrokerConnection([f"127.0.0.1:{port}"])).range_of("any")


def test_partitions_that_are_ahead_are_asked_for_no_more_than_fits(kafka, topic, produce, monkeypatch):
    import confluent_kafka

    monkeypatch.setattr("experiments_manager.kafka.reading.reader._BYTES_AHEAD", 2**16)
    produce(0, partitions=2)
    writer = confluent_kafka.Producer(kafka.config())
    for number in range(3000):
        writer.produce(topic, number.to_bytes(4, "big") + bytes(1000), partition=0)
    writer.flush()
    with TopicReader(kafka, topic, Position({0: 0, 1: 0}), patience=None) as reader:
        numbers = []

        def take(seconds=0.1):
            if (records := reader.read(seconds)) is not None:
                numbers.extend(int.from_bytes(value[:4], "big") for value in records.values)

        while not reader._paused:
            take()
        for _ in range(20):
            take()
        assert reader._rotation.waiting_bytes(0) < 2**16 + 2 * 2**21
        for number in range(3000, 6000):
            writer.produce(topic, number.to_bytes(4, "big"), partition=1)
        writer.flush()
        while len(numbers) < 6000:
            take()
    assert numbers == [number for pair in zip(range(3000), range(3000, 6000), strict=True) for number in pair]

"""What tests write to topics of samples, and read of them again."""

import numpy as np

from experiments_manager.kafka.inspection.stored_messages import messages_between
from experiments_manager.kafka.producing.producer import SampleProducer
from experiments_manager.kafka.reading.reader import load_structures, read_range
from experiments_manager.kafka.records.record_format import RecordFormat
from experiments_manager.kafka.records.structure import Structure
from experiments_manager.kafka.topics import Topics
from tests.helpers.counting_producer import Numbers


def numbered(start, count):
    """Samples for the model `linear`: three times their number."""
    numbers = np.arange(start, start + count, dtype="float32")
    return np.repeat(numbers[:, None], 3, axis=1)


def produce(connection, topic, batch, **options):
    """Sends a batch to a topic."""
    producer = SampleProducer(connection, topic, Structure.of(batch), **options)
    producer.send(batch)
    producer.flush()


def send_bytes(connection, topic, *values, **options):
    """Sends messages as they are."""
    import confluent_kafka

    producer = confluent_kafka.Producer(connection.config())
    for value in values:
        producer.produce(topic, value, **options)
    assert producer.flush(30) == 0


def messages(connection, topic, seconds=30):
    """Gives the messages that a topic holds, as one sees them who reads only what is committed."""
    import confluent_kafka

    part = Topics(connection).range_of(topic)
    config = connection.config(
        group_id="tests", isolation_level="read_committed", enable_partition_eof=True, enable_auto_commit=False
    )
    consumer, found = confluent_kafka.Consumer(config), []
    try:
        left = {number for number, (start, end) in part.bounds.items() if start < end}
        consumer.assign([confluent_kafka.TopicPartition(topic, number, part.bounds[number][0]) for number in left])
        while left:
            message = consumer.poll(seconds)
            assert message is not None, f"topic {topic} cannot be read"
            if message.error() is None:
                found.append(message)
            elif message.error().name() == "_PARTITION_EOF":
                left.discard(message.partition())
            else:
                raise AssertionError(message.error().str())
    finally:
        consumer.close()
    return found


def places(found):
    """Gives the places (partition, offset) of the records that messages answer."""
    headers = [dict(message.headers()) for message in found]
    return [(int(one["source_partition"]), int(one["source_offset"])) for one in headers]


def samples(connection, topic):
    """Gives the nests of all records of a topic, as one batch."""
    [structure] = load_structures(connection, topic).values()
    with read_range(connection, Topics(connection).range_of(topic)) as reader:
        values = [value for chunk in reader for value in chunk.values]
    return RecordFormat(structure).decode(values)[0]


def numbers_in(connection, topic):
    """Gives all numbers that a counting producer sent to a topic, partition by partition."""
    form, numbers = RecordFormat(Numbers.structure), []
    for partition, (start, end) in Topics(connection).range_of(topic).bounds.items():
        for message in messages_between(connection, topic, partition, start, end):
            numbers += form.decode([message.value])[0].tolist()
    return numbers

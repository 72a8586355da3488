"""How fast samples go to a Kafka broker and come back as arrays, against librdkafka alone.

    python3 tools/kafka_broker.py start
    python tools/bench/kafka.py [--servers 127.0.0.1:9092] [--megabytes 400]

Each figure is the best of three passes in this process. The bare producer sends the same records; the bare consumer
reads the same topic by `consume(n)` and throws the bytes away.
"""

import argparse
import time
import uuid

import confluent_kafka
import numpy as np

from experiments_manager.kafka.connection import Connection
from experiments_manager.kafka.producer import SampleProducer, producer_config
from experiments_manager.kafka.reader import RangeReader
from experiments_manager.kafka.record_format import RecordFormat
from experiments_manager.kafka.structure import Structure
from experiments_manager.kafka.topics import Topics

PASSES = 3


def best(work):
    """Return the shortest time of some passes, in seconds."""
    times = []
    for _ in range(PASSES):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def bare_producer(connection, topic, records):
    """Send records with the producer's own options and nothing around it."""
    producer = confluent_kafka.Producer(producer_config(connection))
    for record in records:
        while True:
            try:
                producer.produce(topic, record, partition=0)
                break
            except BufferError:
                producer.poll(0.1)
    producer.flush()


def bare_consumer(connection, part):
    """Read a range and throw its bytes away."""
    config = connection.config(group_id="bench", enable_auto_commit=False, isolation_level="read_committed")
    consumer = confluent_kafka.Consumer(config)
    topic, left = part.topic, part.offsets
    consumer.assign(
        [confluent_kafka.TopicPartition(topic, number, start) for number, (start, _) in part.bounds.items()]
    )
    while left:
        left -= len(consumer.consume(min(left, 2000), 1.0))
    consumer.close()


def decoded(connection, part, form):
    """Read a range into arrays."""
    samples = 0
    with RangeReader(connection, part) as reader:
        for chunk in reader:
            _, counts = form.decode(chunk.values)
            samples += int(counts.sum())
    return samples


def measure(connection, size, samples_per_record, megabytes):
    """Print the figures of one size of samples, in bytes."""
    samples = min(int(megabytes * 2**20 / size), 1_000_000)
    x = np.random.default_rng(1).integers(0, 256, [samples, size - 8]).astype(np.uint8)
    batch = (x, np.arange(samples))
    form = RecordFormat(Structure.of(batch))
    topics = Topics(connection)
    names = [f"bench-{uuid.uuid4().hex[:8]}" for _ in range(2)]
    topics.create(names[0])
    records = form.encode(batch, samples_per_record)
    bare_sent = best(lambda: bare_producer(connection, names[0], records))

    def send():
        producer = SampleProducer(connection, names[1], form.structure, samples_per_record=samples_per_record)
        for start in range(0, samples, 1000):
            producer.send((x[start : start + 1000], batch[1][start : start + 1000]))
        producer.flush()

    sent = best(send)
    part = topics.range_of(names[1])
    bare = best(lambda: bare_consumer(connection, part))
    read = best(lambda: decoded(connection, part, form))
    total = samples * PASSES
    print(
        f"{size:>7} B, {samples_per_record:>3} a record: "
        f"send {samples / sent:>9,.0f}/s ({bare_sent / sent:.0%} of bare), "
        f"read {total / read:>9,.0f}/s ({bare / read:.0%} of bare {part.offsets / bare:,.0f} records/s)",
        flush=True,
    )


def main():
    """Measure three sizes of samples."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--servers", default="127.0.0.1:9092")
    parser.add_argument("--megabytes", type=float, default=400, help="bytes of samples of each size")
    given = parser.parse_args()
    connection = Connection(given.servers.split(","))
    for size, samples_per_record in ((1024, 1), (102400, 1), (16, 1), (16, 100)):
        measure(connection, size, samples_per_record, given.megabytes)


if __name__ == "__main__":
    main()

"""How fast samples go to a Kafka broker, come back as batches of tensors, and train a model.

    python3 tools/kafka_broker.py start
    python tools/bench/kafka.py [--servers 127.0.0.1:9092] [--parts send,read,train,checkpoint] [--rounds 5]

send        our producer against a bare one of librdkafka that sends the same bytes with the same options
read        batches of tensors as the compiled training loop takes them, against a bare consumer that reads the same
            topic by `consume(n)` and throws the bytes away: samples of 1 KB, of 100 KB, and of 16 bytes alone and 100
            in a record
train       epochs of a small CNN: from arrays in memory, from a bounded topic (in memory, and read again in each
            epoch), and from a live one
checkpoint  the same with a checkpoint after every 20 steps, from memory and from a live topic

Rounds alternate between the sides; figures are medians, ratios are medians of the rounds' ratios. Samples are random
bytes, which nothing can compress. First it is checked that both sides send, read and learn the same.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import confluent_kafka
import numpy as np
import tensorflow as tf

from experiments_manager.events import Watcher
from experiments_manager.kafka.connection import BrokerConnection
from experiments_manager.kafka.producing.producer import SampleProducer, producer_config
from experiments_manager.kafka.reading.rotation import Position
from experiments_manager.kafka.records.record_format import RecordFormat, TopicFormat
from experiments_manager.kafka.records.structure import Structure
from experiments_manager.kafka.topics import Topics
from experiments_manager.settings import load_settings
from experiments_manager.training.engine.context import RunOptions
from experiments_manager.training.engine.runner import start_run
from experiments_manager.training.feeds.topics.topic_feed import TopicFeed
from experiments_manager.training.feeds.topics.topic_source import TopicSource

PARTITIONS = 2
CNN = '''
"""A small CNN on synthetic images."""
import keras
import numpy as np

session_name = "bench_kafka"
hparams = {}
epochs = 7
batch_size = 128
early_stopping_patience = None
loss = "sparse_categorical_crossentropy"
learning_rate = 0.001
metrics = ["accuracy"]
tensorboard = False
figures = False
export = False
kafka_topics = {"validation": None}


def dataset(split):
    generator = np.random.default_rng(["train", "validation", "test"].index(split))
    count = 8064 if split == "train" else 512
    y = generator.integers(0, 10, size=count)
    x = generator.normal(size=(count, 28, 28, 1)).astype("float32") + y.reshape(-1, 1, 1, 1).astype("float32") / 10
    return x, y


def model():
    layers = keras.layers
    return keras.Sequential([
        layers.Input((28, 28, 1)),
        layers.Conv2D(16, 3, activation="relu"), layers.MaxPooling2D(),
        layers.Conv2D(32, 3, activation="relu"), layers.MaxPooling2D(),
        layers.Flatten(), layers.Dropout(0.25), layers.Dense(10, activation="softmax"),
    ])
'''


def alternating(rounds: int, **sides: Callable[[], float]) -> dict[str, list[float]]:
    """Return the seconds of each side in each round; the first round warms up and does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name, side in sides.items():
            taken = side()
            if number:
                seconds[name].append(taken)
    return seconds


def ratio(reference: list[float], other: list[float]) -> float:
    """Return the median of the rounds' ratios."""
    return statistics.median(a / b for a, b in zip(reference, other, strict=True))


def timed(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def samples_of(size: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return random samples of `size` bytes: bytes and a number."""
    return np.random.default_rng(1).integers(0, 256, [count, size - 8]).astype(np.uint8), np.arange(count)


def new_topic(topics: Topics, partitions: int = PARTITIONS) -> str:
    name = f"bench-{uuid.uuid4().hex[:8]}"
    topics.create(name, partitions)
    return name


def bare_send(connection: BrokerConnection, topic: str, records: list[bytes], partitions: int) -> None:
    producer = confluent_kafka.Producer(producer_config(connection))
    for number, record in enumerate(records):
        while True:
            try:
                producer.produce(topic, record, partition=number % partitions)
                break
            except BufferError:
                producer.poll(0.1)
    producer.flush()


def send(connection: BrokerConnection, topic: str, batch: tuple, samples_per_record: int, partitions: int) -> None:
    producer = SampleProducer(
        connection, topic, Structure.of(batch), partitions=partitions, samples_per_record=samples_per_record
    )
    for start in range(0, len(batch[0]), 1000):
        producer.send(tuple(part[start : start + 1000] for part in batch))
    producer.flush()


def bench_send(connection: BrokerConnection, size: int, count: int, rounds: int) -> None:
    topics, batch = Topics(connection), samples_of(size, count)
    records = RecordFormat(Structure.of(batch)).encode(batch, 1)
    seconds = alternating(
        rounds,
        bare=lambda: timed(lambda: bare_send(connection, new_topic(topics), records, PARTITIONS)),
        ours=lambda: timed(lambda: send(connection, new_topic(topics), batch, 1, PARTITIONS)),
    )
    rate = count / statistics.median(seconds["ours"])
    print(
        f"send {size:>7} B: {rate:>10,.0f} samples/s, {ratio(seconds['bare'], seconds['ours']):.0%} of bare", flush=True
    )


def source_of(connection: BrokerConnection, topic: str, structure: Structure, samples_per_record: int, live: bool):
    bounds = Topics(connection).range_of(topic).bounds
    return TopicSource(
        connection,
        topic,
        TopicFormat({structure.id: structure}),
        Position({number: start for number, (start, _) in bounds.items()}),
        None if live else {number: end for number, (_, end) in bounds.items()},
        samples_per_record=samples_per_record,
        partition_wait=1.0,
    )


def bare_read(connection: BrokerConnection, topic: str, at_once: int) -> float:
    """Read all records of a topic; return the seconds."""
    bounds = Topics(connection).range_of(topic).bounds
    gc.freeze()  # as if TensorFlow were not in the process
    start = time.perf_counter()
    consumer = confluent_kafka.Consumer(
        connection.config(
            group_id="bench",
            enable_auto_commit=False,
            isolation_level="read_committed",
            fetch_queue_backoff_ms=10,  # a second by default, for which it would stand still
        )
    )
    consumer.assign([confluent_kafka.TopicPartition(topic, number, first) for number, (first, _) in bounds.items()])
    left = sum(end - first for first, end in bounds.values())
    while left:
        left -= len(consumer.consume(min(left, at_once), 1.0))
    seconds = time.perf_counter() - start
    consumer.close()
    gc.unfreeze()
    return seconds


class Drain:
    """Takes batches as the compiled training loop does, and adds up the numbers of the samples."""

    def __init__(self, feed: TopicFeed, count: int) -> None:
        self._feed, self._count = feed, count
        self._loop = tf.function(self._steps, autograph=False)

    def _steps(self, source, first, last, total):
        def advance(step, total, more):
            batch = self._feed.take(source, step)
            more = batch.has_value()
            total = tf.cond(more, lambda: total + tf.reduce_sum(batch.get_value()[1]), lambda: total)
            return step + 1, total, more

        return tf.while_loop(lambda step, total, more: (step < last) & more, advance, (first, total, True))

    def run(self) -> float:
        """Read everything once; return the seconds."""
        steps = -(-self._count // self._feed.batch_size)
        start = time.perf_counter()
        source, total, taken = self._feed.open(0), tf.constant(0, tf.int64), 0
        while taken < steps:
            ready = min(self._feed.ready(64), steps - taken)
            if ready == 0:
                continue
            _, total, _ = self._loop(self._feed.current(source), tf.constant(taken), tf.constant(taken + ready), total)
            self._feed.took(ready)
            taken += ready
        seconds = time.perf_counter() - start
        self._feed.close()
        if int(total) != self._count * (self._count - 1) // 2:
            raise RuntimeError("not every sample came once")
        return seconds


def bench_read(
    connection: BrokerConnection, size: int, count: int, samples_per_record: int, rounds: int, partitions: int
):
    batch_size = max(1, min(256, 2**21 // size))
    count -= count % batch_size  # a live feed would wait for the rest of a batch
    topics, batch = Topics(connection), samples_of(size, count)
    topic, structure = new_topic(topics, partitions), Structure.of(batch)
    send(connection, topic, batch, samples_per_record, partitions)
    at_once = max(1, min(2000, 2**21 // (size * samples_per_record)))  # more falls out of the processor's cache
    sides = {"bare": lambda: bare_read(connection, topic, at_once)}
    for name, live, shuffle in (("live", True, 0), ("bounded, shuffled", False, 16384)):
        source = source_of(connection, topic, structure, samples_per_record, live)
        feed = TopicFeed(
            source,
            split="train",
            batch_size=batch_size,
            seed=1,
            shuffle=shuffle,
            steps_per_epoch=10**9 if live else None,
        )
        sides[name] = Drain(feed, count).run
    seconds = alternating(rounds, **sides)
    bare = statistics.median(seconds["bare"])
    print(
        f"read {size:>7} B, {samples_per_record:>3} a record, {partitions} partitions: "
        + "; ".join(
            f"{name} {count / statistics.median(seconds[name]):,.0f} samples/s, "
            f"{ratio(seconds['bare'], seconds[name]):.0%} of bare"
            for name in sides
            if name != "bare"
        )
        + f"; bare {count / samples_per_record / bare:,.0f} records/s",
        flush=True,
    )


class Clock(Watcher):
    """Notes when epochs end, and their losses."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.losses: list[float] = []

    def on_epoch(self, report) -> None:
        self.times.append(time.perf_counter())
        self.losses.append(report.logs["loss"])


def train_seconds(folder: Path, losses: dict[str, list[float]], name: str, **overrides) -> float:
    """Train the CNN; return the seconds of an epoch."""
    file = folder / "mysettings_cnn.py"
    file.write_text(CNN)
    clock = Clock()
    start_run(
        load_settings(file, overrides),
        working_dir=folder / "runs",
        options=RunOptions(lambda *_: [clock]),
    )
    losses[name] = clock.losses
    return statistics.median(np.diff(clock.times)[1:])


def bench_train(connection: BrokerConnection, rounds: int, *, checkpoints: bool) -> None:
    topics = Topics(connection)
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        path = Path(folder)
        (path / "mysettings_cnn.py").write_text(CNN)
        settings = load_settings(path / "mysettings_cnn.py")
        x, y = settings.call("dataset", split="train")
        topic = new_topic(topics)
        for _ in range(settings.epochs):
            send(connection, topic, (x, y), 1, PARTITIONS)
        once = new_topic(topics)
        send(connection, once, (x, y), 1, 1)
        losses: dict[str, list[float]] = {}
        every = {"checkpoint_every_steps": 20} if checkpoints else {}

        def side(name: str, topic: str | None = None, **overrides) -> Callable[[], float]:
            if topic is not None:
                overrides |= {
                    "consume_data_from_kafka": True,
                    "kafka_bootstrap_servers": list(connection.servers),
                    "kafka_topics": {"train": topic, "validation": None},
                }
            return lambda: train_seconds(path, losses, name, **every, **overrides)

        live = {"kafka_mode": "live", "steps_per_epoch": len(x) // settings.batch_size, "kafka_idle_timeout": 20.0}
        sides = {"memory": side("memory"), "live": side("live", topic, **live)}
        if not checkpoints:
            sides["bounded, in memory"] = side("bounded, in memory", once)
            sides["bounded, read again"] = side("bounded, read again", once, kafka_cache=0)
        seconds = alternating(rounds, **sides)
        if not checkpoints:
            np.testing.assert_allclose(losses["memory"], losses["bounded, in memory"], rtol=1e-6)
    what = "train, a checkpoint every 20 steps" if checkpoints else "train"
    for name in sides:
        text = "" if name == "memory" else f", {ratio(seconds['memory'], seconds[name]):.0%} of the speed from memory"
        print(f"{what}: {name}: {statistics.median(seconds[name]):.3f} s an epoch{text}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--servers", default="127.0.0.1:9092")
    parser.add_argument("--parts", default="send,read,train,checkpoint")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--megabytes", type=float, default=300, help="bytes of samples of each size")
    given = parser.parse_args()
    connection, parts = BrokerConnection(given.servers.split(",")), given.parts.split(",")
    count = {size: int(min(given.megabytes * 2**20 / size, 1_000_000)) for size in (16, 1024, 102400)}
    if "send" in parts:
        for size in (1024, 102400):
            bench_send(connection, size, count[size], given.rounds)
    if "read" in parts:
        for size, samples_per_record, partitions in (
            (1024, 1, 1),
            (1024, 1, 2),
            (102400, 1, 1),
            (16, 1, 1),
            (16, 100, 1),
        ):
            bench_read(connection, size, count[size], samples_per_record, given.rounds, partitions)
    if "train" in parts:
        bench_train(connection, given.rounds, checkpoints=False)
    if "checkpoint" in parts:
        bench_train(connection, given.rounds, checkpoints=True)


if __name__ == "__main__":
    main()

"""A producer in another language, which knows no more than docs/kafka.md says, and what is read of it."""

import os
import runpy
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from experiments_manager.kafka.connection import confluent_kafka
from experiments_manager.kafka.reading.reader import load_structures
from experiments_manager.kafka.records.record_format import TopicFormat
from experiments_manager.kafka.topics import Topics
from tests.helpers.kafka_brokers import TOOL

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "examples/streaming/Producer.java"
SAMPLES = 1000


def java():
    """The Java launcher that can compile a source file; skips where there is only a runtime, or none."""
    home = os.environ.get("JAVA_HOME")
    launcher = str(Path(home) / "bin/java") if home else shutil.which("java")
    modules = subprocess.run([launcher, "--list-modules"], capture_output=True, text=True).stdout if launcher else ""
    if "jdk.compiler" not in modules:
        pytest.skip("the example in Java needs a JDK 17: sudo apt-get install openjdk-17-jdk-headless")
    return launcher


def jars():
    """The class path of Kafka's clients: the libraries of the broker that is running."""
    return f"{runpy.run_path(str(TOOL))['find_libraries']()}/*"


def read_all(connection, topic):
    """The values of all records of a topic, those of one partition after those of another."""
    kafka, part = confluent_kafka(), Topics(connection).range_of(topic)
    consumer = kafka.Consumer(connection.config(group_id="test"))
    consumer.assign([kafka.TopicPartition(topic, number, start) for number, (start, _) in part.bounds.items()])
    messages = []
    while len(messages) < part.offsets:
        messages += consumer.consume(part.offsets - len(messages), 1.0)
    consumer.close()
    assert not any(message.error() for message in messages)
    return [message.value() for message in messages]


@pytest.mark.slow
def test_samples_that_a_java_program_sent_are_read_as_it_made_them(kafka, kafka_broker, topic):
    launcher = java()
    command = [launcher, "-cp", jars(), SOURCE, kafka_broker, topic, str(SAMPLES)]
    for _ in range(2):  # it may add to a topic
        sent = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert sent.returncode == 0, sent.stderr
    form = TopicFormat(load_structures(kafka, topic))
    assert str(form.structure) == "x/numbers (3) float32, x/unit () string, y () float32"
    (x, y), counts = form.decode(read_all(kafka, topic))
    assert counts.tolist() == [1] * (2 * SAMPLES)
    np.testing.assert_array_equal(x["numbers"].sum(axis=1), y)
    np.testing.assert_array_equal(np.sort(x["numbers"][:, 0]), np.arange(SAMPLES).repeat(2))
    assert x["unit"].tolist() == [b"m" if number % 2 == 0 else b"km" for number in x["numbers"][:, 0]]


def test_the_example_fits_on_a_page():
    assert len(SOURCE.read_text(encoding="utf-8").splitlines()) < 60

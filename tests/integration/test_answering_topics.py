"""A topic that a served model answers, while clients are killed, a broker goes away, and partitions move."""

import collections
import contextlib
import random
import signal
import subprocess
import sys
import time

import pytest

from experiments_manager.kafka.answering.group_member import TRANSACTION_SECONDS
from experiments_manager.kafka.connection import BrokerConnection
from experiments_manager.kafka.topics import Topics
from tests.helpers.kafka_brokers import run_tool, unused_port, what_is_missing
from tests.helpers.topics import messages, numbered, places, produce, samples
from tests.helpers.waiting import wait_until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(what_is_missing()), reason=what_is_missing()),
]


KILLS = 6


@pytest.fixture
def start(model_server, topic, tmp_path):
    """Starts a client of the test's topic as a process of its own; those that are left at the end are killed."""
    clients = []

    def started(servers, *options, address=f"127.0.0.1:{model_server.grpc}", model="linear"):
        command = [sys.executable, "-m", "experiments_manager", "predict", "--servers", servers, "--wait", "60"]
        server = ["--address", address, "--model-name", model]
        ends = ["--from", f"kafka:{topic}", "--to", f"kafka:{topic}-answers"]
        log = (tmp_path / f"client{len(clients)}.log").open("w")
        with log:
            clients.append(subprocess.Popen([*command, *server, *ends, *options], stderr=log))
        return clients[-1]

    yield started
    for client in clients:
        client.kill()
        client.wait()


class Answers:
    """Counts the answers to a topic as they are committed."""

    def __init__(self, connection, topic, partitions=2):
        import confluent_kafka

        config = connection.config(group_id="tests", isolation_level="read_committed", auto_offset_reset="earliest")
        self._consumer = confluent_kafka.Consumer(config | {"enable.auto.commit": False})
        Topics(connection).create(topic + "-answers", partitions)
        places = [confluent_kafka.TopicPartition(topic + "-answers", number, 0) for number in range(partitions)]
        self._consumer.assign(places)
        self.count = 0

    def wait_for(self, goal, client=None, seconds=120):
        """Waits until there are so many; fails if the client ends before."""

        def come():
            assert client is None or client.poll() is None, "the client has ended"
            message = self._consumer.poll(1.0)
            self.count += message is not None and message.error() is None
            return self.count >= goal

        wait_until(come, seconds)

    def close(self):
        self._consumer.close()


def require_one_answer_each(connection, topic, counts, expected=None):
    """Looks that each record has one answer, and the right one."""
    found = messages(connection, topic + "-answers")
    given = collections.Counter(places(found))
    assert given == {(number, offset): 1 for number, count in enumerate(counts) for offset in range(count)}
    y = samples(connection, topic + "-answers")["y"][:, 0]
    assert sorted(y.tolist()) == (expected or [5.0 * number + 1 for number in range(sum(counts))])


def test_each_record_is_answered_once_although_the_client_is_killed_again_and_again(kafka, kafka_broker, topic, start):
    produce(kafka, topic, numbered(0, 3000), partitions=2)
    chance = random.Random(12)
    with contextlib.closing(Answers(kafka, topic)) as answers:
        for _ in range(KILLS):
            client = start(kafka_broker, "--instance", "a", "--rate", "25", "--batch-size", "8")
            answers.wait_for(answers.count + chance.randrange(1, 150), client)
            time.sleep(chance.uniform(0, 0.2))  # anywhere between two commits, or in the midst of one
            client.send_signal(signal.SIGKILL)
            client.wait()
        assert answers.count < 3000
    assert start(kafka_broker, "--instance", "a", "--idle-timeout", "1").wait(timeout=240) == 0
    require_one_answer_each(kafka, topic, [1500, 1500])


def test_clients_of_a_group_share_a_topic_and_one_that_stood_still_does_no_harm(kafka, kafka_broker, topic, start):
    produce(kafka, topic, numbered(0, 2000), partitions=2)
    with contextlib.closing(Answers(kafka, topic)) as answers:
        slow = ("--rate", "10", "--batch-size", "8")
        zombie = start(kafka_broker, *slow)
        answers.wait_for(50)
        other = start(kafka_broker, *slow, "--idle-timeout", "2")
        answers.wait_for(answers.count + 200)
        zombie.send_signal(signal.SIGSTOP)
        answers.wait_for(answers.count + 1)
        # Longer than the group and the broker wait for it: its partitions are with the other when it wakes up.
        time.sleep(1.7 * TRANSACTION_SECONDS)
        zombie.send_signal(signal.SIGCONT)
        answers.wait_for(2000)
        assert other.wait(timeout=120) == 0
    zombie.send_signal(signal.SIGINT)
    assert zombie.wait(timeout=60) == 0
    require_one_answer_each(kafka, topic, [1000, 1000])


def test_a_client_whose_name_another_one_takes_ends_and_says_so(kafka, kafka_broker, topic, start, tmp_path):
    produce(kafka, topic, numbered(0, 1500), partitions=2)
    slow = ("--rate", "20", "--batch-size", "8", "--instance", "same")
    first = start(kafka_broker, *slow)
    with contextlib.closing(Answers(kafka, topic)) as answers:
        answers.wait_for(50)
        second = start(kafka_broker, *slow, "--idle-timeout", "1")
        assert first.wait(timeout=120) == 2
        assert "Another client took the place of 'same'" in (tmp_path / "client0.log").read_text()
    assert second.wait(timeout=120) == 0
    require_one_answer_each(kafka, topic, [750, 750])


def test_a_model_server_that_is_killed_and_comes_back_costs_no_answer(kafka, kafka_broker, topic, start):
    numbers = numbered(0, 600)[:, :2]
    produce(kafka, topic, numbers, partitions=2)
    port = unused_port()

    def serve():
        command = [sys.executable, "-m", "tests.helpers.fake_model_server", str(port), "1", "0.02"]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL)

    server = serve()
    try:
        slow = ("--rate", "20", "--batch-size", "8", "--idle-timeout", "1")
        client = start(kafka_broker, *slow, address=f"127.0.0.1:{port}", model="double")
        with contextlib.closing(Answers(kafka, topic)) as answers:
            for _ in range(3):
                answers.wait_for(answers.count + 60, client)
                server.kill()
                server.wait()
                server = serve()
        assert client.wait(timeout=120) == 0
    finally:
        server.kill()
        server.wait()
    require_one_answer_each(kafka, topic, [300, 300], expected=[2.0 * number for number in range(600)])


def test_a_broker_that_is_away_for_a_while_costs_no_answer_and_gives_none_twice(topic, start, tmp_path):
    data, port = tmp_path / "kafka", unused_port()
    servers = f"127.0.0.1:{port}"
    try:
        assert run_tool("start", "--data", data, "--port", port).returncode == 0
        connection = BrokerConnection([servers])
        produce(connection, topic, numbered(0, 1000), partitions=2)
        client = start(servers, "--rate", "10", "--batch-size", "8", "--idle-timeout", "3", "--instance", "a")
        with contextlib.closing(Answers(connection, topic)) as answers:
            answers.wait_for(150, client)
        assert run_tool("stop", "--data", data).returncode == 0
        time.sleep(20)
        assert client.poll() is None
        assert run_tool("start", "--data", data, "--port", port).returncode == 0
        assert client.wait(timeout=240) == 0
        require_one_answer_each(connection, topic, [500, 500])
    finally:
        run_tool("stop", "--data", data)

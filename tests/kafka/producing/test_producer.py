"""Sending samples: the queue that is full, the broker that goes away, and what is said."""

import threading

import numpy as np
import pytest

from experiments_manager.kafka.connection import BrokerConnection
from experiments_manager.kafka.errors import TopicError
from experiments_manager.kafka.inspection.stored_messages import messages_between
from experiments_manager.kafka.producing import production as production_module
from experiments_manager.kafka.producing.producer import SampleProducer
from experiments_manager.kafka.producing.production import Plan, Production
from experiments_manager.kafka.reading.reader import load_structures
from experiments_manager.kafka.records.record_format import RecordFormat
from experiments_manager.kafka.records.structure import Structure
from experiments_manager.kafka.topics import Topics, topic_name
from tests.helpers.counting_producer import Numbers
from tests.helpers.kafka_brokers import run_tool, what_is_missing
from tests.helpers.topics import numbers_in

STRUCTURE = Numbers.structure


@pytest.mark.slow
def test_a_full_queue_is_waited_for(kafka_broker, topic):
    connection = BrokerConnection([kafka_broker], {"queue.buffering.max.messages": 50})
    producer = SampleProducer(connection, topic, STRUCTURE)
    producer.send(np.arange(2000))
    producer.flush()
    assert numbers_in(connection, topic) == list(range(2000))


@pytest.mark.slow
def test_the_keys_name_producer_and_number(kafka, topic):
    producer = SampleProducer(kafka, topic, STRUCTURE, name="7", samples_per_record=4)
    producer.send(np.arange(10))
    producer.flush()
    keys = [message.key for message in messages_between(kafka, topic, 0, 0, 3)]
    assert keys == [f"7:{producer.run.started:x}-1-4:{number}".encode() for number in range(3)]


@pytest.mark.slow
def test_the_last_record_of_an_epoch_holds_what_is_left(kafka, topic):
    production = Production(kafka, Numbers(250), Plan(topic, epochs=2, samples_per_record=100))
    assert production.run()
    sizes = [RecordFormat(STRUCTURE).decode([m.value])[1].item() for m in messages_between(kafka, topic, 0, 0, 6)]
    assert sizes == [100, 100, 50] * 2
    progress = production.progress
    assert (progress.samples, progress.records, progress.waiting) == (500, 6, 0)


@pytest.mark.slow
def test_a_topic_takes_samples_of_another_structure_beside_those_it_has(kafka, topic):
    for structure, samples in ((STRUCTURE, np.arange(3)), (Structure.of(np.zeros([1, 2])), np.zeros([3, 2]))):
        producer = SampleProducer(kafka, topic, structure)
        producer.send(samples)
        producer.flush()
    assert len(load_structures(kafka, topic)) == 2


@pytest.mark.slow
def test_two_producers_send_to_one_topic_at_the_same_time(kafka, topic):
    Topics(kafka).create(topic, 2)
    plans = [Plan(topic, producer=name) for name in "ab"]
    threads = [threading.Thread(target=Production(kafka, Numbers(500), plan).run) for plan in plans]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers_in(kafka, topic)) == sorted([*range(500)] * 2)


@pytest.mark.slow
def test_a_broker_that_goes_away_for_a_while_costs_no_sample(free_port, tmp_path, topic, monkeypatch):
    if missing := what_is_missing():
        pytest.skip(missing)
    monkeypatch.setattr(production_module, "SILENT_SECONDS", 1.0)
    port, said = free_port(), []
    broker = ("--data", tmp_path / "kafka")
    assert run_tool("start", *broker, "--port", port).returncode == 0
    back = threading.Thread(target=run_tool, args=("start", *broker, "--port", port))

    def tell(text):
        said.append(text)
        if "acknowledged nothing" in text:
            back.start()

    def show(progress):
        if progress.records and not stopped.is_set():
            stopped.set()
            run_tool("stop", *broker)

    stopped = threading.Event()
    try:
        connection = BrokerConnection([f"127.0.0.1:{port}"], {"reconnect.backoff.max.ms": 500})  # looks often for it
        source, plan = Numbers(5_000), Plan(topic, epochs=2, partitions=2, rate=2500)
        assert Production(connection, source, plan, tell=tell, show=show).run()
        back.join()
        assert sorted(numbers_in(connection, topic)) == list(range(10_000))
    finally:
        run_tool("stop", *broker)
    assert [text.split(" ")[0:2] for text in said] == [["The", "broker"]] * 2
    assert f"The broker at 127.0.0.1:{port} has acknowledged nothing" in said[0]
    assert said[1] == "The broker acknowledges records again."


@pytest.mark.slow
def test_a_sending_that_is_stopped_leaves_nothing_on_the_way(kafka, topic):
    calls = iter(range(1_000_000))
    production = Production(kafka, Numbers(10_000), Plan(topic, epochs=None), should_stop=lambda: next(calls) > 30)
    assert not production.run()
    progress = production.progress
    assert progress.waiting == 0
    assert numbers_in(kafka, topic) == list(range(progress.samples))


@pytest.mark.slow
def test_samples_that_do_not_fit_are_an_error_that_names_the_topic(kafka, topic):
    class Changing(Numbers):
        def epoch(self, number):
            yield np.arange(3)
            yield np.arange(3.0)

    with pytest.raises(TopicError, match=rf"Epoch 1 has samples that cannot be sent to topic {topic}.*Expected x \(\)"):
        Production(kafka, Changing(6), Plan(topic)).run()


@pytest.mark.slow
def test_a_source_without_samples_is_refused(kafka, topic):
    with pytest.raises(TopicError, match="There is nothing to send"):
        Production(kafka, Numbers(0), Plan(topic, epochs=None)).run()


def test_names_of_topics_have_only_characters_that_kafka_takes():
    assert topic_name("my run/α", "train") == "my_run__.train"
    assert topic_name("mnist", "validation", 3) == "mnist3.validation"


class FakeTime:
    """A clock that moves by its sleeps, and by what sending takes."""

    now = 100.0

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


class SlowProducer:
    """A producer whose every sending takes 3 ms, and notes when it begins."""

    sent = 0

    def __init__(self, *given, **options):
        self.run = type("Run", (), {"last": {}, "arrived": 0})
        self.acknowledged = self.sent_bytes = self.partitions = self.failed = 0
        self.begun = []

    def send(self, batch):
        self.begun.append((self.clock.now, len(batch)))
        self.clock.now += 0.003
        return len(batch)

    def poll(self, seconds=0):
        pass

    def flush(self, seconds):
        pass


@pytest.mark.parametrize("rate", [7.0, 1000.0])
def test_the_pace_follows_from_the_start_so_that_no_delay_adds_up(monkeypatch, rate):
    clock = SlowProducer.clock = FakeTime()
    monkeypatch.setattr(production_module, "time", clock)
    monkeypatch.setattr(production_module, "SampleProducer", SlowProducer)
    production = Production(BrokerConnection(["nowhere:1"]), Numbers(300), Plan("t", rate=rate))
    production.run()
    sent = 0
    for begun, count in production.producer.begun:
        assert begun - 100 == pytest.approx(sent / rate, abs=1e-6)
        sent += count
    assert sent == 300


def test_a_broker_that_stays_away_does_not_hold_up_who_was_told_to_stop(monkeypatch):
    class Unanswered(SlowProducer):
        clock = FakeTime()
        sent = 9

        def flush(self, seconds):
            raise TopicError("nobody answers")

    monkeypatch.setattr(production_module, "SampleProducer", Unanswered)
    said = []
    production = Production(
        BrokerConnection(["gone:1"]), Numbers(300), Plan("t"), should_stop=lambda: True, tell=said.append
    )
    assert not production.run()
    assert said[-1] == "The broker at gone:1 did not acknowledge 9 records; --resume finds out which of them arrived."

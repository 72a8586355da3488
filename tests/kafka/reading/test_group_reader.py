"""Partitions shared in a consumer group: each sample once, whoever comes, goes or is killed."""

import json
import threading

import numpy as np
import pytest

from experiments_manager.kafka.dead_letters import BadRecords
from experiments_manager.kafka.producing.producer import SampleProducer
from experiments_manager.kafka.reading.group_reader import GroupReader, overtaken, owners_of, taken_over
from experiments_manager.kafka.reading.rotation import Position
from experiments_manager.kafka.reading.sample_reader import SamplePosition, SampleReader
from experiments_manager.kafka.records.record_format import RecordFormat
from experiments_manager.kafka.records.structure import Structure

FORMAT = RecordFormat(Structure.of(np.arange(1)))
DEADLINE = 30
PARTITIONS = 4


def test_a_commit_names_its_owners():
    owners = [("a", 0), ("b with from 3", 100)]
    assert owners_of(json.dumps(owners)) == owners


@pytest.mark.parametrize("metadata", [None, "", "a from 3", "3", '{"a": 1}', '[["a"]]', '[["a", "x"]]'])
def test_what_another_program_committed_names_no_owner(metadata):
    assert owners_of(metadata) == []


@pytest.mark.parametrize(
    ("owners", "since"),
    [
        ([], None),
        ([("me", 5)], None),
        ([("me", 5), ("b", 9)], 9),
        ([("me", 5), ("b", 9), ("c", 20)], 9),
        ([("b", 2), ("me", 5)], None),
        ([("b", 2), ("me", 5), ("c", 7), ("me", 9), ("d", 30)], 30),
        ([("b", 2), ("c", 5)], 2),
    ],
)
def test_the_first_owner_after_a_run_tells_from_where_others_trained(owners, since):
    assert taken_over(owners, "me") == since


class Member:
    """A run that is a member of a group: trains sample by sample in a thread, with a checkpoint every so many."""

    def __init__(self, kafka, topic, name, checkpoint=None, *, every=10):
        self.kafka, self.topic, self.name, self.every = kafka, topic, name, every
        self.checkpoint = checkpoint or {"numbers": [], "place": None}
        self.numbers = list(self.checkpoint["numbers"])
        place = self.checkpoint["place"]
        own = place.records.offsets if place else {}
        start = place or SamplePosition(Position({}))
        begin = dict.fromkeys(range(PARTITIONS), 0)

        def make(position, release):
            return GroupReader(kafka, topic, f"group-{topic}", name, begin, own, 0.1, release)

        self.reader = SampleReader(make, FORMAT, start, BadRecords(kafka, topic, 0.001))
        self.waiting, self.stop, self.kill = [], threading.Event(), threading.Event()
        self.slow, self.error, self.releases = 0.0, None, 0
        self.thread = threading.Thread(target=self._train, daemon=True)
        self.thread.start()

    def _train(self):
        try:
            chunks = self.reader.chunks()
            while not self.stop.is_set() and not self.kill.is_set():
                ready = self.reader.ready(1, 1, 0.1)
                if self.reader.must_release:
                    self._checkpoint()
                    self.reader.release()
                    self.releases += 1
                    chunks, self.waiting = self.reader.chunks(), []
                    continue
                if not ready:
                    continue
                if not self.waiting:
                    self.waiting = next(chunks)[0].tolist()
                self.numbers.append(self.waiting.pop(0))
                self.reader.took(1)
                if len(self.numbers) % self.every == 0:
                    self._checkpoint()
                    self.reader.commit(self.checkpoint["place"].records.offsets)
                self.kill.wait(self.slow)
            if not self.kill.is_set():
                self._checkpoint()
                self.reader.commit(self.checkpoint["place"].records.offsets)
        except BaseException as error:
            self.error = error

    def _checkpoint(self):
        self.checkpoint = {"numbers": list(self.numbers), "place": self.reader.position()}

    @property
    def partitions(self):
        reader = self.reader._reader
        return reader._rotation.partitions if reader else []

    def end(self):
        """Stops as a run does that is asked to; gives its last checkpoint."""
        self.stop.set()
        self.thread.join(DEADLINE)
        self.reader.close()
        assert self.error is None
        return self.checkpoint


def wait_until(condition):
    pause = threading.Event()
    for _ in range(DEADLINE * 20):
        if condition():
            return
        pause.wait(0.05)
    raise AssertionError("it did not come")


@pytest.fixture
def produce(kafka, topic):
    """Sends numbers to the topic of four partitions."""
    producer, sent = SampleProducer(kafka, topic, FORMAT.structure, partitions=PARTITIONS), [0]

    def send(count):
        producer.send(np.arange(sent[0], sent[0] + count))
        producer.flush()
        sent[0] += count
        return sent[0]

    return send


@pytest.fixture
def member(kafka, topic):
    """Starts members; closes those that a test leaves."""
    members = []

    def start(name, checkpoint=None, **options):
        members.append(Member(kafka, topic, name, checkpoint, **options))
        return members[-1]

    yield start
    for each in members:
        each.stop.set()
        each.thread.join(DEADLINE)
        each.reader.close()


def trained(*members):
    return sum(len(each.numbers) for each in members)


@pytest.mark.slow
def test_one_member_reads_all_partitions_and_goes_on_where_its_checkpoint_ended(produce, member):
    produce(100)
    first = member("one")
    wait_until(lambda: trained(first) == 100)
    checkpoint = first.end()
    produce(60)
    again = member("one", checkpoint)
    wait_until(lambda: trained(again) == 160)
    assert sorted(again.end()["numbers"]) == list(range(160))


@pytest.mark.slow
def test_a_second_member_takes_partitions_over_and_each_sample_is_trained_on_once(produce, member):
    produce(400)
    first = member("one")
    first.slow = 0.002
    wait_until(lambda: trained(first) > 50)
    second = member("two")
    wait_until(lambda: len(second.partitions) == 2 or first.error)
    assert first.error is None
    first.slow = 0
    samples = produce(400)
    wait_until(lambda: trained(first, second) >= samples or first.error or second.error)
    numbers = first.end()["numbers"] + second.end()["numbers"]
    assert sorted(numbers) == list(range(samples))
    assert first.releases > 0


@pytest.mark.slow
def test_a_member_that_stops_hands_its_partitions_to_the_others(produce, member):
    produce(200)
    first, second = member("one"), member("two")
    wait_until(lambda: len(first.partitions) == len(second.partitions) == 2)
    wait_until(lambda: trained(first, second) == 200)
    ended = first.end()
    samples = produce(200)
    wait_until(lambda: len(second.numbers) + len(ended["numbers"]) >= samples or second.error)
    assert sorted(second.end()["numbers"] + ended["numbers"]) == list(range(samples))


@pytest.mark.slow
def test_a_run_sees_that_another_one_went_on_from_before_its_checkpoint(kafka, topic, produce, member):
    produce(100)
    first = member("one", every=10_000)  # it never commits, as if it had been killed between checkpoint and commit
    wait_until(lambda: trained(first) == 100)
    offsets = first.reader.position().records.offsets
    assert overtaken(kafka, topic, f"group-{topic}", "one", offsets) == {}
    first.kill.set()
    first.thread.join(DEADLINE)
    first.reader.close()
    second = member("two")
    wait_until(lambda: trained(second) == 100)
    second.end()
    assert overtaken(kafka, topic, f"group-{topic}", "one", offsets) == dict.fromkeys(range(PARTITIONS), 0)
    assert overtaken(kafka, topic, f"group-{topic}", "two", offsets) == {}

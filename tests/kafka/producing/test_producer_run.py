"""A producer that was killed goes on where the acknowledgements ended."""

import os
import random
import subprocess
import sys
from pathlib import Path

import confluent_kafka.admin
import numpy as np
import pytest

from experiments_manager.kafka.errors import TopicError
from experiments_manager.kafka.producing.producer import SampleProducer
from experiments_manager.kafka.producing.producer_run import find_producer_run
from experiments_manager.kafka.producing.production import Plan, Production
from experiments_manager.kafka.reading.reader import load_structures
from experiments_manager.kafka.records.record_format import RecordFormat
from experiments_manager.kafka.records.structure import Structure
from experiments_manager.kafka.topics import Topics
from tests.helpers import counting_producer
from tests.helpers.counting_producer import Numbers
from tests.helpers.topics import numbers_in
from tests.helpers.waiting import wait_until

pytestmark = pytest.mark.slow

SCRIPT = Path(counting_producer.__file__)
STRUCTURE = Numbers.structure


def records_in(connection, topic):
    if topic not in Topics(connection).names():
        return 0
    return Topics(connection).range_of(topic).offsets


@pytest.mark.parametrize(("partitions", "per_record"), [(2, 1), (3, 7)])
def test_a_producer_killed_at_random_leaves_out_no_sample_and_sends_none_twice(
    kafka, kafka_broker, topic, partitions, per_record
):
    samples, rng = 3_003 * per_record, random.Random(partitions)
    command = [sys.executable, str(SCRIPT), kafka_broker, topic, str(samples), str(partitions), str(per_record)]
    environment = os.environ | {"PYTHONPATH": str(SCRIPT.parents[2])}
    total, kills, resume = 2 * -(-samples // per_record), 0, []
    while (before := records_in(kafka, topic)) < total:
        enough = min(before + rng.randrange(50, 700), total)
        process = subprocess.Popen([*command, str(2500 * per_record), *resume], env=environment)
        try:
            wait_until(lambda: process.poll() is not None or records_in(kafka, topic) >= enough)  # noqa: B023
            assert process.poll() in (None, 0)
            kills += process.poll() is None
        finally:
            process.kill()
            process.wait()
        resume = ["resume"]
    assert subprocess.run([*command, "0", "resume"], env=environment).returncode == 0
    assert kills >= 3
    assert sorted(numbers_in(kafka, topic)) == list(range(2 * samples))


def test_each_partition_goes_on_at_its_own_place(kafka, topic):
    Topics(kafka).create(topic, 2)
    records = RecordFormat(STRUCTURE).encode(np.arange(10))
    first = SampleProducer(kafka, topic, STRUCTURE, name="a")
    for number in (0, 2, 4, 6, 8, 1):  # partition 0 was ahead when the producer died
        first._hand_over(records[number], f"{first.run.prefix}{number}", number % 2)
    first.flush()
    again = SampleProducer(kafka, topic, STRUCTURE, name="a", resume=True)
    assert (again.run.arrived, again.run.first_missing) == (6, 3)
    assert again.send(np.arange(12)) == 6
    again.flush()
    assert numbers_in(kafka, topic) == [0, 2, 4, 6, 8, 10, 1, 3, 5, 7, 9, 11]


def send(connection, topic, numbers, name, **options):
    producer = SampleProducer(connection, topic, STRUCTURE, name=name, **options)
    producer.send(np.asarray(numbers))
    producer.flush()
    return producer


def test_records_of_other_producers_in_between_are_passed_over(kafka, topic):
    send(kafka, topic, range(10), "a", partitions=2)
    send(kafka, topic, range(1000, 3000), "b")
    again = send(kafka, topic, range(20), "a", resume=True)
    assert (again.skipped, again.sent) == (10, 10)
    assert sorted(numbers_in(kafka, topic)) == [*range(20), *range(1000, 3000)]


def test_the_newest_of_several_sendings_goes_on(kafka, topic):
    send(kafka, topic, range(9), "a", partitions=3)
    send(kafka, topic, range(1), "a")
    again = send(kafka, topic, range(9), "a", resume=True)
    assert (again.skipped, again.sent) == (1, 8)


def test_a_producer_that_finished_sends_nothing_when_resumed(kafka, topic):
    plan = Plan(topic, epochs=2, partitions=3, samples_per_record=7, producer="a", resume=True)
    for _ in range(2):
        production = Production(kafka, Numbers(100), plan)
        assert production.run()
    assert production.progress.samples == 0
    assert sorted(numbers_in(kafka, topic)) == list(range(200))


def test_without_a_record_of_that_name_everything_is_sent(kafka, topic):
    send(kafka, topic, range(1), "b")
    assert find_producer_run(kafka, topic, "a") is None
    assert send(kafka, topic, range(5), "a", resume=True).sent == 5


def test_a_search_that_would_go_too_far_back_is_refused(kafka, topic):
    send(kafka, topic, range(1), "a")
    send(kafka, topic, range(2000), "b")
    with pytest.raises(TopicError, match="No record of producer a is among the newest .* Correct --proc-id"):
        find_producer_run(kafka, topic, "a", searched=1000)


def test_a_partition_that_retention_emptied_is_refused(kafka, topic):
    send(kafka, topic, range(10), "a", partitions=2)
    admin = confluent_kafka.admin.AdminClient(kafka.config())
    [emptied] = admin.delete_records([confluent_kafka.TopicPartition(topic, 1, 5)]).values()
    emptied.result()
    with pytest.raises(TopicError, match="partition 1, begins at offset 5 .* retention may have removed it"):
        SampleProducer(kafka, topic, STRUCTURE, name="a", resume=True)


def test_data_that_changed_are_refused(kafka, topic):
    send(kafka, topic, range(5), "a")
    with pytest.raises(TopicError, match="Record 4 of producer a differs .* same order"):
        send(kafka, topic, range(100, 110), "a", resume=True)


def test_data_of_another_structure_are_refused_before_that_is_stored(kafka, topic):
    send(kafka, topic, range(5), "a")
    with pytest.raises(TopicError, match="Record 4 of producer a differs"):
        SampleProducer(kafka, topic, Structure.of(np.zeros([1, 2])), name="a", resume=True)
    assert list(load_structures(kafka, topic).values()) == [STRUCTURE]


def test_another_number_of_samples_in_a_record_is_refused(kafka, topic):
    send(kafka, topic, range(5), "a", samples_per_record=2)
    with pytest.raises(TopicError, match="Give --samples-per-record 2"):
        send(kafka, topic, range(5), "a", resume=True)


def test_two_producers_of_one_name_at_the_same_time_are_refused(kafka, topic):
    first = SampleProducer(kafka, topic, STRUCTURE, name="a", partitions=2)
    send(kafka, topic, range(1), "a")
    first.send(np.arange(1))
    first.flush()
    second = SampleProducer(kafka, topic, STRUCTURE, name="a")
    first._number = 1
    first.send(np.arange(1))
    second.send(np.arange(1))
    first.flush()
    second.flush()
    with pytest.raises(TopicError, match="Two producers called a wrote .* at the same time"):
        SampleProducer(kafka, topic, STRUCTURE, name="a", resume=True)

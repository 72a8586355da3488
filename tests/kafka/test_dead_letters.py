"""Records that cannot be used: how many are too many, and one letter for each, whoever writes it."""

import confluent_kafka
import numpy as np
import pytest

from experiments_manager.kafka.dead_letters import JUDGED_RECORDS, BadRecords, BadShare, DeadLetters
from experiments_manager.kafka.errors import TopicError
from experiments_manager.kafka.reading.decoding import decode
from experiments_manager.kafka.reading.rotation import FetchedRecords, Position
from experiments_manager.kafka.records.record_format import RecordFormat
from experiments_manager.kafka.records.structure import Structure
from experiments_manager.kafka.topics import place_headers
from tests.helpers.topics import messages, places


def test_a_share_is_judged_over_enough_records_and_of_none_it_never_is():
    few, none = BadShare("t", 0.01), BadShare("t", None)
    for share in (few, none):
        share.count(10, bad=10)
        share.require_few(0, 9, "why")
        share.require_any(0, 9, "why")
        share.count(1, bad=1)
    with pytest.raises(TopicError, match=r"11 of 11 .* partition 0, offset 10: why Expected 1\.00% .* raise kafka_max"):
        few.require_few(0, 10, "why")
    with pytest.raises(TopicError, match="None of the first 11 records .* Set kafka_format"):
        few.require_any(0, 10, "why")
    none.require_few(0, 10, "why")
    few.count(JUDGED_RECORDS)
    few.require_any(0, 10, "why")


@pytest.mark.slow
def test_a_record_has_one_letter_whoever_left_it_out(kafka, topic):
    letters, producer = DeadLetters(kafka, topic), confluent_kafka.Producer(kafka.config())
    letters.require_topic()
    of_earlier_release = [*place_headers(topic, 0, 0), ("reason", b"why")]
    producer.produce(letters.topic, b"bad", key=b"own", headers=of_earlier_release)
    letters.letter(0, 1, None, "why", key=b"own").hand_to(producer)
    assert producer.flush(30) == 0
    records = FetchedRecords([b"bad", None, b"worse"], [0] * 3, [0, 1, 2], Position({0: 0}), Position({0: 3}))
    for _ in range(2):
        bad = BadRecords(kafka, topic, most=1.0)
        bad.take(decode(RecordFormat(Structure.of(np.arange(1))), records))
        bad.close()
    found = messages(kafka, letters.topic)
    assert places(found) == [(0, 0), (0, 1), (0, 2)]
    assert [letter.key() for letter in found] == [b"own", b"0:1", b"0:2"]
    assert [letter.value() for letter in found] == [b"bad", None, b"worse"]
    assert [dict(letter.headers()).get("source_key") for letter in found] == [None, b"own", None]

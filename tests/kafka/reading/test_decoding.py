"""Records to samples, many at a time, and where each sample stands."""

import numpy as np
import pytest

from experiments_manager.kafka.errors import RecordError
from experiments_manager.kafka.reading.decoding import DecodedSamples, decode, find_bad
from experiments_manager.kafka.reading.rotation import FetchedRecords, Position
from experiments_manager.kafka.records.record_format import RecordFormat
from experiments_manager.kafka.records.structure import Structure

FORMAT = RecordFormat(Structure.of(np.arange(1)))


def records(*values, first=0):
    """Gives records of one partition."""
    offsets = list(range(first, first + len(values)))
    ends = [Position({0: offset}) for offset in (first, first + len(values))]
    return FetchedRecords(list(values), [0] * len(values), offsets, *ends)


def encoded(*numbers):
    return FORMAT.encode(np.array(numbers), len(numbers))[0]


@pytest.fixture
def mixed():
    """Records of two, no, one, no and three samples; those with none are bad."""
    return decode(FORMAT, records(encoded(0, 1), b"bad", encoded(2), None, encoded(3, 4, 5)))


def test_bad_records_are_set_aside(mixed):
    assert mixed.leaves[0].tolist() == [0, 1, 2, 3, 4, 5]
    assert mixed.ends.tolist() == [2, 2, 3, 3, 6]
    assert sorted(mixed.bad) == [1, 3]
    assert mixed.bad[3] == "The record has no value."
    assert "does not begin like" in mixed.bad[1]


@pytest.mark.parametrize("values", [[None], [b"bad"], [None, b"bad", None]])
def test_nothing_but_bad_records_are_no_samples(values):
    samples = decode(FORMAT, records(*values))
    assert (len(samples), sorted(samples.bad)) == (0, list(range(len(values))))


def test_every_sample_has_its_place(mixed):
    assert [(place.offsets[0], skip) for place, skip in map(mixed.place, range(6))] == [
        (0, 0),
        (0, 1),
        (2, 0),
        (4, 0),
        (4, 1),
        (4, 2),
    ]


@pytest.mark.parametrize("count", range(1, 6))
def test_parts_put_together_are_the_whole_again(mixed, count):
    parts = [part for part in mixed.split(count) if part is not None]
    assert [len(part.ends) for part in parts] == ([count, 5 - count] if count < 5 else [5])
    for part in parts:
        assert all(part.records.values[index] in (None, b"bad") for index in part.bad)
    whole = DecodedSamples.concatenated(parts)
    assert whole.leaves[0].tolist() == mixed.leaves[0].tolist()
    assert whole.ends.tolist() == mixed.ends.tolist()
    assert (whole.bad, whole.records) == (mixed.bad, mixed.records)


def test_parts_without_samples_may_stand_anywhere():
    parts = [
        decode(FORMAT, records(*values, first=first)) for first, values in enumerate([[b"x"], [encoded(7)], [None]])
    ]
    whole = DecodedSamples.concatenated(parts)
    assert (whole.leaves[0].tolist(), whole.ends.tolist(), sorted(whole.bad)) == ([7], [0, 1, 1], [0, 2])


def decoder(*bad):
    """Decodes all but some records; how many it was given at each call stands in `calls`."""

    def decode(records):
        decode.calls.append(len(records))
        for record in records:
            if record in bad:
                raise RecordError(f"bad: {record!r}")

    decode.calls = []
    return decode


def test_bad_records_are_found_wherever_they_are():
    records = [b"0", b"1", b"2", None, b"4", b"5"]
    for bad in ([], [b"0"], [b"5"], [b"0", b"4", b"5"]):
        expected = {int(one): f"bad: {one!r}" for one in bad} | {3: "The record has no value."}
        found = find_bad(decoder(*bad), records)
        assert found == expected
        assert list(found) == sorted(found)


def test_a_bad_one_among_many_costs_few_decodings():
    decode = decoder(b"700")
    assert list(find_bad(decode, [b"%d" % number for number in range(1000)])) == [700]
    assert len(decode.calls) < 25
    assert sum(decode.calls) <= 3000


def test_nothing_is_decoded_where_there_is_nothing():
    decode = decoder()
    assert find_bad(decode, [None]) == {0: "The record has no value."}
    assert find_bad(decode, []) == {}
    assert decode.calls == []

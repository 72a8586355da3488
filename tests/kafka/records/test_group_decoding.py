"""Finding the few bad records among many good ones."""

from experiments_manager.kafka.errors import RecordError
from experiments_manager.kafka.records.group_decoding import find_bad


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

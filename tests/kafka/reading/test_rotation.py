"""The order of the records of several partitions: by what they hold, not by when it came."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments_manager.kafka.reading.rotation import Position, Rotation


def topic(*lengths, gap=1):
    """Gives the offsets and values of partitions of these lengths; `gap` offsets lie between two records."""
    return {
        number: [(index * gap, f"{number}:{index}".encode()) for index in range(length)]
        for number, length in enumerate(lengths)
    }


def begin(partitions, start=None, **options):
    return Rotation(start or Position(dict.fromkeys(partitions, 0)), **options)


def send(rotation, number, records):
    """Hands records over as a broker sends them; those from before the place are never asked for."""
    if records:
        rotation.add(number, [o for o, _ in records], [v for _, v in records], records[-1][0] + 1)


def read_all(partitions, start=None, chunks=()):
    """Gives everything in the order of reading and the pieces in which it came, sent in chunks (partition, length)."""
    rotation = begin(partitions, start)
    offsets = (start or Position(dict.fromkeys(partitions, 0))).offsets
    left = {number: [r for r in records if r[0] >= offsets[number]] for number, records in partitions.items()}
    pieces = []

    def take():
        if (records := rotation.take()) is not None:
            pieces.append(records)

    for number, length in chunks:
        sent, left[number] = left[number][:length], left[number][length:]
        send(rotation, number, sent)
        if not left[number]:
            rotation.finish(number)
        take()
    for number, records in left.items():
        send(rotation, number, records)
        rotation.finish(number)
        take()
    take()
    assert rotation.is_finished
    return [value for piece in pieces for value in piece.values], pieces


LENGTHS = st.lists(st.integers(0, 12), min_size=1, max_size=4)


@st.composite
def arrivals(draw):
    lengths = draw(LENGTHS)
    numbers = st.integers(0, len(lengths) - 1)
    chunks = draw(st.lists(st.tuples(numbers, st.integers(1, 5)), max_size=20))
    return topic(*lengths, gap=draw(st.integers(1, 3))), chunks


def test_partitions_take_turns_one_record_each():
    assert read_all(topic(2, 3, 1))[0] == [b"0:0", b"1:0", b"2:0", b"0:1", b"1:1", b"1:2"]


@given(arrivals())
def test_the_order_does_not_depend_on_how_records_arrive(case):
    partitions, chunks = case
    assert read_all(partitions, chunks=chunks)[0] == read_all(partitions)[0]


@settings(deadline=None)
@given(arrivals())
def test_reading_on_from_any_record_gives_exactly_the_rest(case):
    partitions, chunks = case
    whole, pieces = read_all(partitions, chunks=chunks)
    done = 0
    for piece in pieces:
        for count in range(len(piece.values) + 1):
            place = Position.from_json(piece.position_after(count).to_json())
            assert read_all(partitions, place, chunks)[0] == whole[done + count :]
        done += len(piece.values)


def test_records_that_are_sent_twice_count_once():
    rotation = begin([0])
    records = topic(6)[0]
    send(rotation, 0, records[:4])
    send(rotation, 0, records[2:])
    send(rotation, 0, records[1:3])
    assert rotation.take().values == [value for _, value in records]


def test_a_partition_that_has_sent_nothing_holds_up_the_others_until_it_is_finished():
    rotation = begin([0, 1])
    send(rotation, 0, topic(3)[0])
    assert rotation.take().values == [b"0:0"]
    rotation.at_end(1)
    assert rotation.take() is None
    rotation.finish(1)
    assert rotation.take().values == [b"0:1", b"0:2"]


@pytest.fixture
def clock(monkeypatch):
    """The time that the rotation sees, in a list."""
    now = [100.0]
    monkeypatch.setattr("experiments_manager.kafka.reading.rotation.time.monotonic", lambda: now[0])
    return now


def test_a_partition_at_its_end_is_passed_over_after_a_while_and_takes_its_turns_again(clock):
    rotation = begin([0, 1], patience=2.0)
    send(rotation, 0, topic(3)[0])
    rotation.at_end(1)
    assert rotation.take().values == [b"0:0"]
    clock[0] += 1.9
    assert rotation.take() is None
    clock[0] += 0.2
    assert rotation.take().values == [b"0:1", b"0:2"]
    send(rotation, 1, topic(0, 2)[1])
    assert rotation.take().values == [b"1:0"]
    send(rotation, 0, [(3, b"0:3")])
    assert rotation.take().values == [b"0:3", b"1:1"]


def test_whole_rounds_are_taken_alone_where_more_will_come_at_once():
    rotation = begin([0, 1])
    send(rotation, 0, topic(3)[0])
    assert rotation.take(whole_rounds=True) is None
    send(rotation, 1, topic(0, 2)[1])
    assert rotation.take(whole_rounds=True).values == [b"0:0", b"1:0", b"0:1", b"1:1"]
    assert rotation.take().values == [b"0:2"]


def test_a_partition_that_is_not_known_to_be_at_its_end_is_never_passed_over(clock):
    rotation = begin([0, 1], patience=2.0)
    send(rotation, 0, topic(2)[0])
    rotation.take()
    for _ in range(3):
        clock[0] += 10
        assert rotation.take() is None


def test_a_place_after_passing_over_leads_to_the_same_rest(clock):
    rotation = begin([0, 1, 2], patience=1.0)
    send(rotation, 0, topic(2)[0])
    send(rotation, 2, topic(0, 0, 2)[2])
    rotation.at_end(1)
    assert rotation.take().values == [b"0:0"]
    rotation.take()
    clock[0] += 1.1
    piece = rotation.take()
    assert piece.values == [b"2:0", b"0:1", b"2:1"]
    assert piece.position_after(1) == Position({0: 1, 1: 0, 2: 1}, 0)


def test_a_partition_joins_where_it_is_told_and_is_in_every_place_from_then_on():
    rotation = begin([0])
    send(rotation, 0, topic(1)[0])
    rotation.take()
    rotation.join(1, 5)
    assert rotation.position.offsets == {0: 1, 1: 5}
    send(rotation, 0, [(1, b"0:1")])
    send(rotation, 1, [(5, b"1:5")])
    piece = rotation.take()
    assert sorted(piece.values) == [b"0:1", b"1:5"]
    assert piece.start.offsets == {0: 1, 1: 5}
    assert piece.end.offsets == {0: 2, 1: 6}


def test_what_waits_for_its_turn_is_measured_by_its_last_record():
    rotation = begin([0, 1])
    send(rotation, 0, [(0, b"1234"), (1, None), (2, b"5678")])
    assert rotation.waiting_bytes(0) == 12
    rotation.take()
    assert rotation.waiting_bytes(0) == 8

"""Windows of samples, each shuffled for itself."""

import numpy as np
import pytest

from experiments_manager.kafka.reading import shuffling
from experiments_manager.kafka.reading.decoding import DecodedSamples, decode
from experiments_manager.kafka.reading.rotation import FetchedRecords, Position
from experiments_manager.kafka.reading.shuffling import Shuffle, ShuffleWindows
from experiments_manager.kafka.records.record_format import RecordFormat
from experiments_manager.kafka.records.structure import Structure

FORMAT = RecordFormat(Structure.of(np.arange(1)))


def windows(values, chunk, shuffle, first=0):
    """Gives the windows of records that come in chunks: number, samples, and offsets at both ends."""
    collect, found = ShuffleWindows(shuffle, first), []
    for begin in range(0, len(values), chunk):
        part = values[begin : begin + chunk]
        offsets = list(range(begin, begin + len(part)))
        places = Position({0: begin}), Position({0: begin + len(part)})
        found += collect.add(decode(FORMAT, FetchedRecords(part, [0] * len(part), offsets, *places)))
    found += collect.rest()
    return [
        (number, w.leaves[0].tolist() if len(w) else [], w.records.start.offsets[0], w.records.end.offsets[0])
        for number, w in found
    ]


@pytest.mark.parametrize("chunk", [1, 2, 5, 100])
@pytest.mark.parametrize("per_record", [1, 3])
def test_windows_do_not_depend_on_how_records_arrive(chunk, per_record):
    values = FORMAT.encode(np.arange(50), per_record)
    found = windows(values, chunk, Shuffle(8, 1, 0))
    assert found == windows(values, 7, Shuffle(8, 1, 0))
    assert [sample for _, samples, _, _ in found for sample in sorted(samples)] == list(range(50))
    assert any(samples != sorted(samples) for _, samples, _, _ in found)
    assert [number for number, *_ in found] == list(range(len(found)))
    assert [start for _, _, start, _ in found[1:]] == [end for *_, end in found[:-1]]


def test_windows_are_as_long_as_wanted_but_for_the_first_and_the_last():
    found = windows(FORMAT.encode(np.arange(50)), 9, Shuffle(8, 1, 0))
    assert {len(samples) for _, samples, _, _ in found[1:-1]} == {8}
    assert 1 <= len(found[0][1]) <= 8


def test_a_window_takes_no_more_memory_than_fits(monkeypatch):
    values = FORMAT.encode(np.arange(50))
    monkeypatch.setattr(shuffling, "MOST_BYTES", 4 * len(values[0]))
    assert {len(samples) for _, samples, _, _ in windows(values, 9, Shuffle(1000, 1, 0))[:-1]} == {4}


def test_the_first_window_of_passes_differs_in_length():
    assert len({Shuffle(1000, 1, epoch).length(0) for epoch in range(10)}) > 5
    assert {Shuffle(1000, 1, epoch).length(1) for epoch in range(10)} == {1000}


def test_an_order_is_a_permutation_that_differs_by_window_epoch_and_seed():
    orders = [
        Shuffle(40, *key).order(window, 40) for key, window in (((1, 0), 0), ((1, 0), 1), ((1, 1), 0), ((2, 0), 0))
    ]
    assert all(sorted(order) == list(range(40)) for order in orders)
    assert len({tuple(order) for order in orders}) == 4
    assert Shuffle(40, 1, 0).order(0, 40).tolist() == orders[0].tolist()


@pytest.mark.parametrize("dtype", ["int64", "S3", object])
def test_samples_of_any_kind_are_shuffled_in_the_same_order(dtype):
    numbers = np.arange(30)
    parts = np.split(numbers.astype(str).astype("S3") if dtype == "S3" else numbers.astype(dtype), [7, 8, 20])
    ends = [np.arange(1, len(part) + 1) for part in parts]
    collect = ShuffleWindows(Shuffle(1000, 1, 0))
    for part, end in zip(parts, ends, strict=True):
        places = FetchedRecords([b"x"] * len(part), [0] * len(part), list(range(len(part))), Position({}), Position({}))
        assert list(collect.add(DecodedSamples([part], end, places))) == []
    ((number, window),) = collect.rest()
    order = Shuffle(1000, 1, 0).order(0, 30)
    assert (number, [int(value) for value in window.leaves[0]]) == (0, order.tolist())


def test_bad_records_alone_are_a_window_without_samples_that_takes_no_number():
    values = [*FORMAT.encode(np.arange(3)), b"bad", None]
    found = windows(values, 1, Shuffle(1, 1, 0))
    assert [number for number, *_ in found] == [0, 1, 2, 3]
    assert found[-1][1:] == ([], 3, 5)

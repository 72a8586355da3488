"""Topics whose records have several structures."""

import dataclasses

import numpy as np
import pytest

from experiments_manager.kafka.errors import RecordError
from experiments_manager.kafka.records.composite import Ragged, Sparse
from experiments_manager.kafka.records.record_format import RecordFormat
from experiments_manager.kafka.records.structure import ArraySpec, Leaf, Structure
from experiments_manager.kafka.records.topic_format import MOST_ASKED, TopicFormat


def batch(first, count=2, columns=3, dtype="float32"):
    x = np.arange(first, first + count * columns, dtype=dtype).reshape(count, columns)
    return {"a": x, "b": np.arange(count)}


OPEN = Structure.of_spec({"a": ArraySpec((None, None), "float32"), "b": ArraySpec((None,), "int64")})
NEWEST = Structure.of(batch(0))
SWAPPED = Structure.of(dict(reversed(batch(0).items())))
OTHER_DTYPE = Structure.of(batch(0, dtype="float64"))
OTHER_WIDTH = Structure.of(batch(0, columns=4))


def topic(*structures, **options):
    return TopicFormat({structure.id: structure for structure in structures}, **options)


def records(structure, *batches):
    return [record for one in batches for record in RecordFormat(structure).encode(one)]


def test_the_structure_of_a_topic_is_the_newest_one():
    assert topic(OPEN, NEWEST).structure == NEWEST
    assert topic(NEWEST, OPEN).structure == OPEN


@pytest.mark.parametrize("older", [OPEN, SWAPPED], ids=["open", "other order of keys"])
def test_records_of_an_older_structure_that_fits_are_decoded_among_the_others(older):
    mixed = records(NEWEST, batch(0)) + records(older, batch(10)) + records(NEWEST, batch(20))
    samples, counts = topic(older, NEWEST).decode(mixed)
    np.testing.assert_array_equal(samples["a"], np.concatenate([batch(first)["a"] for first in (0, 10, 20)]))
    assert samples["a"].dtype == np.float32
    assert samples["b"].tolist() == [0, 1] * 3
    assert counts.tolist() == [1] * 6


def test_records_of_several_structures_may_take_turns():
    first, second = records(NEWEST, batch(0, 4)), records(SWAPPED, batch(100, 4))
    wide = RecordFormat(NEWEST).encode(batch(200, 3), 3)
    mixed = [first[0], second[0], *wide, second[1], first[1], second[2], first[2]]
    samples, counts = topic(SWAPPED, NEWEST).decode(mixed)
    assert samples["a"][:, 0].tolist() == [0, 100, 200, 203, 206, 103, 3, 106, 6]
    assert samples["b"].tolist() == [0, 0, 0, 1, 2, 1, 1, 2, 2]
    assert counts.tolist() == [1, 1, 3, 1, 1, 1, 1]


def test_a_topic_may_hold_records_of_an_older_structure_alone():
    samples, _ = topic(OPEN, NEWEST).decode(records(OPEN, batch(5)))
    np.testing.assert_array_equal(samples["a"], batch(5)["a"])


def test_samples_of_an_older_structure_fit_by_the_shape_that_they_have():
    older = records(OPEN, batch(0), batch(0, columns=4))
    bad = topic(OPEN, NEWEST).bad_records(older)
    assert list(bad) == [2, 3]
    assert "Expected x/a (3) float32" in bad[2]


def test_samples_whose_shapes_differ_are_taken_by_a_newest_structure_that_is_open():
    samples, _ = topic(OTHER_WIDTH, OPEN).decode(records(OTHER_WIDTH, batch(0, columns=4)) + records(OPEN, batch(0)))
    assert [sample.shape for sample in samples["a"]] == [(4,), (4,), (3,), (3,)]


@pytest.mark.parametrize("other", [OTHER_DTYPE, OTHER_WIDTH, Structure.of(batch(0)["a"])], ids=str)
def test_records_of_a_structure_that_does_not_fit_are_bad(other):
    whole = batch(0, dtype=other.leaves[0].dtype, columns=other.leaves[0].shape[0])
    mixed = records(NEWEST, batch(0)) + records(other, whole if len(other.leaves) == 2 else whole["a"])
    bad = topic(other, NEWEST).bad_records(mixed)
    assert list(bad) == [2, 3]
    assert all("another structure" in reason and str(other) in reason for reason in bad.values())


def test_records_of_a_structure_that_the_topic_does_not_have_are_bad():
    bad = topic(NEWEST).bad_records([*records(NEWEST, batch(0)), *records(OPEN, batch(0)), b"{}", b"", None])
    assert list(bad) == [2, 3, 4, 5, 6]
    assert f"got {OPEN.id:08x}" in bad[2]
    assert "does not begin like" in bad[4]


def test_a_structure_that_was_stored_since_is_asked_for_once():
    asked = []

    def reload():
        asked.append(1)
        return {NEWEST.id: NEWEST, SWAPPED.id: SWAPPED}

    form = topic(NEWEST, reload=reload)
    for _ in range(2):
        samples, _ = form.decode(records(NEWEST, batch(0)) + records(SWAPPED, batch(10)))
        assert samples["a"][:, 0].tolist() == [0, 3, 10, 13]
        assert list(form.bad_records(records(OPEN, batch(0)))) == [0, 1]
    assert len(asked) == 2
    assert form.structure == NEWEST


def test_structures_are_not_asked_for_without_end():
    asked = []
    form = topic(NEWEST, reload=lambda: asked.append(1) or {})
    [record, _] = records(NEWEST, batch(0))
    others = [record[:4] + number.to_bytes(4, "little") + record[8:] for number in range(2 * MOST_ASKED)]
    assert len(form.bad_records([b"{%d: 1234}" % number for number in range(1000, 2000)])) == 1000
    assert asked == []
    assert len(form.bad_records(others)) == len(others)
    assert len(asked) == MOST_ASKED


def test_a_topic_without_a_structure_is_refused():
    with pytest.raises(RecordError, match="no structure.*Set kafka_format"):
        TopicFormat({})


def test_ragged_and_sparse_samples_of_an_older_structure_are_joined_with_the_newest_ones():
    def batch_of(inner, width):
        rows = Ragged(np.arange(2 * inner).reshape(2, inner), (np.array([0, 2]),))
        return rows, Sparse(np.array([[0, width - 1]]), np.array([7]), (2, width))

    older = Structure.of(batch_of(3, 4))
    newest = dataclasses.replace(older, leaves=(older.leaves[0], Leaf("y", "int64", (None,), sparse=True)), record=b"")
    mixed = records(older, batch_of(3, 4)) + records(newest, batch_of(3, 5))
    (x, y), _ = topic(older, newest).decode(mixed)
    assert x.row_lengths[0].tolist() == [0, 2, 0, 2]
    assert y.shape == (4, 5)
    assert y.indices.tolist() == [[0, 3], [2, 4]]
    other = Structure.of(batch_of(2, 4))
    assert list(topic(other, newest).bad_records(records(newest, batch_of(3, 4)) + records(other, batch_of(2, 4)))) == [
        2,
        3,
    ]

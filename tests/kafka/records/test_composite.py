"""Batches of ragged and sparse arrays without TensorFlow."""

import numpy as np
import pytest

from experiments_manager.kafka.records.composite import Ragged, Sparse, concatenated

ROWS = [[[1, 2], []], [], [[3]], [[4], [5, 6, 7], [8]]]
DENSE = np.array([[[1, 0], [0, 2]], [[0, 0], [0, 0]], [[0, 3], [0, 0]]])


def ragged(rows):
    """The batch of nested lists of two ragged dimensions."""
    values = np.array([value for sample in rows for row in sample for value in row], np.int16)
    outer, inner = [len(sample) for sample in rows], [len(row) for sample in rows for row in sample]
    return Ragged(values, (np.array(outer, np.int64), np.array(inner, np.int64)))


def rows_of(batch):
    values, inner = iter(batch.values.tolist()), iter(batch.row_lengths[1].tolist())
    return [[[next(values) for _ in range(next(inner))] for _ in range(rows)] for rows in batch.row_lengths[0]]


def sparse(dense):
    indices = np.argwhere(dense)
    return Sparse(indices, dense[tuple(indices.T)], dense.shape)


def dense_of(batch):
    dense = np.zeros(batch.shape, batch.values.dtype)
    dense[tuple(batch.indices.T)] = batch.values
    return dense


CHOSEN = [
    slice(None),
    slice(1, 3),
    slice(2, 2),
    np.array([2, 0, 2, 1]),
    np.array([], int),
    np.array([True, False, True]),
]


@pytest.mark.parametrize("chosen", CHOSEN, ids=str)
def test_samples_of_a_ragged_batch_are_chosen_like_those_of_an_array(chosen):
    some = ragged(ROWS[:3])[chosen]
    assert rows_of(some) == [ROWS[number] for number in np.arange(3)[chosen]]
    assert len(some) == len(np.arange(3)[chosen])


@pytest.mark.parametrize("chosen", CHOSEN, ids=str)
def test_samples_of_a_sparse_batch_are_chosen_like_those_of_an_array(chosen):
    some = sparse(DENSE)[chosen]
    np.testing.assert_array_equal(dense_of(some), DENSE[chosen])
    assert len(some) == len(DENSE[chosen])


def test_ragged_batches_are_joined():
    assert rows_of(concatenated([ragged(ROWS[:1]), ragged(ROWS[1:1]), ragged(ROWS[1:])])) == ROWS


def test_sparse_batches_are_joined_in_the_largest_shape():
    joined = concatenated([sparse(DENSE), sparse(DENSE[:, :, :1]), sparse(DENSE[1:, :1])])
    assert joined.shape == (8, 2, 2)
    np.testing.assert_array_equal(dense_of(joined)[:3], DENSE)
    np.testing.assert_array_equal(dense_of(joined)[3:6, :, :1], DENSE[:, :, :1])
    np.testing.assert_array_equal(dense_of(joined)[6:, :1], DENSE[1:, :1])


def test_joining_leaves_the_parts_as_they_were():
    part = sparse(DENSE)
    concatenated([part, part])
    np.testing.assert_array_equal(dense_of(part), DENSE)


def test_arrays_are_joined_as_one_array_or_as_one_of_objects():
    assert concatenated([np.zeros([2, 3]), np.ones([1, 3])]).shape == (3, 3)
    assert [sample.shape for sample in concatenated([np.zeros([2, 3]), np.ones([1, 4])])] == [(3,), (3,), (4,)]


def test_sizes_are_those_of_the_samples():
    assert ragged(ROWS).sizes.tolist() == [2, 0, 1, 5]
    assert sparse(DENSE).sizes.tolist() == [2, 0, 1]
    assert ragged(ROWS).nbytes == 8 * 2 + (4 + 6) * 8
    assert sparse(DENSE).nbytes == 3 * 3 * 8 + 3 * 8

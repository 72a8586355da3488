"""Ragged, sparse and padded batches on their way through records."""

import numpy as np
import pytest
import tensorflow as tf

from experiments_manager.kafka.records.record_format import RecordFormat
from experiments_manager.kafka.records.structure import Leaf, Structure
from experiments_manager.training.errors import DataError
from experiments_manager.training.feeds.topics.composites import (
    batch_spec,
    blank_batch,
    from_tensors,
    padded,
    to_tensor,
)


def to_tensors(batch):
    return tf.nest.map_structure(lambda array: None if array is None else to_tensor(array), batch)


def through_records(dataset, samples_per_record=1):
    """Gives the batches of a data set after each went through the records of the structure of its specification."""
    form = RecordFormat(Structure.of_spec(dataset.element_spec))
    for batch in dataset:
        samples, _ = form.decode(form.encode(from_tensors(batch), samples_per_record))
        yield batch, to_tensors(samples)


def objects(*values):
    array = np.empty(len(values), object)
    for index, value in enumerate(values):
        array[index] = value
    return array


def assert_equal(one, other):
    assert type(one) is type(other)
    assert one.dtype == other.dtype
    if isinstance(one, tf.RaggedTensor):
        assert one.to_list() == other.to_list()
        assert one.ragged_rank == other.ragged_rank
    elif isinstance(one, tf.SparseTensor):
        assert_equal(tf.sparse.to_dense(one), tf.sparse.to_dense(other))
    else:
        np.testing.assert_array_equal(one.numpy(), other.numpy())


RAGGED = {
    "words": tf.ragged.constant([["a", "bc"], [], ["d"], ["e", "f", "g"]]),
    "sentences": tf.ragged.constant([[[1, 2], []], [], [[3]], [[4], [5, 6]]], dtype=tf.int32),
    "points": tf.ragged.constant([[[1.0, 2.0]], [], [[3.0, 4.0], [5.0, 6.0]], []], inner_shape=(2,)),
    "flags": tf.ragged.constant([[True], [False, True], [], []]),
    "half": tf.cast(tf.ragged.constant([[1.0], [2.0, 3.0], [], [0.5]]), tf.bfloat16),
}


@pytest.mark.parametrize("samples_per_record", [1, 2])
@pytest.mark.parametrize("name", RAGGED)
def test_ragged_tensors_come_back_as_they_were(name, samples_per_record):
    dataset = tf.data.Dataset.from_tensor_slices((RAGGED[name], [1.0, 2.0, 3.0, 4.0])).batch(3)
    for (x, y), (read_x, read_y) in through_records(dataset, samples_per_record):
        assert_equal(read_x, x)
        assert_equal(read_y, y)


@pytest.mark.parametrize("values", [[1.5, 2.5, 3.5], ["a", "", "c"], [1, 2, 3]], ids=["float", "string", "int"])
@pytest.mark.parametrize("samples_per_record", [1, 2])
def test_sparse_tensors_come_back_as_they_were(values, samples_per_record):
    x = tf.SparseTensor([[0, 1], [2, 0], [2, 4]], values, [4, 5])
    dataset = tf.data.Dataset.from_tensor_slices({"x": x, "more": [0, 1, 2, 3]}).batch(3)
    for batch, read in through_records(dataset, samples_per_record):
        assert_equal(read["x"], batch["x"])


def test_operations_find_the_rows_where_they_were():
    [(batch, read)] = through_records(tf.data.Dataset.from_tensor_slices(RAGGED["words"]).batch(4))
    assert tf.strings.length(read).to_list() == tf.strings.length(batch).to_list()
    assert tf.reduce_sum(to_tensors(from_tensors(RAGGED["sentences"])), axis=[1, 2]).numpy().tolist() == [3, 0, 3, 15]


LEAVES = [
    Leaf("x", "float64", (2,)),
    Leaf("x", "string", (None, 2)),
    Leaf("x", "float64", (None, None, 2), ragged=2),
    Leaf("x", "string", (None,), ragged=1),
    Leaf("x", "bfloat16", (5, 3), sparse=True),
    Leaf("x", "string", (None,), sparse=True),
]


@pytest.mark.parametrize("leaf", LEAVES, ids=str)
def test_a_blank_batch_is_one_sample_like_the_specification_of_the_leaf(leaf):
    for dtype in (None, tf.string if leaf.is_string else tf.float32):
        blank, spec = blank_batch(leaf, dtype), batch_spec(leaf, dtype)
        assert spec.is_compatible_with(blank)
        assert blank.dtype == (dtype or leaf.dtype)
        assert blank.shape[0] == 1


@pytest.mark.parametrize("leaf", LEAVES, ids=str)
def test_what_was_read_is_like_the_specification_of_the_leaf(leaf):
    structure = Structure(0, (leaf,))
    form = RecordFormat(structure)
    read, _ = form.decode(form.encode(from_tensors(blank_batch(leaf))) * 3)
    assert batch_spec(leaf).is_compatible_with(to_tensors(read))
    assert Structure.of_spec(batch_spec(leaf)) == structure


def test_a_generator_hands_over_ragged_and_sparse_batches():
    specs = tuple(batch_spec(leaf) for leaf in LEAVES[2:5])
    dataset = tf.data.Dataset.from_generator(
        lambda: iter([tuple(blank_batch(leaf) for leaf in LEAVES[2:5])]), output_signature=specs
    )
    [batch] = dataset
    assert isinstance(batch[0], tf.RaggedTensor)
    assert isinstance(batch[2], tf.SparseTensor)


def test_samples_that_differ_in_shape_are_padded_to_the_largest():
    batch = padded(objects(np.ones([1, 2], "int8"), np.ones([2, 1], "int8"), np.ones([0, 9], "int8")))
    assert batch.dtype == np.int8
    assert batch.tolist() == [[[1, 1], [0, 0]], [[1, 0], [1, 0]], [[0, 0], [0, 0]]]
    assert padded(objects(np.ones([0, 3]), np.ones([2, 3])))[0].tolist() == [[0, 0, 0], [0, 0, 0]]
    assert padded(objects(np.ones([0, 3, 1]), np.ones([0, 3, 4]))).shape == (2, 0, 3, 0)
    words = padded(objects(objects(b"a"), objects(b"b", b"c"), objects()))
    assert words.tolist() == [[b"a", b""], [b"b", b"c"], [b"", b""]]
    assert tf.convert_to_tensor(words).dtype == tf.string


def test_arrays_are_left_as_they_are():
    for array in (np.ones([2, 3]), objects(b"a", b"b"), np.zeros([0, 3])):
        assert padded(array) is array


def test_padding_that_takes_more_than_there_is_is_refused():
    claimed = objects(np.broadcast_to(np.zeros(1), [2**20, 1]), np.broadcast_to(np.zeros(1), [1, 2**20]))
    with pytest.raises(DataError, match="Lower batch_size, or produce these samples as ragged tensors"):
        padded(claimed)


def test_parts_that_are_missing_stay_so():
    assert from_tensors((tf.ones(2), None))[1] is None

"""The samples of a settings module, as they are sent to a topic."""

import numpy as np
import pytest

from experiments_manager.settings import load_settings
from experiments_manager.training.errors import DataError
from experiments_manager.training.feeds.topics.sample_source import sample_source

BASE = """
import numpy as np

session_name = "sent"
loss = "mean_squared_error"
learning_rate = 0.1
batch_size = 4
consume_data_from_kafka = True
{more}

def model():
    import keras

    x = keras.Input((1,))
    return keras.Model(x, keras.layers.Dense(1)(x))
"""


@pytest.fixture
def source(tmp_path):
    """Makes the source of a split, from the text of a `dataset` hook."""

    def make(hook, split="train"):
        file = tmp_path / "mysettings_sent.py"
        file.write_text(BASE.format(more=hook))
        return sample_source(load_settings(file), split)

    return make


def values(source, epoch=0):
    return [np.asarray(part).tolist() for batch in source.epoch(epoch) for part in batch]


def test_arrays_come_in_their_order_and_in_their_nest(source):
    found = source("def dataset(split): return {'a': np.arange(6), 'b': [np.ones(6), np.zeros((6, 2))]}, np.arange(6)")
    [(x, y)] = found.epoch(0)
    assert isinstance(x["b"], list)
    assert (x["a"].tolist(), y.tolist(), found.samples) == (list(range(6)), list(range(6)), 6)
    assert [leaf.name for leaf in found.structure.leaves] == ["x/a", "x/b/0", "x/b/1", "y"]


def test_a_split_without_data_has_no_source(source):
    assert source("def dataset(split): return np.ones((3, 1)) if split == 'train' else None", "validation") is None


PIPELINE = """
def dataset(split):
    import tensorflow as tf

    return {data}
"""


def test_an_open_dimension_of_a_pipeline_is_open_in_the_structure(source):
    data = "tf.data.Dataset.range(1, 5).map(lambda n: tf.fill([n], n)).padded_batch(2)"
    found = source(PIPELINE.format(data=data))
    assert found.structure.leaves[0].shape == (None,)
    assert [batch.shape for batch in found.epoch(0)] == [(2, 2), (2, 4)]


def test_a_pipeline_that_shuffles_has_an_order_for_each_epoch_and_the_same_each_time(source):
    data = "tf.data.Dataset.range(50).shuffle(50).batch(50)"
    first, again = source(PIPELINE.format(data=data)), source(PIPELINE.format(data=data))
    assert values(first, 0) != values(first, 1)
    assert values(again, 1) == values(first, 1)
    assert values(first, 0) == values(again, 0)
    assert sorted(values(first, 1)) == list(range(50))


def test_an_endless_repetition_is_taken_away(source):
    assert values(source(PIPELINE.format(data="tf.data.Dataset.range(4).batch(2).repeat()"))) == [0, 1, 2, 3]


def test_a_pipeline_without_an_end_goes_on_from_epoch_to_epoch(source):
    found = source("steps_per_epoch = 2\n" + PIPELINE.format(data="tf.data.Dataset.counter().batch(2)"))
    assert [values(found, epoch) for epoch in range(2)] == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_a_pipeline_without_an_end_needs_a_number_of_batches(source):
    with pytest.raises(DataError, match="the train pipeline never ends.* Set `steps_per_epoch`"):
        source(PIPELINE.format(data="tf.data.Dataset.counter().batch(2)"))


def test_batches_of_a_pydataset_come_in_their_order(source):
    found = source("""
def dataset(split):
    import keras

    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 3

        def __getitem__(self, index):
            return np.full((2, 1), index), np.full(2, index)

    return Batches()
""")
    assert [y.tolist() for _, y in found.epoch(0)] == [[0, 0], [1, 1], [2, 2]]
    assert [y.tolist() for _, y in found.epoch(1)] == [[0, 0], [1, 1], [2, 2]]


def test_ragged_and_sparse_batches_are_sent_as_such(source):
    data = "tf.data.Dataset.from_tensor_slices((tf.ragged.constant([[1], [2, 3]]), tf.sparse.eye(2))).batch(2)"
    found = source(PIPELINE.format(data=data))
    assert [(leaf.ragged, leaf.sparse) for leaf in found.structure.leaves] == [(1, False), (0, True)]
    [(x, y)] = found.epoch(0)
    assert (x.values.tolist(), y.indices.tolist()) == ([1, 2, 3], [[0, 0], [1, 1]])


def test_arrays_that_are_no_dense_ones_are_refused_with_a_way_out(source):
    hook = "def dataset(split):\n    import tensorflow as tf\n\n    return tf.ragged.constant([[1], [2, 3]])\n"
    with pytest.raises(DataError, match=r"mysettings_sent.py:.* is a RaggedTensor.* return a `tf.data.Dataset`"):
        source(hook)

"""Weights of classes in the graph."""

import numpy as np
import pytest
import tensorflow as tf

from experiments_manager.training.setup.class_weights import ClassWeights

X = np.zeros([4, 1], "float32")
LABELS = np.array([0, 2, 5, 1])
ONE_HOT = np.eye(6, dtype="float32")[LABELS]


@pytest.mark.parametrize("y", [LABELS, LABELS[:, None], ONE_HOT], ids=["labels", "column", "one-hot"])
def test_samples_get_the_weight_of_their_class_and_one_where_it_has_none(y):
    weights = ClassWeights({0: 2.0, 2: 3.0})
    assert weights.weigh((X, tf.constant(y)))[2].numpy().tolist() == [2.0, 3.0, 1.0, 1.0]
    assert weights.variables == []


def test_weights_of_samples_are_multiplied():
    weighed = ClassWeights({0: 2.0}).weigh((X, tf.constant(LABELS), tf.constant([0.5, 0.5, 1.0, 1.0])))
    assert weighed[2].numpy().tolist() == [1.0, 0.5, 1.0, 1.0]


MAPS = np.array([[[0, 2, 5], [1, 255, -1]]])


@pytest.mark.parametrize("y", [MAPS, MAPS[..., None]], ids=["map", "with a channel"])
def test_each_pixel_of_a_label_map_gets_the_weight_of_its_class(y):
    weighed = ClassWeights({0: 2.0, 2: 3.0}, output_rank=4).weigh((X[:1], tf.constant(y), tf.constant([10.0])))
    assert weighed[2].numpy().tolist() == [[[20.0, 30.0, 10.0], [10.0, 10.0, 10.0]]]


@pytest.mark.parametrize("rank", [3, None])
def test_each_step_of_a_sequence_gets_the_weight_of_its_class(rank):
    y = np.eye(3)[[[0, 2, 1, 0]]]
    assert ClassWeights({0: 2.0}, output_rank=rank).weigh((X[:1], tf.constant(y)))[2].numpy().tolist() == [[2, 1, 1, 2]]


def test_weights_of_samples_may_be_a_column():
    weighed = ClassWeights({0: 2.0}).weigh((X, tf.constant(LABELS), tf.constant([[0.5], [0.5], [1.0], [1.0]])))
    assert weighed[2].numpy().tolist() == [1.0, 0.5, 1.0, 1.0]


SEGMENTATION = """
metrics = []
loss = "sparse_categorical_crossentropy"
class_weight = {0: 0.25, 1: 4.0}

def dataset(split):
    x = np.random.default_rng(samples[split]).normal(size=(samples[split], 4, 4, 1)).astype("float32")
    return x, (x[..., 0] > 1).astype("uint8")

def model():
    x = keras.Input([4, 4, 1])
    return keras.Model(x, keras.layers.Conv2D(2, 1, activation="softmax")(x))
"""


def test_a_net_that_labels_pixels_trains_with_them(experiment):
    losses = experiment([SEGMENTATION, "epochs = 6"]).history["loss"]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("jit_compile", [None, True])
def test_another_table_needs_no_other_graph(jit_compile):
    weights = ClassWeights(None, exchangeable=True)
    weigh = tf.function(lambda y: weights.weigh((X, y))[2], jit_compile=jit_compile)
    found = []
    for given in ({0: 2.0, 5: 4.0}, {2: 7.0}, None):
        weights.assign(given)
        found.append(weigh(tf.constant(LABELS)).numpy().tolist())
    assert found == [[2.0, 1.0, 4.0, 1.0], [1.0, 7.0, 1.0, 1.0], [1.0] * 4]
    assert weigh.experimental_get_tracing_count() == 1

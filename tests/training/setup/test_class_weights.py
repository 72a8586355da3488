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

"""Data, model and loss that do not go together are named before anything runs."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from experiments_manager.training.feeds.factory import make_feed
from experiments_manager.training.setup.fitting import keys_misfit, misfits

_X = np.zeros((6, 4), "float32")
_CLASSES = np.arange(6) % 3
SPARSE, ONE_HOT = "sparse_categorical_crossentropy", "categorical_crossentropy"


@pytest.fixture(scope="module")
def classifier():
    x = keras.Input((4,), name="point")
    return keras.Model(x, keras.layers.Dense(3, activation="softmax", name="colour")(x))


MISFITS = {
    "a class too many": ((_X, _CLASSES + 1), SPARSE, "classes 0 to 2.* got 3 in sample 2"),
    "a class below 0": ((_X, _CLASSES - 1), SPARSE, "got -1 in sample 0"),
    "names of classes": ((_X, np.array(["a", "b"] * 3)), SPARSE, "got text such as 'a'"),
    "one-hot labels": ((_X, np.eye(3)[_CLASSES]), SPARSE, "one-hot.*categorical_crossentropy"),
    "labels that should be one-hot": ((_X, _CLASSES), ONE_HOT, "numbers of classes.*sparse_categorical_crossentropy"),
    "too many numbers": ((_X, np.zeros((6, 4))), "mse", r"Expected shape \(3,\).*got \(4,\)"),
    "too few columns": ((_X[:, :3], _CLASSES), SPARSE, r"input 'point'.*shape \(4,\), got \(3,\)"),
    "text for numbers": ((_X.astype(str), _CLASSES), SPARSE, "Expected numbers, float32, got text"),
    "an input too many": (({"point": _X, "more": _X}, _CLASSES), SPARSE, None),
    "another input": (({"dot": _X, "more": _X}, _CLASSES), SPARSE, "has no 'point'"),
    "two inputs for one": (([_X, _X], _CLASSES), SPARSE, "has 2 parts. Expected 1"),
    "single samples": (tf.data.Dataset.from_tensor_slices((_X, _CLASSES)), SPARSE, r"Add `\.batch\(batch_size\)`"),
    "what fits": ((_X, _CLASSES), SPARSE, None),
    "a loss of the user's own": ((_X, _CLASSES + 7), lambda y, p: keras.ops.mean(p), None),
    "an ignored class": ((_X, _CLASSES - 1), keras.losses.SparseCategoricalCrossentropy(ignore_class=-1), None),
}


@pytest.mark.parametrize(("data", "loss", "message"), MISFITS.values(), ids=MISFITS)
def test_a_misfit_is_said_in_words_of_the_user(classifier, data, loss, message):
    feed = make_feed(lambda number: data, split="train", batch_size=2, seed=0)
    found = " ".join(misfits(classifier, feed, loss))
    assert re.search(message, found) if message else not found


def test_keys_that_name_no_output_are_named(classifier):
    assert "'color'" in keys_misfit(classifier, {"color": 1.0}, any_for_one=False)
    assert keys_misfit(classifier, {"colour": 1.0}, any_for_one=False) is None

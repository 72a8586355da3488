"""Vectors and what is known of each sample."""

import numpy as np
import pytest

from experiments_manager.events import Samples
from experiments_manager.monitoring.tensorboard.embeddings import (
    WIDEST_FLAT,
    as_vectors,
    embeddings_of,
    first_images,
    reduced,
)


def samples(y=None, x=None, layers=None, **outputs):
    count = len(next(iter(outputs.values())))
    x = np.zeros([count, 2]) if x is None else x
    return Samples("validation", x, y, outputs, layers or {})


def columns(points):
    return {name: list(values) for name, values in points.columns.items()}


SCORES = np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]], np.float32)


@pytest.mark.parametrize(
    ("shape", "width"),
    [((3,), 1), ((3, 1), 1), ((3, 5000), 5000), ((3, 8, 8), 64), ((3, 100, 64), 64), ((3, 40, 50, 7), 7)],
    ids=str,
)
def test_outputs_of_any_shape_become_one_vector_a_sample(shape, width):
    vectors = as_vectors(np.ones(shape, np.float16))
    assert vectors.shape == (3, width)
    assert vectors.dtype == np.float32
    assert (vectors == 1).all()


def test_large_maps_of_one_channel_are_averaged_over_blocks():
    maps = np.repeat(np.repeat(np.arange(6.0).reshape(1, 2, 3, 1), 64, axis=1), 64, axis=2)
    vectors = as_vectors(np.concatenate([maps, maps]))
    assert vectors.shape[0] == 2
    assert 3 < vectors.shape[1] <= WIDEST_FLAT
    assert set(vectors[0]) >= set(range(6))


def test_large_maps_are_averaged_over_all_but_samples_and_channels():
    output = np.random.default_rng(0).normal(size=(2, 40, 50, 7))
    np.testing.assert_allclose(as_vectors(output), output.mean(axis=(1, 2)), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("y", [np.array([0, 1, 0]), np.eye(2)[[0, 1, 0]]], ids=["numbers", "one-hot"])
def test_classes_are_told_by_their_names_with_what_was_predicted(y):
    points = embeddings_of(samples(y, animal=SCORES), ["cat", "dog"])
    assert columns(points) == {
        "label": ["cat", "dog", "cat"],
        "prediction": ["cat", "dog", "dog"],
        "wrong": [0, 0, 1],
        "index": [0, 1, 2],
    }


def test_the_columns_of_several_heads_are_told_apart_by_the_heads_names():
    y = {"animal": np.array([0, 1, 0]), "weight": np.array([[1.5], [2.5], [3.5]])}
    points = embeddings_of(samples(y, animal=SCORES, weight=np.array([[1.0], [2.0], [3.0]], np.float32)))
    assert list(points.columns) == [
        "animal label",
        "animal prediction",
        "animal wrong",
        "weight target",
        "weight prediction",
        "index",
    ]
    assert set(points.vectors) == {"animal", "weight"}


def test_several_labels_a_sample_are_listed():
    y = np.array([[1, 1, 0], [0, 0, 0]])
    points = embeddings_of(samples(y, tags=np.array([[0.9, 0.8, 0.1], [0.1, 0.2, 0.9]], np.float32)), ["a", "b", "c"])
    assert columns(points)["label"] == ["a, b", "none"]
    assert columns(points)["prediction"] == ["a, b", "c"]
    assert columns(points)["wrong"] == [0, 1]


def test_numbers_are_told_as_they_are():
    y = np.array([[1.5, 2.0], [3.0, 4.0]])
    points = embeddings_of(samples(y, place=y.astype("float32")))
    assert columns(points)["target 0"] == [1.5, 3.0]
    assert columns(points)["prediction 1"] == [2.0, 4.0]


def test_targets_that_belong_to_no_output_are_told_too():
    points = embeddings_of(samples({"name": np.array([b"anna", b"ben"], object)}, out=np.ones([2, 3], np.float32)))
    assert columns(points)["target_name"] == ["anna", "ben"]


def test_targets_that_are_too_much_for_a_table_are_left_out_and_named():
    points = embeddings_of(samples(np.ones([2, 8, 8, 1]), mask=np.full([2, 8, 8, 1], 0.4, np.float32)))
    assert list(points.columns) == ["index"]
    assert list(points.left_out) == ["the targets of mask"]
    assert points.vectors["mask"].shape == (2, 64)


def test_without_targets_samples_are_numbered():
    assert columns(embeddings_of(samples(None, out=np.ones([2, 3], np.float32)))) == {"index": [0, 1]}


def test_layers_that_were_asked_for_take_the_place_of_the_outputs():
    layers = {"features": np.ones([3, 5], np.float32), "words": np.array(["a", "b", "c"])}
    points = embeddings_of(samples(np.array([0, 1, 0]), layers=layers, animal=SCORES))
    assert {name: vectors.shape for name, vectors in points.vectors.items()} == {"features": (3, 5)}
    assert list(points.left_out) == ["words"]
    assert "prediction" in points.columns


def test_the_first_input_that_is_images_is_found():
    image = np.zeros([2, 8, 6, 3], np.uint8)
    assert first_images({"table": np.zeros([2, 4]), "image": image}) is image
    assert first_images([np.zeros([2, 8, 6]), np.zeros([2, 8, 6, 12])]) is None


def test_of_a_large_batch_little_is_kept():
    batch = (
        {"image": np.ones([2, 256, 128, 3], np.float32), "table": np.ones([2, 9])},
        [np.ones([2, 256, 256, 1], np.int32)],
        {"mask": np.ones([2, 256, 256, 5], np.float32), "place": np.ones([2, 4])},
        {"features": np.ones([2, 16, 16, 32], np.float32)},
    )
    x, (y,), outputs, layers = reduced(batch)
    assert (x.shape, x.dtype, y.shape) == ((2, 64, 32, 3), np.float32, (2, 0))
    assert {name: values.shape for name, values in outputs.items()} == {"mask": (2, 5), "place": (2, 4)}
    assert layers["features"].shape == (2, 32)
    points = embeddings_of(Samples("validation", x, y, outputs, layers))
    assert (list(points.vectors), list(points.columns)) == (["features"], ["index"])


def test_of_a_small_batch_all_that_tells_is_kept():
    batch = np.ones([3, 2]), [np.array([0, 1, 0])], {"animal": SCORES}, {}
    x, (y,), outputs, layers = reduced(batch)
    points = embeddings_of(Samples("validation", x, y, outputs, layers), ["cat", "dog"])
    assert columns(points)["label"] == ["cat", "dog", "cat"]
    assert columns(points)["index"] == [0, 1, 2]

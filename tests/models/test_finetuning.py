"""Nets that are frozen first and tuned then, and what is measured of classes."""

import keras
import numpy as np
import pytest

from experiments_manager.models.finetuning import (
    FrozenFirst,
    classification_metrics,
    pretrained_backbone,
    two_stages,
)


@pytest.fixture
def small():
    """A dense layer that stays as it is for two steps, and one upon it."""
    x = keras.Input((3,))
    below = keras.layers.Dense(4, name="below")(x)
    model = keras.Model(x, keras.layers.Dense(1, name="above")(FrozenFirst(2)(below)))
    model.compile("adam", "mse")
    return model


def test_what_is_frozen_first_learns_after_its_steps(small):
    x, y = np.ones((4, 3), np.float32), np.ones((4, 1), np.float32)
    kernels = [{name: np.array(small.get_layer(name).kernel) for name in ("below", "above")}]
    for _ in range(3):
        small.train_on_batch(x, y)
        kernels.append({name: np.array(small.get_layer(name).kernel) for name in ("below", "above")})
    changed = [
        {name: not np.array_equal(one[name], other[name]) for name in one}
        for one, other in zip(kernels, kernels[1:], strict=False)
    ]
    assert changed == [{"below": False, "above": True}, {"below": False, "above": True}, {"below": True, "above": True}]


def test_asking_does_not_count_as_a_step(small):
    for _ in range(5):
        small(np.ones((1, 3), np.float32), training=False)
    assert int(small.layers[2].count) == 0


def test_it_is_saved_and_loaded_with_its_stage(small, tmp_path):
    small.train_on_batch(np.ones((4, 3), np.float32), np.ones((4, 1), np.float32))
    small.save(tmp_path / "small.keras")
    layer = keras.saving.load_model(tmp_path / "small.keras").layers[2]
    assert (layer.steps, int(layer.count)) == (2, 1)


def test_a_backbone_takes_weights_from_a_file_and_is_frozen_first(tmp_path):
    options = {"alpha": 0.35}
    net = keras.applications.MobileNetV2(
        input_shape=(32, 32, 3), include_top=False, pooling="avg", weights=None, **options
    )
    net.save_weights(tmp_path / "net.weights.h5")
    picture = keras.Input((32, 32, 3))
    weights = str(tmp_path / "net.weights.h5")
    model = keras.Model(picture, pretrained_backbone(picture, weights=weights, frozen_steps=7, **options))
    pixels = np.random.default_rng(0).random((1, 32, 32, 3), np.float32)
    np.testing.assert_allclose(np.asarray(model(pixels)), np.asarray(net(2 * pixels - 1)), rtol=1e-4, atol=1e-5)
    assert model.get_layer("stage").steps == 7


def test_the_stages_have_their_learning_rates():
    schedule = two_stages(0.1, 0.001, 5)
    assert [float(schedule(step)) for step in (0, 4, 5, 100)] == pytest.approx([0.1, 0.1, 0.001, 0.001])


def test_each_class_has_its_recall():
    metrics = classification_metrics(["a", "b b", "c"], top=2)
    answers = np.array([[0.8, 0.2, 0], [0.4, 0.5, 0.1], [0.1, 0.3, 0.6], [0.2, 0.3, 0.5]], np.float32)
    for metric in metrics:
        metric.update_state(np.array([0, 0, 2, 1]), answers)
    expected = {"accuracy": 0.5, "top_2": 1.0, "recall_a": 0.5, "recall_b_b": 0.0, "recall_c": 1.0}
    assert {metric.name: float(metric.result()) for metric in metrics} == pytest.approx(expected)


def test_a_net_with_weights_keeps_its_averages_while_it_is_tuned(tmp_path):
    net = keras.applications.MobileNetV2(input_shape=(32, 32, 3), alpha=0.35, include_top=False, weights=None)
    net.save_weights(tmp_path / "net.weights.h5")
    image = keras.Input((32, 32, 3))
    x = pretrained_backbone(image, weights=str(tmp_path / "net.weights.h5"), alpha=0.35, frozen_steps=1)
    model = keras.Model(image, keras.layers.Dense(2)(x))
    model.compile("adam", "mse")
    images = np.random.default_rng(0).random((4, 32, 32, 3), np.float32)
    np.testing.assert_array_equal(model(images, training=True), model(images, training=False))
    model.save(tmp_path / "model.keras")
    for each in (model, keras.models.load_model(tmp_path / "model.keras")):
        inner = next(layer for layer in each.layers if isinstance(layer, keras.Model))
        before = {weight.path: np.array(weight) for weight in inner.weights}
        each.train_on_batch(images, np.ones((4, 2), np.float32))
        changed = [weight.path for weight in inner.weights if not np.array_equal(weight, before[weight.path])]
        assert not any("moving" in path for path in changed)
        assert any("kernel" in path for path in changed), "it is tuned"

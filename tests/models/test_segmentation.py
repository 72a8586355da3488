"""Parts of segmentation nets, and what measures them."""

import keras
import numpy as np
import pytest

from experiments_manager.models.segmentation import (
    class_map,
    conv_block,
    dense_block,
    iou_metrics,
    mobilenet_v2_encoder,
    segmentation_loss,
    unet_decoder,
)


def test_a_unet_gives_each_pixel_probabilities():
    image = keras.Input((64, 32, 3))
    deepest, seen = mobilenet_v2_encoder(image, levels=3)
    assert [each.shape[1:3] for each in (*seen, deepest)] == [(32, 16), (16, 8), (8, 4)]
    model = keras.Model(image, class_map(unet_decoder(deepest, seen, filters=(8, 16)), 5, scale=2))
    answers = np.asarray(model(np.random.default_rng(0).random((2, 64, 32, 3), np.float32)))
    assert answers.shape == (2, 64, 32, 5)
    np.testing.assert_allclose(answers.sum(axis=-1), 1, rtol=1e-5)


def test_the_encoder_takes_weights_from_a_file(tmp_path):
    net = keras.applications.MobileNetV2(input_shape=(32, 32, 3), alpha=0.35, include_top=False, weights=None)
    net.save_weights(tmp_path / "encoder.weights.h5")
    image = keras.Input((32, 32, 3))
    deepest, _ = mobilenet_v2_encoder(image, weights=str(tmp_path / "encoder.weights.h5"))
    encoder = keras.Model(image, deepest).get_layer("encoder")
    assert np.array_equal(encoder.get_layer("Conv1").kernel, net.get_layer("Conv1").kernel)
    assert encoder.get_layer("bn_Conv1").momentum == 0.999, "what was trained long keeps its averages"


def test_a_dense_block_appends_channels():
    x = keras.Input((8, 8, 4))
    model = keras.Model(x, dense_block(x, depth=3, growth=5))
    assert model.output.shape == (None, 8, 8, 4 + 15)
    values = np.random.default_rng(0).random((1, 8, 8, 4), np.float32)
    assert np.array_equal(np.asarray(model(values))[..., :4], values), "what came in stays"


def test_strides_make_it_coarser():
    assert conv_block(keras.Input((8, 8, 3)), 6, strides=2).shape == (None, 4, 4, 6)


def test_ignored_pixels_count_neither_for_the_loss_nor_for_the_scores():
    labels = np.array([[[0, 1], [255, 1]]], np.uint8)
    answers = np.full((1, 2, 2, 2), 0.2, np.float32)
    answers[0, [0, 0, 1, 1], [0, 1, 0, 1], [0, 1, 0, 0]] = 0.8
    expected = (2 * -np.log(0.8) - np.log(0.2)) / 3
    assert float(segmentation_loss()(labels, answers)) == pytest.approx(expected, rel=1e-5)
    metrics = iou_metrics(["sea", "dry land"])
    for metric in metrics:
        metric.update_state(labels, answers)
    scores = {metric.name: float(metric.result()) for metric in metrics}
    assert scores == pytest.approx({"mean_iou": 0.5, "iou_sea": 0.5, "iou_dry_land": 0.5})


def test_the_loss_takes_a_weight_a_sample_beside_ignored_pixels(tmp_path):
    generator = np.random.default_rng(0)
    image = keras.Input((4, 6, 3))
    model = keras.Model(image, class_map(image, 2, scale=1))
    model.compile("sgd", segmentation_loss())
    x, labels = generator.random((3, 4, 6, 3), np.float32), generator.integers(0, 2, (3, 4, 6))
    labels[0, :2] = 255
    is_valid, weights = labels != 255, np.array([1, 3, 0.5], np.float32)
    chosen = np.take_along_axis(model.predict(x, verbose=0), np.where(is_valid, labels, 0)[..., None], axis=-1)[..., 0]
    expected = np.sum(-np.log(chosen) * is_valid * weights[:, None, None]) / is_valid.sum()
    model.save(tmp_path / "model.keras")
    for each in (model, keras.models.load_model(tmp_path / "model.keras")):
        found = each.evaluate(x, labels, sample_weight=weights, batch_size=3, verbose=0)
        assert found == pytest.approx(expected, rel=1e-5)

"""Parts of a detector: its loss, its boxes, and how it is served."""

import io

import keras
import numpy as np
import pytest
from PIL import Image

from experiments_manager.models.detection import (
    DetectionLoss,
    ServedDetector,
    decode_detections,
    detection_head,
    generalised_iou,
    mask_prototypes,
    residual_encoder,
    top_down,
)

CELLS = 8
BOX = [0.125, 0.25, 0.625, 0.875]  # rows 1 to 5 and columns 2 to 7 of the cells; its middle is in cell (3, 4)


def perfect(boxes=((BOX, 1),), classes=2, sure=12.0):
    """The output that a detector should give for boxes and their classes, float32 [1, 8, 8, classes + 4]."""
    output = np.full((1, CELLS, CELLS, classes + 4), -sure, np.float32)
    for row in range(CELLS):
        for column in range(CELLS):
            (ymin, xmin, ymax, xmax), _ = boxes[0]
            y, x = row + 0.5, column + 0.5
            output[0, row, column, classes:] = np.array([y, x, -y, -x]) + CELLS * np.array([-ymin, -xmin, ymax, xmax])
    for (ymin, xmin, ymax, xmax), kind in boxes:
        output[0, int((ymin + ymax) / 2 * CELLS), int((xmin + xmax) / 2 * CELLS), kind] = sure
    return output


def truth(*boxes, padding=2):
    rows = [[*box, kind] for box, kind in boxes] + [[-1] * 5] * padding
    return np.array([rows], np.float32)


def loss_of(y_true, y_pred):
    return float(DetectionLoss()(y_true, y_pred))


def test_a_perfect_output_costs_nearly_nothing():
    assert loss_of(truth((BOX, 1)), perfect()) == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("y_true", [truth((BOX, 0)), truth(), truth((BOX, 1), ([0.5, 0, 1, 0.2], 0))])
def test_a_wrong_class_an_invented_and_a_missed_object_cost_much(y_true):
    assert loss_of(y_true, perfect()) > 5


def test_the_further_off_a_box_is_the_more_it_costs():
    costs = []
    for shift in (0, 0.5, 1, 2, 4, 6):
        output = perfect()
        output[..., 2] += shift
        costs.append(loss_of(truth((BOX, 1)), output))
    assert costs == sorted(costs)
    assert costs[0] < costs[1] - 0.01


def test_padding_changes_nothing():
    output = np.random.default_rng(0).normal(size=(1, CELLS, CELLS, 6)).astype("float32")
    assert loss_of(truth((BOX, 1), padding=1), output) == pytest.approx(loss_of(truth((BOX, 1), padding=9), output))


def test_an_image_without_objects_has_a_finite_loss_and_gradient():
    import tensorflow as tf

    output = tf.Variable(np.random.default_rng(0).normal(size=(1, CELLS, CELLS, 6)).astype("float32"))
    with tf.GradientTape() as tape:
        loss = DetectionLoss()(truth(), output)
    assert np.isfinite(loss)
    assert np.isfinite(tape.gradient(loss, output)).all()


def test_the_loss_is_made_again_from_its_configuration():
    loss = keras.losses.deserialize(keras.losses.serialize(DetectionLoss(3.0, 0.2, prototypes=8, mask_weight=2.0)))
    assert (loss.box_weight, loss.spread, loss.prototypes, loss.mask_weight) == (3.0, 0.2, 8, 2.0)


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ([0, 0, 2, 2], 1.0),
        ([0, 1, 2, 3], 1 / 3),
        ([0, 2, 2, 4], 0.0),
        ([0, 6, 2, 8], -0.5),
    ],
)
def test_generalised_iou_falls_below_nothing_with_the_distance(other, expected):
    one, other = np.array([[0, 0, 2, 2]], "float32"), np.array([other], "float32")
    assert float(generalised_iou(one, other)[0]) == pytest.approx(expected, abs=1e-5)


def test_boxes_are_decoded_under_the_names_of_the_object_detection_api():
    found = {name: value.numpy() for name, value in decode_detections(perfect(), [4, 9], max_boxes=3).items()}
    assert found["num_detections"].tolist() == [1]
    assert np.allclose(found["detection_boxes"][0, 0], BOX, atol=1e-6)
    assert found["detection_classes"].tolist() == [[9, 0, 0]]
    assert found["detection_scores"][0].tolist() == [pytest.approx(1, abs=1e-4), 0, 0]
    assert {value.dtype for value in found.values()} == {np.dtype("float32")}


def test_of_boxes_that_overlap_the_best_of_a_class_stays():
    output = perfect()
    output[0, 3, 5, 1] = 2.0  # the same box, seen from the next cell
    output[0, 3, 5, 0] = 1.0  # another class
    found = decode_detections(output, [4, 9], max_boxes=5)
    assert found["num_detections"].numpy().tolist() == [2]
    assert found["detection_classes"].numpy()[0, :2].tolist() == [9, 4]


COUNT = 3


def with_masks(output, coefficients, prototypes):
    """An output with coefficients [1, 8, 8, 3] and prototypes [1, 16, 16, 3], packed as the head does it."""
    parts = prototypes.reshape(1, CELLS, 2, CELLS, 2, COUNT).transpose(0, 1, 3, 2, 4, 5)
    return np.concatenate([output, coefficients, parts.reshape(1, CELLS, CELLS, 4 * COUNT)], axis=-1)


@pytest.fixture
def left_half():
    """An output whose mask is the left half of the image, and the same for what it should be."""
    prototypes = np.full((1, 2 * CELLS, 2 * CELLS, COUNT), -9.0, np.float32)
    prototypes[:, :, :CELLS, 1] = 9.0
    coefficients = np.zeros((1, CELLS, CELLS, COUNT), np.float32)
    coefficients[..., 1] = 1.0
    mask = np.zeros((2 * CELLS, 2 * CELLS), np.float32)
    mask[:, :CELLS] = 1.0
    rows = np.concatenate([truth((BOX, 1)), np.zeros((1, 3, mask.size), np.float32)], axis=-1)
    rows[0, 0, 5:] = mask.ravel()
    return with_masks(perfect(), coefficients, prototypes), rows


def test_a_perfect_mask_costs_nearly_nothing_and_its_opposite_much(left_half):
    output, rows = left_half
    loss = DetectionLoss(prototypes=COUNT)
    assert float(loss(rows, output)) == pytest.approx(0, abs=2e-3)
    rows[0, 0, 5:] = 1 - rows[0, 0, 5:]
    assert float(loss(rows, output)) == pytest.approx(9, abs=0.01), "a logit of 9 on the wrong side, all over the box"
    assert float(DetectionLoss(prototypes=COUNT, mask_weight=0.5)(rows, output)) == pytest.approx(4.5, abs=0.01)


def test_a_mask_counts_in_its_box_and_one_cell_beside_it(left_half):
    output, rows = left_half
    mask = rows[0, 0, 5:].reshape(2 * CELLS, 2 * CELLS).copy()
    for place, costs in (((0, 0), False), ((1, 5), True), ((10, 5), True), ((11, 5), False), ((5, 2), False)):
        changed = mask.copy()
        changed[place] = 0
        rows[0, 0, 5:] = changed.ravel()
        assert (float(DetectionLoss(prototypes=COUNT)(rows, output)) > 0.02) is costs, place


def test_images_without_objects_have_no_loss_of_masks_and_a_finite_gradient(left_half):
    import tensorflow as tf

    output = tf.Variable(left_half[0])
    rows = np.concatenate([truth(), np.zeros((1, 2, 4 * CELLS**2), np.float32)], axis=-1)
    with tf.GradientTape() as tape:
        loss = DetectionLoss(prototypes=COUNT)(rows, output)
    assert float(loss) == pytest.approx(loss_of(truth(), left_half[0][..., :6]))
    assert np.isfinite(tape.gradient(loss, output)).all()


def test_targets_that_do_not_fit_the_prototypes_are_told(left_half):
    output, rows = left_half
    with pytest.raises(ValueError, match=r"Each box has 5 values. Expected 261: .* Read .* mask_size=\(16, 16\)"):
        DetectionLoss(prototypes=COUNT)(rows[..., :5], output)
    with pytest.raises(ValueError, match="Each box has 261 values. Expected 5, since the loss has no prototypes"):
        DetectionLoss()(rows, output[..., :6])


def test_masks_are_served_as_they_are_seen_through_their_boxes(left_half):
    found = {name: value.numpy() for name, value in decode_detections(left_half[0], [4, 9], max_boxes=3).items()}
    assert found["detection_masks"].shape == (1, 3, 28, 28)
    columns = BOX[1] + (np.arange(28) + 0.5) / 28 * (BOX[3] - BOX[1])
    away = np.abs(columns - 0.5) > 0.5 / (2 * CELLS)
    assert np.allclose(found["detection_masks"][0, 0][:, away], (columns < 0.5)[away], atol=1e-3)
    assert not found["detection_masks"][0, 1:].any()


def test_each_detection_gets_the_mask_of_its_own_cell(left_half):
    output = left_half[0]
    output[0, 6, 1, :2] = 4.0, -12.0  # another object, whose box and mask are its own
    output[0, 6, 1, 2:6] = 1.0
    output[0, 6, 1, 6:9] = 0.0, -1.0, 0.0
    found = decode_detections(output, [4, 9], max_boxes=3)
    assert found["detection_classes"].numpy()[0, :2].tolist() == [9, 4]
    first, second = found["detection_masks"].numpy()[0, :2]
    assert first[14, 2] > 0.99
    assert second.max() < 0.01, "its coefficient is the opposite: all of its box is outside"


@pytest.fixture(scope="module")
def detector():
    image = keras.Input((32, 48, 3), dtype="uint8")
    stages = residual_encoder(keras.layers.Rescaling(1 / 255)(image), (4, 6, 8))
    return keras.Model(image, detection_head(top_down(stages[1:], 8), 2, filters=8))


def encoded(side, kind="PNG"):
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), "red").save(buffer, kind)
    return buffer.getvalue()


def test_a_cell_of_the_finest_stage_has_logits_and_distances(detector):
    output = detector(np.zeros((2, 32, 48, 3), np.uint8)).numpy()
    assert output.shape == (2, 8, 12, 6)
    assert (output[..., 2:] > 0).all()
    assert (output[..., :2] < -2).all(), "at first, objects are rare"


def test_encoded_images_of_any_size_are_served(detector):
    served = ServedDetector(detector, [1, 2], max_boxes=5, min_score=0.0)
    outputs = served.served_model(np.array([encoded(20), encoded(70, "JPEG"), b""], dtype=object))
    shapes = {name: value.shape.as_list() for name, value in outputs.items()}
    assert shapes == {
        "detection_boxes": [3, 5, 4],
        "detection_scores": [3, 5],
        "detection_classes": [3, 5],
        "num_detections": [3],
    }
    boxes = outputs["detection_boxes"].numpy()
    assert ((boxes >= 0) & (boxes <= 1)).all()


def test_a_head_with_prototypes_is_packed_as_it_is_parted():
    from experiments_manager.models.detection.masks import packed, split_masks

    features = keras.Input((4, 6, 5))
    fine = keras.Input((8, 12, 7))
    prototypes = mask_prototypes(features, fine, COUNT, filters=4)
    head = detection_head(features, 2, filters=8, prototypes=prototypes)
    both = keras.Model([features, fine], [head, prototypes, packed(prototypes)])
    generator = np.random.default_rng(0)
    inputs = [generator.normal(size=(2, *each.shape[1:])).astype("float32") for each in (features, fine)]
    output, shapes, _ = both(inputs)
    assert output.shape == (2, 4, 6, 6 + 5 * COUNT)
    boxes, coefficients, parted = split_masks(output, COUNT)
    assert (boxes.shape[-1], coefficients.shape[-1]) == (6, COUNT)
    assert np.array_equal(parted, shapes)


def test_bytes_that_are_no_image_are_refused(detector, tensorflow):
    served = ServedDetector(detector, [1, 2])
    with pytest.raises(tensorflow.errors.InvalidArgumentError, match="Unknown image file format"):
        served.served_model(np.array([b"no image"], dtype=object))

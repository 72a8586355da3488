"""What a model answered, told by the shapes of targets and outputs."""

import numpy as np
import pytest

from experiments_manager.events import Samples
from experiments_manager.monitoring.model_outputs import read_model_outputs


def read(y, outputs, names=None):
    outputs = outputs if isinstance(outputs, dict) else {"head": outputs}
    return read_model_outputs(Samples("validation", None, y, outputs, {}), names)


def probabilities(*shape):
    scores = np.random.default_rng(0).random(shape).astype("float32")
    return scores / scores.sum(-1, keepdims=True)


@pytest.mark.parametrize(
    ("truth", "outputs", "kind"),
    [
        (np.array([0, 1, 2]), probabilities(3, 4), "classes"),
        (np.array([[0], [1], [2]]), probabilities(3, 4), "classes"),
        (np.array([0.0, 1.0, 2.0]), probabilities(3, 4), "classes"),
        (np.eye(4)[:3], probabilities(3, 4), "classes"),
        (np.array([0, 1, 1]), probabilities(3, 2)[:, :1], "classes"),
        (np.array([0.0, 1.0, 1.0]), probabilities(3, 2)[:, 0], "classes"),
        (np.array([[1, 1, 0, 0]] * 3), probabilities(3, 4), "labels"),
        (np.zeros((3, 8, 8), int), probabilities(3, 8, 8, 4), "masks"),
        (np.zeros((3, 8, 8, 1), int), probabilities(3, 8, 8, 4), "masks"),
        (np.eye(2)[np.zeros((3, 8, 8), int)], probabilities(3, 8, 8, 2), "masks"),
        (np.tile([0, 1], 96).reshape(3, 8, 8, 1), probabilities(3, 8, 8, 1), "masks"),
        (np.zeros((3, 7), int), probabilities(3, 7, 4), "masks"),
        (np.array([0.5, 2.5, 3.0]), np.ones((3, 1)), "values"),
        (np.array([[0.5], [2.5], [3.0]]), np.ones((3, 1)), "values"),
        (np.zeros((3, 1)), np.ones((3, 1)), "values"),
        (np.full((3, 9, 2), 0.5), np.ones((3, 9, 2)), "series"),
        (np.full((3, 8, 8, 3), 0.5), np.ones((3, 8, 8, 3)), "pictures"),
    ],
)
def test_shapes_and_values_tell_what_is_answered(truth, outputs, kind):
    (answer,) = read(truth, outputs)
    assert answer.kind == kind
    assert answer.truth.shape == answer.predicted.shape


@pytest.mark.parametrize(
    ("truth", "outputs"),
    [
        (None, np.ones((3, 1))),
        (np.array([0, 1, 9]), probabilities(3, 4)),
        (np.ones((3, 5)), np.ones((3, 2))),
        (np.array(["a", "b", "c"]), np.ones((3, 1))),
        ([np.ones(3), np.ones(3)], np.ones((3, 1))),
    ],
)
def test_outputs_that_do_not_fit_their_targets_are_left_out(truth, outputs):
    assert read(truth, outputs) == []


def test_the_likeliest_class_is_predicted():
    (answer,) = read(np.array([1, 0]), np.array([[0.2, 0.8], [0.3, 0.7]]), ["cat", "dog"])
    assert answer.predicted.tolist() == [1, 1]
    assert answer.class_names == ("cat", "dog")
    assert answer.probabilities.tolist() == [[0.2, 0.8], [0.3, 0.7]]


def test_scores_that_are_no_probabilities_are_not_shown_as_such():
    (answer,) = read(np.array([1, 0]), np.array([[-2.0, 3.0], [4.0, 1.0]]))
    assert answer.predicted.tolist() == [1, 0]
    assert answer.probabilities is None


def test_one_number_says_yes_above_a_half_or_as_a_logit_above_zero():
    truth = np.array([0, 1, 1])
    (answer,) = read(truth, np.array([[0.4], [0.6], [0.2]]))
    assert answer.predicted.tolist() == [0, 1, 0]
    (answer,) = read(truth, np.array([[-0.4], [0.2], [3.0]]), ["defect"])
    assert answer.predicted.tolist() == [0, 1, 1]
    assert answer.class_names == ("not defect", "defect")


def test_pixels_that_do_not_count_do_not_hide_a_segmentation():
    truth = np.zeros((2, 8, 8), int)
    truth[0, 0, 0] = 255
    (answer,) = read(truth, probabilities(2, 8, 8, 3))
    assert answer.kind == "masks"
    assert answer.truth[0, 0, 0] == 255


def test_heads_find_their_targets_by_name_or_by_order():
    outputs = {"kind": probabilities(3, 4), "size": np.ones((3, 1))}
    kinds, sizes = np.array([0, 1, 2]), np.array([0.5, 1.5, 2.5])
    for y in ({"size": sizes, "kind": kinds}, (kinds, sizes), [kinds, sizes]):
        answers = read(y, outputs)
        assert [(answer.head, answer.kind) for answer in answers] == [("kind", "classes"), ("size", "values")]


def test_classes_without_a_name_have_a_number():
    (answer,) = read(np.array([0, 1, 2]), probabilities(3, 4), ["cat", "dog"])
    assert answer.class_names == ("cat", "dog", "2", "3")


def test_names_of_more_classes_than_there_are_belong_to_another_head():
    (answer,) = read(np.array([0, 1, 2]), probabilities(3, 4), list("abcdef"))
    assert answer.class_names == ("0", "1", "2", "3")


def test_outputs_in_bfloat16_are_read_as_the_others():
    import ml_dtypes

    (answer,) = read(np.array([0, 1, 2]), probabilities(3, 4).astype(ml_dtypes.bfloat16))
    assert answer.kind == "classes"
    assert answer.probabilities.dtype == np.float32

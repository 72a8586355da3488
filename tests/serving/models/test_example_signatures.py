"""Replies of classes and values, made of whatever arrays a model gives."""

import numpy as np
import pytest

from experiments_manager.protocol import messages
from experiments_manager.protocol.status import Code, ServingError
from experiments_manager.serving.models import example_signatures
from experiments_manager.serving.models.example_signatures import CLASSIFICATION, REGRESSION
from experiments_manager.serving.models.signatures import Signature, TensorSpec

LABELS = np.array([[b"a", b"b"], [b"c", b"d"]], object)
SCORES = np.float32([[1, 2], [3, 4]])


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        ({"classes": LABELS}, [[("a", 0), ("b", 0)], [("c", 0), ("d", 0)]]),
        ({"scores": SCORES}, [[("", 1), ("", 2)], [("", 3), ("", 4)]]),
        ({"classes": LABELS, "scores": SCORES}, [[("a", 1), ("b", 2)], [("c", 3), ("d", 4)]]),
    ],
)
def test_classes_have_labels_scores_or_both(outputs, expected):
    result = messages.ClassificationResponse().result
    example_signatures.fill_classifications(result, outputs, 2)
    assert [[(one.label, one.score) for one in found.classes] for found in result.classifications] == expected


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ({"scores": SCORES[0]}, r"^Expected Tensor shape: \[batch_size num_classes\] but got \[2\]$"),
        ({"classes": SCORES}, "^Expected classes Tensor of DT_STRING. Got: DT_FLOAT$"),
        ({"scores": SCORES.astype(np.float64)}, "^Expected scores Tensor of DT_FLOAT. Got: DT_DOUBLE$"),
        ({"scores": SCORES[:1]}, "^Expected scores output batch size of 2. Got: 1$"),
        ({"classes": LABELS[:, :1], "scores": SCORES}, r"should match in dim_size\(1\). Got 1 vs. 2$"),
    ],
)
def test_what_are_no_classes_is_refused_in_the_words_of_tensorflow_serving(outputs, message):
    with pytest.raises(ServingError, match=message) as refused:
        example_signatures.fill_classifications(messages.ClassificationResponse().result, outputs, 2)
    assert refused.value.code == Code.INVALID_ARGUMENT


@pytest.mark.parametrize("values", [np.float32([1, 2]), np.float32([[1], [2]])])
def test_values_may_have_a_second_dimension_of_one(values):
    result = messages.RegressionResponse().result
    example_signatures.fill_regressions(result, {"outputs": values}, 2)
    assert [entry.value for entry in result.regressions] == [1, 2]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (SCORES, r"^Expected output Tensor shape to be either \[batch_size\] or \[batch_size, 1\] but got \[2,2\]$"),
        (np.float32([1]), "^Input batch size did not match output batch size: 2 vs. 1$"),
        (np.int64([1, 2]), "^Expected output Tensor of DT_FLOAT.  Got: DT_INT64$"),
    ],
)
def test_what_are_no_values_is_refused_in_the_words_of_tensorflow_serving(values, message):
    with pytest.raises(ServingError, match=message) as refused:
        example_signatures.fill_regressions(messages.RegressionResponse().result, {"outputs": values}, 2)
    assert refused.value.code == Code.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("kind", "inputs", "outputs", "code", "message"),
    [
        (CLASSIFICATION, "a b", "q r s", Code.INVALID_ARGUMENT, "^Expected one input Tensor.$"),
        (REGRESSION, "a b", "q r s", Code.INVALID_ARGUMENT, "^Expected one input Tensor.$"),
        (
            CLASSIFICATION,
            "a",
            "q r s",
            Code.INVALID_ARGUMENT,
            "^Expected one or two output Tensors, found 3$",
        ),
        (REGRESSION, "a", "q r", Code.INVALID_ARGUMENT, "^Expected one output Tensor.$"),
        (CLASSIFICATION, "a", "q", Code.FAILED_PRECONDITION, "^No classification inputs found"),
        (REGRESSION, "a", "q", Code.FAILED_PRECONDITION, "^No regression inputs found"),
        (
            CLASSIFICATION,
            "inputs",
            "q",
            Code.FAILED_PRECONDITION,
            'at least one of "classes" or "scores"',
        ),
        (REGRESSION, "inputs", "q", Code.FAILED_PRECONDITION, "^No regression outputs found"),
    ],
)
def test_signatures_of_another_kind_are_refused_in_the_order_of_tensorflow_serving(
    kind, inputs, outputs, code, message
):
    specs = [
        {name: TensorSpec(f"{name}:0", "string", np.dtype(object), (None,)) for name in names.split()}
        for names in (inputs, outputs)
    ]
    with pytest.raises(ServingError, match=message) as refused:
        kind.check(Signature("s", kind.method_name, *specs))
    assert refused.value.code == code

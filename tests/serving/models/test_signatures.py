"""Which requests may share a batch, as far as a signature tells."""

import numpy as np
import pytest

from experiments_manager.serving.models.signatures import Signature, TensorSpec


def signature(inputs, output):
    def spec(shape):
        return TensorSpec("tensor:0", "float", np.dtype(np.float32), shape, 1)

    return Signature("serving_default", "", {name: spec(shape) for name, shape in inputs.items()}, {"y": spec(output)})


@pytest.mark.parametrize(
    ("own", "given", "count"),
    [
        ((None, 3), (2, 3), 2),
        ((None, 3), (0, 3), 0),
        ((None, 3), (2, 4), None),
        ((None, 3), (3,), None),
        ((None, 3), (), None),
        ((None, None), (2, 4), 2),
        ((None,), (2,), 2),
        (None, (2, 4), 2),
        (None, (), None),
        ((2, 3), (2, 3), None),
        ((), (), None),
    ],
)
def test_samples_are_counted_where_the_shape_is_that_of_the_signature(own, given, count):
    assert signature({"x": own}, (None,)).count_samples({"x": np.zeros(given, np.float32)}) == count


def test_all_inputs_must_count_the_same_samples():
    both = signature({"a": (None, 2), "b": (None,)}, (None,))
    a = np.zeros((3, 2), np.float32)
    assert both.count_samples({"a": a, "b": a[:, 0]}) == 3
    assert both.count_samples({"a": a, "b": a[:1, 0]}) is None


@pytest.mark.parametrize(
    ("inputs", "output", "batchable"),
    [
        ({"x": (None, 3)}, (None,), True),
        ({"x": (None, 3)}, None, True),
        ({"x": None}, (None, 1), True),
        ({"x": None}, None, False),
        ({"x": (None, 3), "z": None}, None, False),
        ({"x": (None, 3)}, (), False),
        ({"x": (4, 3)}, (None,), False),
        ({}, (None,), False),
    ],
)
def test_a_signature_counts_samples_where_its_inputs_or_its_outputs_show_it(inputs, output, batchable):
    assert signature(inputs, output).batchable is batchable

"""Aggregated arrays are variables again: in their own types, names and shapes."""

import ml_dtypes
import numpy as np
import pytest

pytest.importorskip("flwr")

from experiments_manager.federated.errors import FederationError
from experiments_manager.federated.message_records import cast_like


@pytest.mark.parametrize("dtype", ["float32", ml_dtypes.bfloat16])
def test_a_mean_is_cast_to_the_type_of_the_variable(dtype):
    cast = cast_like({"v": np.asarray(1.5)}, {"v": np.array(0, dtype)})["v"]
    assert (cast.dtype, cast.shape, float(cast)) == (dtype, (), 1.5)


def test_arrays_are_put_into_the_order_of_the_variables():
    variables = {"a": np.zeros(2), "b": np.ones(1)}
    assert list(cast_like(dict(reversed(variables.items())), variables)) == ["a", "b"]


def test_a_strategy_that_returns_other_names_is_told():
    with pytest.raises(FederationError, match="missing or new are: a, b"):
        cast_like({"a": np.zeros(2)}, {"b": np.zeros(2)})


def test_a_strategy_that_returns_another_shape_is_told():
    with pytest.raises(FederationError, match=r"changed the shape of a. Expected \(2,\), got \(3,\)"):
        cast_like({"a": np.zeros(3)}, {"a": np.zeros(2)})


@pytest.mark.parametrize(
    ("dtype", "values", "expected"),
    [
        ("int32", [1.6, -1.6, 2.5], [2, -2, 2]),
        ("uint8", [-3.0, 254.7, 300.0], [0, 255, 255]),
        ("int64", [2.0**63, -(2.0**70), 7.9], [2**63 - 1, -(2**63), 8]),
        ("bool", [0.5, 0.49, 1.0], [True, False, True]),
    ],
)
def test_what_a_strategy_returns_for_integers_becomes_the_nearest_one(dtype, values, expected):
    like = {"count": np.zeros(3, dtype)}
    cast = cast_like({"count": np.array(values)}, like)["count"]
    assert (cast.dtype, cast.tolist()) == (np.dtype(dtype), expected)

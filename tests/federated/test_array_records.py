"""Aggregated arrays are variables again: in their own types, names and shapes."""

import ml_dtypes
import numpy as np
import pytest

pytest.importorskip("flwr")

from experiments_manager.federated.array_records import cast_like
from experiments_manager.federated.errors import FederationError


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
    with pytest.raises(FederationError, match=r"a in another shape. Expected \(2,\), got \(3,\)"):
        cast_like({"a": np.zeros(3)}, {"a": np.zeros(2)})

import datetime
import enum
import json
from pathlib import Path

import numpy as np
import pytest

from experiments_manager.common.jsonable import to_jsonable


class Colour(enum.Enum):
    RED = "red"


class Plain:
    pass


class Unfriendly:
    def __repr__(self):
        raise RuntimeError("no")


def some_function():
    pass


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (float("nan"), "NaN"),
        (float("inf"), "Infinity"),
        (-float("inf"), "-Infinity"),
        (np.float32(0.5), 0.5),
        (np.float64("nan"), "NaN"),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (np.array([[1.0, np.inf]]), [[1.0, "Infinity"]]),
        (np.zeros((100, 100)), "ndarray of shape (100, 100)"),
        ((1, (2, 3)), [1, [2, 3]]),
        ({3, 1, 2}, [1, 2, 3]),
        ({1: Path("/a/b")}, {"1": "/a/b"}),
        (datetime.date(2024, 2, 29), "2024-02-29"),
        (Colour.RED, "red"),
        (Plain, f"{__name__}.Plain"),
        (some_function, f"{__name__}.some_function"),
        (Plain(), f"<{__name__}.Plain object>"),
        (Unfriendly(), "<Unfriendly>"),
        (b"\xff", "b'\\xff'"),
    ],
)
def test_values_become_the_nearest_that_json_has(value, expected):
    plain = to_jsonable(value)
    assert plain == expected
    assert type(plain) is type(expected)
    json.dumps(plain, allow_nan=False)


def test_a_structure_that_holds_itself_ends():
    values = []
    values.append(values)
    assert "[...]" in json.dumps(to_jsonable(values))


def test_what_float_reads_back_is_what_was_written():
    assert float(to_jsonable(-float("inf"))) == -float("inf")

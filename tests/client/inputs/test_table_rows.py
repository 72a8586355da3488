"""Tables: which columns an input takes, and what is said of a header that does not fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from experiments_manager.client.inputs.request_sample import SourceError
from experiments_manager.client.inputs.table_rows import read_table
from experiments_manager.client.model_info import ModelInfo, TensorInfo


def model(**shapes: tuple[int | None, ...] | None) -> ModelInfo:
    """A model with inputs of float32 of these shapes."""
    return ModelInfo("model", 1, {name: TensorInfo(np.dtype("float32"), shape) for name, shape in shapes.items()}, {})


LEFT = model(left=(None, 3))
BOTH = model(left=(None, 3), right=(None, 1))
IMAGE = model(pixels=(None, 28, 28, 1))
OPEN = model(left=(None, None))


def read(header: str, info: ModelInfo, **options: Any) -> list[Any]:
    row = ",".join(str(number) for number in range(header.count(",") + 1))
    return list(read_table([header + "\n", row + "\n"], info, "t.csv", **options))


@pytest.mark.parametrize(
    ("header", "info", "expected"),
    [
        ("left_0,left_1,left_2", LEFT, [0, 1, 2]),
        ("left_2,left_0,left_1", LEFT, [1, 2, 0]),
        (" left_0 , left_1,left_2 ", LEFT, [0, 1, 2]),
        ("left_00,left_01,left_02", LEFT, [0, 1, 2]),
        ("left_3,left_1,left_2", LEFT, [1, 2, 0]),  # counted from 1
        ("a,b,c", LEFT, [0, 1, 2]),
        ("left_1,left_0", OPEN, [1, 0]),
        ("left_1,left_2", OPEN, [0, 1]),
        ("left", OPEN, [0]),
        ("left", model(left=(None,)), 0),
        ("left_0", model(left=(None, 1)), [0]),
    ],
)
def test_columns_are_taken_in_the_order_of_their_numbers(header: str, info: ModelInfo, expected: Any) -> None:
    (sample,) = read(header, info)
    assert sample["left"].tolist() == [expected]


def test_an_input_may_be_called_like_a_numbered_column() -> None:
    (sample,) = read("x_0,x", model(x=(None,), x_0=(None,)))
    assert (sample["x"].tolist(), sample["x_0"].tolist()) == ([1], [0])


EXPECTED = r"left \(float32 \[any, 3\]\)\. Expected left_0, left_1, left_2, each once; got "


@pytest.mark.parametrize(
    ("header", "info", "message"),
    [
        ("left_0,left_1,left_3", LEFT, rf"{EXPECTED}left_0, left_1, left_3\."),
        ("left_1,left_2", LEFT, rf"{EXPECTED}left_1, left_2\."),
        ("left_1,left_2,left_4", LEFT, EXPECTED),
        ("left_2,left_3,left_4", LEFT, EXPECTED),
        ("left_0,left_1,left_2,left_3", LEFT, EXPECTED),
        ("left_0,left_1,left_1", LEFT, EXPECTED),
        ("left,left,left", LEFT, EXPECTED),
        ("left,other,more", LEFT, rf"{EXPECTED}left\."),
        ("left,left_0,left_1", LEFT, EXPECTED),
        ("left_0,left_2", OPEN, r"left \(.*\)\. Expected left_0, left_1, …, each once; got left_0, left_2\."),
        ("left_0,left_999999999999", OPEN, r"got left_0, left_999999999999\."),
        ("pixels_0,pixels_1", IMAGE, r"pixels \(.*\)\. Expected pixels_0, pixels_1, …, pixels_783, each once"),
        ("left_0,left_1,left_2,label", BOTH, r"right \(.*\)\. Expected right, each once; got left_0, .*, label\."),
        ("Left_0,Left_1,Left_2,right", BOTH, r"Did you mean 'left'\?"),
        ("lft_0,lft_1,lft_2,right", BOTH, r"Did you mean 'left'\?"),
        ("LEFT_1,LEFT_0,LEFT_2", LEFT, r"Did you mean 'left'\?"),
    ],
)
def test_a_header_that_does_not_fit_says_why(header: str, info: ModelInfo, message: str) -> None:
    with pytest.raises(SourceError, match=f"^t.csv: the header does not fit the input .*{message}"):
        read(header, info)


def test_columns_that_belong_to_no_input_are_reported_once(caplog: Any) -> None:
    reported: set[str] = set()
    for _ in range(2):
        (sample,) = read("id,left_0,left_1,left_2,right,", BOTH, reported=reported)
        assert (sample["left"].tolist(), sample["right"].tolist()) == ([[1, 2, 3]], [[4]])
    read("label,left_0,left_1,left_2", LEFT)
    assert [record.getMessage() for record in caplog.records] == [
        "t.csv: columns that belong to no input are left out: id, number 6.",
        "t.csv: columns that belong to no input are left out: label.",
    ]


def test_empty_cells_behind_a_row_are_no_fault_but_values_are() -> None:
    rows = ["left_0,left_1,left_2\n", "1,2,3,\n"]
    assert [sample["left"].tolist() for sample in read_table(rows, LEFT, "t.csv")] == [[[1, 2, 3]]]
    with pytest.raises(
        SourceError, match="t.csv, row 1: invalid number of cells. Expected 3, as in the first line; got 4"
    ):
        list(read_table([rows[0], "name,1,2,3\n"], LEFT, "t.csv"))


def test_text_without_a_header_keeps_its_spaces() -> None:
    info = ModelInfo("model", 1, {"text": TensorInfo(np.dtype(object), (None, 1))}, {})
    samples = list(read_table([" hello\n", "bye\n"], info, "t.csv"))
    assert [sample["text"].tolist() for sample in samples] == [[[" hello"]], [["bye"]]]

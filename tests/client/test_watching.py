import numpy as np
import pytest

from experiments_manager.client.watching import value_text

DIGITS = [str(digit) for digit in range(10)]


@pytest.mark.parametrize(
    ("value", "names", "text"),
    [
        (np.float32([[0.25]]), (), "0.25"),
        (np.float32(3), (), "3"),
        (np.array([[1, 2, 3], [4, 5, 6]]), (), "1, 2, 3"),
        (np.eye(10, dtype=np.float32)[None, 7] * 0.5, DIGITS, "7 (0.5)"),
        (np.full((1, 10), np.nan, np.float32), DIGITS, "nan at [0], the largest of 10"),
        (np.arange(12.0).reshape(1, 3, 4), (), "11 at [2, 3], the largest of 12"),
        (np.array([[b"caf\xc3\xa9"]], object), (), "café"),
        (np.array([[True]]), (), "1"),
        (np.zeros((0, 4)), (), "nothing"),
    ],
)
def test_a_value_is_told_in_few_words(value, names, text):
    assert value_text(value, names) == text

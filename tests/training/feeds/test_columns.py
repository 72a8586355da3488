import numpy as np
import pytest

from experiments_manager.training.errors import DataError
from experiments_manager.training.feeds.array_feed import as_arrays

pd = pytest.importorskip("pandas")
_TABLE = pd.DataFrame({"age": [31.0, 45.0, 28.0], "town": ["Bonn", "Trier", "Kiel"], "height": [1.7, 1.8, 1.6]})
_Y = np.arange(3)
_HOLED = np.array([[1.0, 2.0], [3.0, "n/a"], [4.0, 5.0]], dtype=object)

REFUSED = {
    "a table with a column of text": ((_TABLE, _Y), "column 'town' .*e.g. 'Bonn' in row 0"),
    "an array of objects with a text in it": ((_HOLED, _Y), "row 1, column 1 is text: 'n/a'"),
    "lists of different lengths": (([[1.0], [1.0, 2.0]], _Y), "row 0 has 1, row 1 has 2.*pad_sequences"),
    "arrays of different shapes": (
        (np.array([np.zeros(2), np.zeros(3), np.zeros(2)], dtype=object), _Y),
        r"row 0 \(2,\), row 1 \(3,\)",
    ),
    "dates": ((np.zeros((3, 1), "datetime64[D]"), _Y), "holds dates.*1970-01-01"),
    "a plain list of numbers": (([1, 2, 3], _Y), r"a list of 3 values.*np\.array"),
    "keys that are no texts": (({"a": np.zeros(3), 1: np.zeros(3)}, _Y), "a dictionary by 'a', 1"),
    "a generator": ((iter([1]), _Y), "is a list_iterator"),
    "no x": ((None, _Y), "has no x"),
    "records": ((np.zeros(3, [("age", "f4")]), _Y), "fields age"),
}


@pytest.mark.parametrize(("data", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_number_is_named_with_its_place_and_an_example(data, message):
    with pytest.raises(DataError, match=message):
        as_arrays(data, "train")


def test_numbers_that_python_keeps_as_objects_and_columns_of_text_alone_are_taken():
    x, y = as_arrays((np.array([[1, 2.5], [3, 4.5]], dtype=object), np.array(["a", "b"], dtype=object)), "train")
    assert x.numpy().tolist() == [[1.0, 2.5], [3.0, 4.5]]
    assert y.numpy().tolist() == [b"a", b"b"]
    assert as_arrays((_TABLE[["age", "height"]], _Y), "train")[0].shape == (3, 2)

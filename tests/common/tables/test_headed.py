"""The one reader of tables with a header."""

import pytest

from experiments_manager.common.tables.headed import read_rows, rows_of_split
from experiments_manager.common.tables.problems import DataFileError, Problems


@pytest.fixture
def read(tmp_path):
    """Gives the rows of a text with columns `a` and `b`, and what is said of it."""

    def reader(content, needed=("a", "b")):
        path, problems = tmp_path / "table.csv", Problems()
        if content is not None:
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        rows = read_rows(path, needed, problems)
        try:
            problems.refuse()
        except DataFileError as error:
            return rows, str(error).replace(f"{path}", "table.csv")
        return rows, ""

    return reader


def test_rows_have_their_lines_and_no_spaces_around_cells(read):
    rows, said = read('\ufeffb , a\n 1,2 \n\n,,\n"x\ny",4\n')
    assert rows == [(2, {"b": "1", "a": "2"}), (6, {"b": "x\ny", "a": "4"})]
    assert said == ""


def test_lines_of_another_length_are_told_and_the_others_are_read(read):
    rows, said = read("a,b\n1\n1,2\n1,2,3\n1,2,,\n")
    assert [line for line, _ in rows] == [3, 5]
    assert said.splitlines() == [
        "2 problems:",
        "table.csv, line 2: it has 1 fields. Expected 2, as the header has. Put values with commas into quotes.",
        "table.csv, line 4: it has 3 fields. Expected 2, as the header has. Put values with commas into quotes.",
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "table.csv: not found. Expected a CSV file with the columns a, b."),
        ("", "table.csv: it has no column 'a', 'b'. Its columns are none."),
        ("a,weight\n1,2\n", "table.csv: it has no column 'weigth'. Its columns are a, weight. Did you mean `weight`?"),
        ("a;b\n1;2\n", "They are parted by semicolons; commas are needed."),
        ("a,b,a\n1,2,3\n", "table.csv: it has 'a' twice in its header."),
        ("a,b\n", "table.csv: it has no rows below its header."),
        ('a,b\n1,"2\n3,4\n', "table.csv, line 3: it cannot be read: unexpected end of data. Expected comma-separated"),
        (b"a,b\n1,2\n\xff,3\n", "table.csv, line 3: it is not UTF-8."),
    ],
)
def test_what_is_no_such_table_is_said_with_its_place(read, content, said):
    rows, told = read(content, ("a", "weigth") if "weight" in str(content) else ("a", "b"))
    assert rows == []
    assert said in told


def test_a_split_that_no_row_has_is_answered_with_the_known_ones(tmp_path):
    rows, problems = [(2, {"split": "train"}), (3, {"split": "test"})], Problems()
    assert rows_of_split(tmp_path, rows, "split", "test", problems) == rows[1:]
    assert rows_of_split(tmp_path, rows, "split", None, problems) == rows
    assert len(problems) == 0
    assert rows_of_split(tmp_path, rows, "split", "validation", problems) == []
    with pytest.raises(DataFileError, match="no row has the split 'validation'. Expected one of test, train."):
        problems.refuse()

"""Tables of labels and what can be wrong with them."""

import re

import pytest

from experiments_manager.data import DataFileError, label_indices, read_label_table

ROWS = "file,label,split\na.png,cat,train\nb.png,dog,train\nc.png,cat,test\n"


@pytest.fixture
def table(tmp_path):
    def write(text):
        path = tmp_path / "labels.csv"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_the_rows_of_a_split_come_in_the_order_of_the_file(table):
    rows = read_label_table(table(ROWS), "train")
    assert (rows.files, rows.labels, rows.rows) == (["a.png", "b.png"], ["cat", "dog"], [2, 3])


def test_spaces_around_words_are_no_part_of_them(table):
    rows = read_label_table(
        table("file , label,split\na.png ,cat , train\nb.png,dog,train \nc.png,cat,test\n"), "train"
    )
    assert (rows.files, rows.labels) == (["a.png", "b.png"], ["cat", "dog"])


def test_a_column_that_is_there_twice_is_refused(table):
    with pytest.raises(DataFileError, match="it has 'label' twice in its header. Expected each column once."):
        read_label_table(table("file,label,label\na.png,1,2\n"))


def test_a_file_of_two_labels_or_two_splits_is_refused(table):
    path = table("file,label,split\na.png,cat,train\n./a.png,cat,test\nb.png,cat,train\nb.png,dog,train\n")
    with pytest.raises(DataFileError) as caught:
        read_label_table(path, "train")
    assert str(caught.value).splitlines()[1:] == [
        f"{path}, line 3: a.png is 'test' here, and 'train' in line 2. Expected one of them. Remove a row.",
        f"{path}, line 5: b.png is 'dog' here, and 'cat' in line 4. Expected one of them. Remove a row.",
    ]


def test_a_file_may_be_there_twice(table):
    path = table("file,label,split\na.png,cat,train\na.png,cat,train\na.png,cat,small\n")
    assert read_label_table(path, "train").rows == [2, 3]


def test_all_rows_that_are_wrong_are_said_at_once(table):
    with pytest.raises(DataFileError, match=r"line 2, column 'label': nothing(?s:.*)line 4, column 'file': nothing"):
        read_label_table(table("file,label\na.png,\nb.png,1\n,1\n"))
    rows = read_label_table(table("file,label\na.png,cta\nb.png,dog\nc.png,dgo\n"))
    with pytest.raises(DataFileError, match=r"line 2: label 'cta'(?s:.*)line 4: label 'dgo'"):
        label_indices(rows, ["cat", "dog"])


def test_without_a_split_all_rows_are_read(table):
    assert read_label_table(table("file,label\na.png,1\nb.png,0\n")).files == ["a.png", "b.png"]


def test_columns_can_have_other_names_and_order(table):
    rows = read_label_table(table("species,path\noak,1.jpg\n"), file_column="path", label_column="species")
    assert (rows.files, rows.labels) == (["1.jpg"], ["oak"])


def test_the_mark_that_spreadsheets_put_before_the_first_column_is_no_part_of_its_name(table):
    assert read_label_table(table("\ufefffile,label\na.png,1\n")).files == ["a.png"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("file,class\na.png,1\n", "has no column 'label'. Its columns are file, class."),
        ("file,label\n", "has no rows below its header."),
        ("", "it has no column 'file', 'label'. Its columns are none."),
        ("file,label\na.png,1\nb.png,\n", "line 3, column 'label': nothing there. Fill it in, or remove the row."),
        ("file,label\na.png\n", "line 2: it has 1 fields. Expected 2, as the header has."),
    ],
)
def test_a_table_that_is_not_whole_is_refused(table, text, problem):
    with pytest.raises(DataFileError, match=re.escape(problem)):
        read_label_table(table(text))


def test_an_unknown_split_is_answered_with_the_known_ones(table):
    with pytest.raises(DataFileError, match="no row has the split 'validation'. Expected one of test, train."):
        read_label_table(table(ROWS), "validation")


def test_a_missing_table_says_what_was_expected(tmp_path):
    with pytest.raises(DataFileError, match="not found. Expected a CSV file with the columns file, label."):
        read_label_table(tmp_path / "labels.csv")


def test_a_file_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "labels.csv").write_bytes(b"file,label\n\xff\xfe\x00,1\n")
    with pytest.raises(DataFileError, match="line 2: it is not UTF-8"):
        read_label_table(tmp_path / "labels.csv")


def test_words_become_their_place_in_class_names(table):
    indices = label_indices(read_label_table(table(ROWS)), ["dog", "cat"])
    assert indices.tolist() == [1, 0, 1]
    assert indices.dtype == "int32"


def test_whole_numbers_are_indices_with_and_without_class_names(table):
    rows = read_label_table(table("file,label\na.png,1\nb.png,0\n"))
    assert label_indices(rows).tolist() == [1, 0]
    assert label_indices(rows, ["cat", "dog"]).tolist() == [1, 0]


def test_a_number_that_is_a_class_name_is_that_class(table):
    rows = read_label_table(table("file,label\na.png,7\nb.png,3\n"))
    assert label_indices(rows, ["3", "7"]).tolist() == [1, 0]
    assert label_indices(rows, ["03", "none", "07"]).tolist() == [2, 0]


def test_spaces_and_open_quotes_lose_no_row(table):
    rows = read_label_table(table("file,label,split\na.png,cat ,train \nb.png ,dog,train\n"), "train")
    assert rows.files == ["a.png", "b.png"]
    assert rows.labels == ["cat", "dog"]
    with pytest.raises(DataFileError, match="line 4: it cannot be read: .*with their quotes closed"):
        read_label_table(table('file,label\na.png,cat\n"b.png,dog\nc.png,"cat\n'))


@pytest.mark.parametrize(
    ("label", "class_names", "problem"),
    [
        (
            "catt",
            ["cat", "dog"],
            "line 2: label 'catt' is not in class_names. Expected one of cat, dog. Did you mean `cat`?",
        ),
        ("2", ["cat", "dog"], "line 2: label '2' is not in class_names."),
        ("0", ["1", "2"], "line 2: label '0' is not in class_names. Expected one of 1, 2."),
        ("4294967296", None, "line 2: label '4294967296' is no whole number from 0."),
        ("-1", None, "line 2: label '-1' is no whole number from 0."),
        ("cat", None, "Give class_names to turn words into numbers."),
    ],
)
def test_a_label_that_is_no_class_is_refused_with_its_row(table, label, class_names, problem):
    rows = read_label_table(table(f"file,label\na.png,{label}\n"))
    with pytest.raises(DataFileError, match=re.escape(problem)):
        label_indices(rows, class_names)

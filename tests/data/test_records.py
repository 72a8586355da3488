"""Tables with missing values and the images of their rows are read, and all that is wrong is said at once."""

import numpy as np
import pytest
from PIL import Image

from experiments_manager.data import DataFileError, read_record_images, read_records


@pytest.fixture
def table(tmp_path):
    """Writes a table of these lines."""

    def write(*lines):
        path = tmp_path / "table.csv"
        path.write_text("\n".join(lines), encoding="utf-8")
        return path

    return write


def test_missing_numbers_are_nan_and_missing_words_are_below_zero(table):
    path = table("age,colour", "1.5,red", ",blue", "NA,?", "-2,NaN")
    records = read_records(path, numbers=["age"], categories={"colour": ["blue", "red"]})
    np.testing.assert_array_equal(records.numbers["age"], np.array([1.5, np.nan, np.nan, -2], np.float32))
    assert records.categories["colour"].tolist() == [1, 0, -1, -1]
    assert len(records) == 4


def test_a_photograph_is_turned_as_the_camera_noted(table, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (5, 3)).save(tmp_path / "a.png", exif=exif)
    records = read_records(table("file", "a.png"), file_column="file")
    assert read_record_images(records, tmp_path).shape == (1, 5, 3, 3)


def test_columns_are_put_side_by_side(table):
    records = read_records(table("a,b", "1,2", "3,4"), numbers=["a", "b"])
    assert records.matrix(["b", "a"]).tolist() == [[2, 1], [4, 3]]


def test_only_the_rows_of_the_split_are_read(table):
    path = table("a,split", "1,train", "words,test", "3,train")
    records = read_records(path, "train", numbers=["a"])
    assert records.numbers["a"].tolist() == [1, 3]
    assert records.lines == [2, 4]


def test_spaces_around_the_name_of_a_split_are_no_part_of_it(table):
    assert read_records(table("a,split", "1,train ", "2,test", "3,train"), "train", numbers=["a"]).lines == [2, 4]


def test_all_wrong_values_are_said_at_once_with_their_lines(table):
    path = table("a,colour,y", "one,red,1", "inf,rde,", "3,red,3")
    with pytest.raises(DataFileError) as caught:
        read_records(path, numbers=["a", "y"], categories={"colour": ["blue", "red"]}, required=["y"])
    message = str(caught.value)
    assert "line 2, column 'a': 'one' is no number" in message
    assert "line 3, column 'a': 'inf' is not finite" in message
    assert "line 3, column 'colour': 'rde' is none of blue, red. Did you mean" in message
    assert "line 3, column 'y': nothing there" in message
    assert "line 4" not in message


def test_words_that_were_given_are_not_missing(table):
    path = table("damage,side", "none,left", "mild,NA", "None,")
    words = {"damage": ["none", "mild"], "side": ["left"]}
    records = read_records(path, categories=words)
    assert records.categories["damage"].tolist() == [0, 1, -1]
    assert records.categories["side"].tolist() == [0, -1, -1]


def test_spaces_about_a_split_lose_no_row(table):
    assert len(read_records(table("a,split", "1,train", "2,train ", "3, train"), "train", numbers=["a"])) == 3


def test_more_fields_than_names_do_not_move_the_columns(table):
    with pytest.raises(DataFileError, match="line 3: it has 3 fields. Expected 2, as the header has. Put values"):
        read_records(table("a,b", "1,2", "1,5,2"), numbers=["a", "b"])
    assert len(read_records(table("a,b", "1,2,,", "1,2,"), numbers=["a", "b"])) == 2, "empty ones move nothing"


def test_an_open_quote_swallows_no_rows(table):
    with pytest.raises(DataFileError, match="cannot be read: unexpected end of data"):
        read_records(table("file,b", '"x.png,2', "y.png,4", "z.png,6"), numbers=["b"], file_column="file")


def test_a_name_stands_for_one_column(table):
    with pytest.raises(DataFileError, match="has 'a' twice in its header"):
        read_records(table("a,a", "1,2"), numbers=["a"])


def test_a_required_column_has_to_be_there(table):
    with pytest.raises(DataFileError, match="no column 'weigth'.*Did you mean `weight`"):
        read_records(table("weight", "1"), numbers=["weight"], required=["weigth"])


def test_numbers_have_no_underscores(table):
    with pytest.raises(DataFileError, match="'1_000' is no number"):
        read_records(table("a", "1_000"), numbers=["a"])


def test_numbers_beyond_float32_are_told(table):
    with pytest.raises(DataFileError, match="line 2, column 'a': '1e39' is not finite. Expected a number below 3e38"):
        read_records(table("a", "1e39"), numbers=["a"])


def test_a_table_with_many_problems_says_how_many_more_there_are(table):
    with pytest.raises(DataFileError, match="^100 problems:(?s:.*)and 50 problems more"):
        read_records(table("a", *["x"] * 100), numbers=["a"])


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["b,c", "1,2"], "no column 'a'"),
        (["a,split"], "no rows"),
        (["a,split", "1,trian"], "no row has the split 'train'. Expected one of trian"),
    ],
)
def test_a_table_that_holds_something_else_is_refused(table, lines, said):
    with pytest.raises(DataFileError, match=said):
        read_records(table(*lines), "train", numbers=["a"])


def test_a_table_that_is_missing_or_no_text_is_named(tmp_path):
    with pytest.raises(DataFileError, match=r"none\.csv: not found"):
        read_records(tmp_path / "none.csv", numbers=["a"])
    (tmp_path / "latin.csv").write_bytes(b"a\n\xff\xfe\n")
    with pytest.raises(DataFileError, match="Expected a CSV file in UTF-8"):
        read_records(tmp_path / "latin.csv", numbers=["a"])


def test_the_image_of_each_row_is_read_in_its_order(table, tmp_path):
    for name, grey in (("a.png", 0), ("b.png", 255)):
        Image.new("L", (6, 5), grey).save(tmp_path / name)
    records = read_records(table("file", "b.png", "a.png"), file_column="file")
    images = read_record_images(records, tmp_path, channels=1)
    assert images.shape == (2, 5, 6, 1)
    assert images[:, 0, 0, 0].tolist() == [1, 0]
    assert read_record_images(records, tmp_path, size=(2, 3)).shape == (2, 2, 3, 3)


def test_all_images_that_are_missing_damaged_or_of_other_sizes_are_said_at_once(table, tmp_path):
    Image.new("L", (6, 5)).save(tmp_path / "good.png")
    Image.new("L", (7, 5)).save(tmp_path / "wide.png")
    (tmp_path / "torn.png").write_bytes((tmp_path / "good.png").read_bytes()[:40])
    records = read_records(table("file", "good.png", "gone.png", "torn.png", "wide.png"), file_column="file")
    with pytest.raises(DataFileError) as caught:
        read_record_images(records, tmp_path, channels=1)
    message = str(caught.value)
    assert "line 3: image" in message
    assert "gone.png not found" in message
    assert "line 4" in message
    assert "torn.png cannot be read" in message
    assert "line 5: wide.png is 5x7 (height x width). Expected 5x6 as good.png" in message

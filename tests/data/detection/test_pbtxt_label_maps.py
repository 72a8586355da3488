"""Label maps in the text format of the TensorFlow object detection API."""

import pytest

from experiments_manager.data import DataFileError
from experiments_manager.data.detection import read_label_map
from experiments_manager.data.detection.pbtxt_label_maps import label_map_text


def test_what_is_written_is_read(tmp_path):
    categories = {1: "cat", 7: 'a "large" dog {x}', 9: "élan", 10: "two\nlines\tand \\n", 11: "\x01"}
    (tmp_path / "map").write_text(label_map_text(categories), encoding="utf-8")
    assert read_label_map(tmp_path / "map") == categories


def test_the_forms_of_other_programs_are_read(tmp_path):
    text = """# COCO
    item { name: '/m/01g317' id: 1 display_name: "person" }
    item {
      id: 2
      name: 'dog'
    }
    """
    (tmp_path / "map").write_text(text)
    assert read_label_map(tmp_path / "map") == {1: "person", 2: "dog"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("person\ndog\n", "is no label map"),
        ("", "has no items"),
        ("item { id: 0 name: 'cat' }", "item 1 has no id from 1"),
        ("item { id: 1 }", "item 1 has no id from 1, or no name"),
        ("item { id: 1 name: 'a' } item { id: 1 name: 'b' }", "the id 1 is there twice"),
    ],
)
def test_what_is_none_is_refused(tmp_path, text, message):
    (tmp_path / "map").write_text(text)
    with pytest.raises(DataFileError, match=message):
        read_label_map(tmp_path / "map")

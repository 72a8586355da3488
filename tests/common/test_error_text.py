import shutil

import pytest

from experiments_manager.common.error_text import reason


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("too short.\nand more"), "too short"),
        (ValueError(), "ValueError"),
        (
            shutil.Error([("a", "b", "[Errno 28] No space left on device: 'b'"), ("c", "d", "[Errno 28] x")]),
            "No space left on device: 'b'",
        ),
        (shutil.Error("`a` and `b` are the same file"), "`a` and `b` are the same file"),
    ],
)
def test_an_error_is_told_in_one_line_for_people(error, said):
    assert reason(error) == said


def test_a_folder_that_could_not_be_copied_says_why_and_no_list_of_tuples(tmp_path):
    (tmp_path / "from").mkdir()
    (tmp_path / "from" / "file").symlink_to("gone")
    with pytest.raises(shutil.Error) as raised:
        shutil.copytree(tmp_path / "from", tmp_path / "to")
    assert reason(raised.value) == f"No such file or directory: '{tmp_path / 'from' / 'file'}'"

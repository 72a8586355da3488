import shutil

import pytest

from experiments_manager.common.error_text import named_reason, reason


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("too short.\nand more"), "too short"),
        (ValueError(), "ValueError"),
        ("as text.", "as text"),
        ("{{function_node __wrapped__Add_device_/CPU:0}} Shapes differ. [Op:Add] name: ", "Shapes differ"),
        (
            "Exception encountered when calling Dense.call().\n\n\x1b[1mExpected axis -1: 3\x1b[0m\n\n"
            "Arguments received by Dense.call():\n  • inputs=tf.Tensor",
            "Expected axis -1: 3",
        ),
        (
            "Graph execution error:\n\nDetected at node PyFunc defined at (most recent call last):\n"
            "<stack traces unavailable>\nValueError: of the user's.\nTraceback (most recent call last):\n"
            '  File "a.py", line 3, in f\n\n\t [[{{node PyFunc}}]]',
            "ValueError: of the user's",
        ),
        (
            'in user code:\n\n    File "a.py", line 3, in serve  *\n        return x + y\n\n    TypeError: no tensor\n',
            "TypeError: no tensor",
        ),
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


def test_the_kind_of_an_error_is_told_once():
    assert named_reason(ValueError("too short.")) == "ValueError: too short"
    assert named_reason(KeyboardInterrupt()) == "KeyboardInterrupt"

import errno
import os
from pathlib import Path

import pytest

from experiments_manager.runs.errors import explain


@pytest.mark.parametrize(
    ("number", "sentence"),
    [
        (errno.ENOSPC, "Cannot write /a: the disk is full. Free some space, or choose another working_dir."),
        (errno.EROFS, "Cannot write /a: the file system is read-only. Choose a working_dir that can be written."),
        (errno.EIO, "Cannot write /a: Input/output error. Choose another working_dir."),
    ],
)
def test_an_error_of_the_system_becomes_a_sentence_with_a_remedy(number, sentence):
    assert str(explain(OSError(number, os.strerror(number)), "write", Path("/a"))) == sentence

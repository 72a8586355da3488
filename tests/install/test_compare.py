"""The comparison of two images."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "install" / "compare.py"
STATUS = "Package: libc6\nStatus: install ok installed\nPriority: optional\nVersion: {}\n\n"


@pytest.fixture
def make(tmp_path):
    def image(name, numpy="2.4.6", libc="2.36", text="same"):
        root = tmp_path / name
        (root / f"opt/em/lib/python3.11/site-packages/numpy-{numpy}.dist-info").mkdir(parents=True)
        (root / "opt/file").write_text(text)
        (root / "opt/link").symlink_to("file")
        (root / "var/lib/dpkg").mkdir(parents=True)
        (root / "var/lib/dpkg/status").write_text(STATUS.format(libc))
        return root

    return image


def compare(one, other):
    environment = {**os.environ, "COMPARE_INSIDE": "1"}  # the folders belong to us
    return subprocess.run([sys.executable, SCRIPT, one, other], capture_output=True, text=True, env=environment)


def test_two_builds_with_the_same_packages_and_files_are_the_same(make):
    done = compare(make("one"), make("other"))
    assert done.returncode == 0
    assert done.stdout == "packages: 2 and 2; 0 differ\nfiles: 3 the same, 0 not\n"


def test_a_file_that_differs_is_named(make):
    done = compare(make("one"), make("other", text="another"))
    assert done.returncode == 0
    assert done.stdout.endswith("files: 2 the same, 1 not\n  opt/file\n")


def test_packages_of_other_versions_are_named_and_told_by_the_exit_code(make):
    done = compare(make("one"), make("other", numpy="2.4.7", libc="2.37"))
    assert done.returncode == 3
    assert "2 differ libc6 (Debian), numpy" in done.stdout

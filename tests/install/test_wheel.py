"""The wheel of the package, as the images and offline bundles are made of it."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from experiments_manager.cli.commands.new import copy_example

ROOT = Path(__file__).resolve().parents[2]
_SPEC = importlib.util.spec_from_file_location("wheelhouse", ROOT / "install" / "wheelhouse.py")
wheelhouse = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(wheelhouse)
BUILD = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps"]

pytestmark = pytest.mark.slow


def copied_by_the_dockerfile(folder):
    """Lays out the sources as the Dockerfile does: links stay links."""
    text = (ROOT / "install" / "Dockerfile").read_text(encoding="utf-8")
    for line in re.findall(r"^COPY (.+ /opt/build/source/\S*)$", text, re.MULTILINE):
        *sources, target = line.split()
        place = folder / Path(target).relative_to("/opt/build/source")
        for source in sources:
            if (ROOT / source).is_dir():
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(ROOT / source, place, symlinks=True, ignore=ignored)
            else:
                place.mkdir(exist_ok=True)
                shutil.copy(ROOT / source, place)
    return folder


def copied_for_a_bundle(folder):
    return wheelhouse.copy_own(ROOT, folder)


@pytest.mark.parametrize("copied", [copied_by_the_dockerfile, copied_for_a_bundle])
def test_where_only_the_wheel_is_installed_an_example_is_copied(copied, tmp_path):
    source = copied(tmp_path / "source")
    done = subprocess.run([*BUILD, "--wheel-dir", tmp_path / "made", source], capture_output=True, text=True)
    if "No matching distribution found for setuptools" in done.stderr:
        pytest.skip("setuptools, which builds it, cannot be fetched here")
    assert done.returncode == 0, done.stderr
    shutil.rmtree(source)
    with zipfile.ZipFile(next((tmp_path / "made").glob("*.whl"))) as wheel:
        wheel.extractall(tmp_path / "installed")
    done = subprocess.run(
        [sys.executable, "-m", "experiments_manager", "new", "mine", "--example", "regression"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "installed")},
    )
    assert done.returncode == 0, done.stderr
    copy_example("regression", tmp_path / "theirs")  # from the repository
    for name in ("mysettings_curve_fitting.py", "README.md"):
        assert (tmp_path / "mine" / name).read_bytes() == (tmp_path / "theirs" / name).read_bytes()

import platform
import subprocess

import pytest

from experiments_manager.common.version import __version__
from experiments_manager.runs import RunError
from experiments_manager.runs.reproduction.environment import (
    differing_packages,
    environment_of,
    make_environment,
    requirements,
)


def manifest(**packages):
    return {
        "packages": {"keras-experiments-manager": __version__, **packages},
        "host": {"python": platform.python_version()},
        "tool_version": __version__,
    }


def test_the_requirements_are_the_packages_of_the_run_but_those_of_the_installation():
    assert requirements(manifest(numpy="2.4.6", pip="25", odd="unknown")) == ["numpy==2.4.6"]


def test_a_run_that_names_no_packages_is_refused():
    with pytest.raises(RunError, match="names no packages"):
        requirements({})


def test_packages_that_differ_are_told_with_both_versions():
    there = {"numpy": "2.4.6", "keras-experiments-manager": __version__}
    assert differing_packages(manifest(numpy="2.4.5", rich="14"), there) == {
        "numpy": ("2.4.5", "2.4.6"),
        "rich": ("14", None),
    }


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("host", {"python": "3.7.1"}, "another Python. Expected 3.7.1"),
        ("packages", {"experiments-manager": "0.0.1", "rich": "14"}, "another experiments_manager. Expected 0.0.1"),
    ],
)
def test_another_python_or_release_is_refused_before_anything_is_installed(tmp_path, field, value, message):
    with pytest.raises(RunError, match=message):
        make_environment(tmp_path / "venv", {**manifest(rich="14"), field: value})
    assert not (tmp_path / "venv").exists()


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(
        RunError, match="is no environment that `reproduce` has made. Expected a new or an empty folder"
    ):
        make_environment(tmp_path, manifest(rich="14"))
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.slow
def test_a_package_that_cannot_be_had_is_named_and_the_environment_made_anew_and_then_used_again(tmp_path):
    with pytest.raises(RunError, match=r"install the packages of the run: .*no-such-package==1\.0"):
        make_environment(tmp_path / "venv", manifest(**{"no-such-package": "1.0"}), wheels=tmp_path)
    stub = tmp_path / "stub-1.0-py3-none-any.whl"
    make_stub(stub)
    (tmp_path / "venv" / "old").touch()
    python = make_environment(tmp_path / "venv", manifest(stub="1.0"), wheels=tmp_path)
    assert not (tmp_path / "venv" / "old").exists()
    code = "import stub, experiments_manager.common.version as ours; print(ours.__version__)"
    told = subprocess.run([python, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert told.stdout.strip() == __version__, told.stderr
    stub.unlink()
    assert make_environment(tmp_path / "venv", manifest(stub="1.0"), wheels=tmp_path) == python


@pytest.mark.slow
def test_an_environment_lies_in_the_cache_and_is_removed_afterwards_unless_it_is_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    make_stub(tmp_path / "stub-1.0-py3-none-any.whl")
    cache = tmp_path / "cache" / "experiments_manager" / "environments"
    kept = []
    for keep in (False, True, False):  # the last finds the one that was kept
        with environment_of(manifest(stub="1.0"), wheels=tmp_path, keep=keep) as python:
            assert python.is_relative_to(cache)
            assert python.exists()
        kept.append(len(list(cache.iterdir())))
    assert kept == [0, 1, 1]


def make_stub(file):
    import zipfile

    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("stub.py", "")
        archive.writestr("stub-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: stub\nVersion: 1.0\n")
        archive.writestr("stub-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("stub-1.0.dist-info/RECORD", "")

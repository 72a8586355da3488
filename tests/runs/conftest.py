"""Processes of their own, and a little experiment."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from experiments_manager.runs import create_run, provenance


@pytest.fixture
def start_process(tmp_path):
    """Start Python programs that print a line when they are ready; those still alive at the end are killed."""
    started = []

    def start(program, *arguments):
        process = subprocess.Popen(
            [sys.executable, "-c", program, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def experiment(tmp_path, monkeypatch):
    """A settings file with its model file and a local module, in a working directory of its own."""
    folder = tmp_path / "experiment"
    write(folder / "mysettings.py", 'import helper\n\nsession_name = "demo"\nvalue = helper.VALUE\n')
    write(folder / "helper.py", "VALUE = 41\n")
    write(folder / "model_mlp.py", "def model(hparams):\n    return hparams\n")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    return folder


@pytest.fixture
def run(tmp_path):
    return create_run(tmp_path / "runs", "demo", {"units": 10})


@pytest.fixture
def git(tmp_path, monkeypatch):
    """Call git, unaware of who is running the tests."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(provenance, "_TIMEOUT", 60.0)  # on a machine that pauses, git does not hang

    def call(folder, *arguments):
        who = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=trunk"]
        answer = subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True, text=True)
        return answer.stdout.strip()

    return call


@pytest.fixture
def write_file():
    return write


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path

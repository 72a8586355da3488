"""Fixtures of the tests that load settings files without TensorFlow."""

import sys
import textwrap

import pytest

COMPLETE = """
loss = "mse"
learning_rate = 0.1

def dataset(split):
    return split

def model(hparams):
    return hparams
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes a module below the working directory of the test, and gives its path."""
    monkeypatch.chdir(tmp_path)

    def write_file(text, name="mysettings_case.py", complete=True):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text) + (COMPLETE if complete else ""))
        return path

    return write_file


@pytest.fixture(autouse=True)
def tidy_modules(tmp_path):
    """Takes the modules of one test away before the next."""
    yield
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]

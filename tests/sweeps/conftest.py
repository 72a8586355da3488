"""A little experiment that many trials can train."""

import subprocess

import pytest

from tests.helpers.sweep_files import write_sweep_files
from tests.helpers.warm_processes import QuickPopen


@pytest.fixture(scope="session")
def write_sweep():
    """Writes the experiment and a sweep over it into a folder, with more lines in each; gives the sweep file."""
    return write_sweep_files


@pytest.fixture(autouse=True, scope="module")
def quick_fork_servers():
    """Lets sweeps in the test's own process have a fork server that is forked itself, and imports nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess, "Popen", QuickPopen)
        yield

"""A little experiment that many trials can train."""

import pytest

from tests.helpers.sweep_files import write_sweep_files


@pytest.fixture(scope="session")
def write_sweep():
    """Writes the experiment and a sweep over it into a folder, with more lines in each; gives the sweep file."""
    return write_sweep_files

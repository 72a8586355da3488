"""A SLURM of two nodes, for all tests of this folder that ask for it."""

import tempfile
from pathlib import Path

import pytest

from tests.helpers import slurm


@pytest.fixture(scope="session")
def cluster():
    if not slurm.is_possible():
        pytest.skip("SLURM's daemons need root and Debian's packages slurm-wlm and munge")
    patch = pytest.MonkeyPatch()
    with tempfile.TemporaryDirectory(prefix="slurm_", ignore_cleanup_errors=True) as name:
        folder = Path(name)  # pytest's own folders are for the user alone, and munged is another one
        folder.chmod(0o755)
        with slurm.running(folder, "--cpus", "2", "--grace", "20") as variables:
            for variable, value in variables.items():
                patch.setenv(variable, value)
            yield folder
    patch.undo()

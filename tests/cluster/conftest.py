"""A SLURM of two nodes, for all tests of this folder that ask for it."""

import pytest

from tests.helpers import slurm


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    if not slurm.is_possible():
        pytest.skip("SLURM's daemons need root and Debian's packages slurm-wlm and munge")
    folder = tmp_path_factory.mktemp("slurm")
    folder.chmod(0o755)
    folder.parent.chmod(0o755)
    folder.parent.parent.chmod(0o755)
    patch = pytest.MonkeyPatch()
    with slurm.running(folder, "--cpus", "2", "--grace", "20") as variables:
        for name, value in variables.items():
            patch.setenv(name, value)
        yield folder
    patch.undo()

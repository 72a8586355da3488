"""How programs of Flower end, and who may use their home."""

import subprocess
import sys

import pytest

from experiments_manager.federated.deployment.programs import _TO_ITS_END, held_alone, make_home
from experiments_manager.federated.errors import FederationError

THREAD = "import threading\nthreading.Thread(target=threading.Event().wait).start()\n"


@pytest.mark.parametrize(
    ("main", "code", "says"),
    [
        ("raise ValueError('the server is gone')", 1, "ValueError: the server is gone"),
        ("raise SystemExit(3)", 3, ""),
        ("return 0", 0, ""),
    ],
)
def test_a_supernode_ends_though_a_thread_of_its_own_waits_for_ever(main, code, says):
    ended = subprocess.run(
        [sys.executable, "-c", f"{THREAD}def main():\n    {main}\n{_TO_ITS_END}"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == code
    assert says in ended.stderr


def test_a_home_is_one_processs_and_is_free_again_afterwards(tmp_path):
    home = make_home(tmp_path / "home")
    with (
        held_alone(home, 3),
        pytest.raises(FederationError, match="Client 3 runs already"),
        held_alone(home, 3),
    ):
        pass
    with held_alone(home, 3):
        pass

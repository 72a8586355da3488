"""What a server does with memory and files of its own accord."""

import subprocess
import sys

import pytest

from experiments_manager.serving.api.http import memory

resource = pytest.importorskip("resource")


@pytest.fixture
def resident(monkeypatch):
    """The memory that the process seems to take, in a list of one, and how much trimming leaves of it."""
    found = [0]
    monkeypatch.setattr(memory, "resident_bytes", lambda: found[0])
    monkeypatch.setattr(memory, "_trim", lambda: found.__setitem__(0, found[0] - found[0] % 2))
    return found


def test_memory_is_tidied_where_it_has_grown_and_ever_less_often_where_that_brings_nothing(resident):
    resident[0] = 10**9
    housekeeper = memory.MemoryTrimmer()
    assert not housekeeper.is_due(0.0, 10**9)
    resident[0] = 2 * 10**9
    pauses, now = [], 0.0
    for _ in range(8):
        begun = now
        while not housekeeper.is_due(now, 0):
            now += 1
        pauses.append(now - begun)
        housekeeper.trim(now)
    assert pauses == [0, 4, 8, 16, 32, 60, 60, 60]
    assert housekeeper.is_due(now, 10**9)  # much was let go of


def test_memory_that_came_back_is_not_asked_for_again(resident):
    resident[0] = 10**9
    housekeeper = memory.MemoryTrimmer()
    resident[0] = 2 * 10**9
    assert housekeeper.is_due(0.0, 0)
    resident[0] = 10**9
    assert not housekeeper.is_due(0.0, 0)


def test_a_server_may_open_as_many_files_as_the_system_lets_it_and_keeps_some_from_connections():
    program = """
import resource
from experiments_manager.serving.api.http import memory
hard = min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], 4096)
resource.setrlimit(resource.RLIMIT_NOFILE, (600, hard))
print(memory.connections_possible(10_000), memory.connections_possible(10))
memory.allow_many_files()
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0] == hard)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["172", "10", "True"]

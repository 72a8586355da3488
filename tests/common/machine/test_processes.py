"""Child processes: how they end, who holds a lock, what they use."""

import os
import signal
import subprocess
import sys
import threading

import psutil
import pytest

from experiments_manager.common.machine.processes import (
    end_session,
    kill_processes_with,
    own_bytes,
    processes_with,
    resident_bytes,
    try_lock,
    wait_or_kill_session,
)
from tests.helpers.waiting import wait_until

WAIT = "import signal; signal.pause()"
DEAF = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); {WAIT}"
CHILD = f"import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', {DEAF!r}]).pid, flush=True); {WAIT}"
BOUND = f"""
import sys
from experiments_manager.common.machine.processes import die_with_parent
die_with_parent(int(sys.argv[1]))
print("bound", flush=True)
{WAIT}
"""
ORPHAN = """
import os, subprocess, sys
command = [sys.executable, "-c", sys.argv[1], str(os.getpid() + int(sys.argv[2]))]
child = subprocess.Popen(command, stdout=subprocess.PIPE)
print(child.pid, child.stdout.readline(), flush=True)
os._exit(0)
"""


@pytest.fixture
def leader():
    """A function that starts a program as the leader of a session and waits for its first line."""
    started = []

    def start(code, **environment):
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdout=subprocess.PIPE,
            start_new_session=True,
            text=True,
            env=os.environ | environment,
        )
        started.append(process)
        return process, process.stdout.readline().strip()

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def gone(pid):
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_a_session_ends_by_sigterm_where_it_listens(leader):
    process, _ = leader(f"print(flush=True); {WAIT}")
    end_session(process, 60.0)
    assert process.returncode == -signal.SIGTERM


def test_a_session_that_ignores_sigterm_is_killed_with_all_that_it_started(leader):
    process, child = leader(f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {CHILD}")
    end_session(process, 0.1)
    assert process.returncode == -signal.SIGKILL
    wait_until(lambda: gone(int(child)), 60)


def test_ending_a_session_that_ended_already_changes_nothing(leader):
    process, _ = leader("print(flush=True)")
    wait_or_kill_session(process, 60.0)
    end_session(process, 60.0)
    assert process.returncode == 0


def test_a_process_that_takes_a_moment_to_die_when_it_is_killed_is_waited_for(leader, monkeypatch):
    process, _ = leader(DEAF)
    kill, killers = os.killpg, []

    def kill_late(pid, number):
        killers.append(threading.Timer(0.5 if number == signal.SIGKILL else 0.0, kill, (pid, number)))
        killers[-1].start()

    monkeypatch.setattr(os, "killpg", kill_late)
    end_session(process, 0.0)
    assert process.returncode == -signal.SIGKILL
    for killer in killers:
        killer.join()


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel of Linux alone ends children")
@pytest.mark.parametrize(("lie", "said"), [(0, "bound"), (1, "")])
def test_a_process_ends_with_its_parent_and_never_begins_without_it(lie, said):
    done = subprocess.run([sys.executable, "-c", ORPHAN, BOUND, str(lie)], capture_output=True, text=True, timeout=60)
    pid, _, line = done.stdout.partition(" ")
    assert said in line
    assert (not said) == ("bound" not in line)
    wait_until(lambda: gone(int(pid)), 60)


def test_processes_are_found_and_killed_by_a_variable_of_theirs_also_in_sessions_of_their_own(leader, tmp_path):
    process, child = leader(
        CHILD.replace("subprocess.Popen(", "subprocess.Popen(start_new_session=True, args="), EM_HOME=str(tmp_path)
    )
    other, _ = leader(f"print(flush=True); {WAIT}", EM_HOME=f"{tmp_path}/other")
    assert {found.pid for found in processes_with("EM_HOME", str(tmp_path))} == {process.pid, int(child)}
    kill_processes_with("EM_HOME", str(tmp_path))
    assert processes_with("EM_HOME", str(tmp_path)) == []
    assert other.poll() is None


def test_a_lock_is_shared_or_held_alone(tmp_path):
    first, second = ((tmp_path / "lock").open("a") for _ in range(2))
    with first, second:
        assert try_lock(first, shared=True)
        assert try_lock(second, shared=True)
        assert not try_lock(first)
        second.close()
        assert try_lock(first)


def test_the_memory_of_a_process_grows_with_what_it_holds():
    process = psutil.Process()
    before = own_bytes(process)
    held = bytearray(b"x" * 2**26)
    assert own_bytes(process) - before > 2**25
    assert resident_bytes() > 2**26
    assert len(held) == 2**26


def test_a_process_that_has_ended_holds_no_memory(leader):
    process, _ = leader(f"print(flush=True); {WAIT}")
    found = psutil.Process(process.pid)
    assert own_bytes(found) > 0
    end_session(process, 60.0)
    assert own_bytes(found) == 0

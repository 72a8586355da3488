import dataclasses
import json
import os
import threading

import pytest

from experiments_manager.runs import RunError, locking
from experiments_manager.runs.locking import RunLock, is_held, lock, read_holder

HOLD = """
import sys
from experiments_manager.runs import RunError, lock, open_run
run = open_run(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
try:
    with lock(run):
        print("held", flush=True)
        sys.stdin.readline()
except RunError as error:
    print(f"refused: {error}", flush=True)
"""


@pytest.fixture
def hold(run, start_process):
    """Start a process that holds the lock of `run`."""

    def start():
        process = start_process(HOLD, run.path)
        assert process.stdout.readline() == "ready\n"
        tell(process)
        assert process.stdout.readline() == "held\n"
        return process

    return start


def tell(process):
    process.stdin.write("go\n")
    process.stdin.flush()


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


def leave_lock(run, **changes):
    """Write the lock of another process."""
    holder = {
        "host": "node7",
        "pid": 1,
        "process_start": "5",
        "process_space": "a boot",
        "since": "today",
        "token": "x",
    }
    file = run.path / "run.lock"
    file.write_text(json.dumps({**holder, **changes}))
    return file


def test_a_lock_lasts_as_long_as_its_block(run):
    with lock(run) as held:
        assert is_held(held.file)
        assert read_holder(held.file).pid == os.getpid()
        assert names(run.path) == ["run.json", "run.lock"]
    assert not is_held(held.file)
    assert names(run.path) == ["run.json"]


def test_a_lock_is_given_back_when_the_block_fails(run):
    with pytest.raises(ValueError), lock(run):
        raise ValueError
    with lock(run):
        pass


def test_a_second_process_is_refused_with_host_and_process_of_the_first(run, hold):
    first = hold()
    host = locking.socket.gethostname()
    with pytest.raises(RunError, match=f"is in use.* got process {first.pid} on host {host} since .*Wait"), lock(run):
        pytest.fail("the lock was given twice")
    assert read_holder(run.path / "run.lock").pid == first.pid
    tell(first)
    first.wait()
    with lock(run):
        pass


def test_the_same_process_is_refused_too(run):
    with lock(run):
        with pytest.raises(RunError, match=f"got process {os.getpid()}"), lock(run):
            pytest.fail("the lock was given twice")
        assert is_held(run.path / "run.lock")


def test_the_lock_of_a_killed_process_is_taken_over(run, hold, caplog):
    first = hold()
    first.kill()
    first.wait()
    assert not is_held(run.path / "run.lock")
    with lock(run) as held:
        assert read_holder(held.file).pid == os.getpid()
    assert f"Taking over the lock on {run.path} from process {first.pid}" in caplog.text


def test_the_lock_of_a_dead_process_that_nobody_waited_for_is_taken_over(run, hold):
    first = hold()
    first.kill()
    os.waitid(os.P_PID, first.pid, os.WEXITED | os.WNOWAIT)
    with lock(run) as held:
        assert read_holder(held.file).pid == os.getpid()


def test_another_process_with_the_same_id_is_not_taken_for_the_holder(run):
    leave_lock(run, pid=os.getpid(), process_start="1", process_space=locking._process_space())
    with lock(run) as held:
        assert read_holder(held.file).process_start != "1"


def test_where_the_system_hides_processes_a_living_one_keeps_its_lock(run, hold, monkeypatch):
    first = hold()
    monkeypatch.setattr(locking.Path, "read_text", _hide_processes(locking.Path.read_text))
    assert is_held(run.path / "run.lock")
    first.kill()
    first.wait()
    assert not is_held(run.path / "run.lock")


def _hide_processes(read_text):
    def read(path, *arguments, **options):
        if path.name == "stat":
            raise FileNotFoundError(path)
        return read_text(path, *arguments, **options)

    return read


def test_of_several_that_find_a_dead_lock_only_one_gets_it(run, hold, start_process):
    first = hold()
    first.kill()
    first.wait()
    others = [start_process(HOLD, run.path) for _ in range(4)]
    for process in others:
        assert process.stdout.readline() == "ready\n"
    for process in others:
        tell(process)
    answers = [process.stdout.readline() for process in others]
    winner = others[answers.index("held\n")]
    assert answers.count("held\n") == 1
    assert sum(answer.startswith("refused: ") for answer in answers) == 3
    assert all(f"process {winner.pid} on host" in answer for answer in answers if answer != "held\n")


def test_of_many_threads_only_one_at_a_time_gets_the_lock(run):
    """Holders come and go, and leave dead locks half of the time."""
    inside, most, refused = [], [], []

    def work():
        for turn in range(20):
            try:
                with lock(run) as held:
                    inside.append(1)
                    most.append(len(inside))
                    inside.pop()
                    if turn % 2:
                        dead = dataclasses.replace(read_holder(held.file), process_start="1")
                        held.file.write_text(json.dumps(dataclasses.asdict(dead)))
            except RunError:
                refused.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1
    assert len(most) + len(refused) == 80


def test_a_fresh_lock_of_another_host_is_respected_and_the_way_out_is_told(run):
    file = leave_lock(run)
    with (
        pytest.raises(RunError, match=f"process 1 on host node7.*If it has ended, remove {file}, or wait 5 min"),
        lock(run),
    ):
        pytest.fail("the lock of another host was taken")
    assert read_holder(file).host == "node7"
    assert names(run.path) == ["run.json", "run.lock"]


def test_a_lock_of_another_host_without_a_heartbeat_is_taken_over(run):
    file = leave_lock(run)
    os.utime(file, (1e9, 1e9))
    assert not is_held(file)
    with lock(run) as held:
        assert read_holder(held.file).pid == os.getpid()


def test_a_job_that_starts_again_on_another_host_takes_over_its_own_lock_at_once(run, monkeypatch):
    leave_lock(run, job="cluster 12")
    with pytest.raises(RunError, match="is in use"), lock(run):
        pass
    monkeypatch.setenv("SLURM_CLUSTER_NAME", "cluster")
    monkeypatch.setenv("SLURM_JOB_ID", "13")
    with pytest.raises(RunError, match="is in use"), lock(run):
        pass
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    with lock(run):
        assert read_holder(run.path / "run.lock").job == "cluster 12"


def test_a_job_that_starts_again_on_the_same_host_waits_for_its_former_start_to_end(run, hold, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    process = hold()
    began = threading.Event()
    held = []

    def wait():
        began.set()
        with lock(run):
            held.append(process.poll())

    waiting = threading.Thread(target=wait)
    waiting.start()
    began.wait()
    waiting.join(0.2)
    assert waiting.is_alive()
    tell(process)
    waiting.join(30)
    assert held
    assert process.wait(30) == 0


def test_a_damaged_lock_is_respected_until_it_is_old(run):
    file = run.path / "run.lock"
    file.write_text("{")
    with pytest.raises(RunError, match=r"run\.lock is damaged.*remove the file"), lock(run):
        pytest.fail("a damaged lock was taken")
    os.utime(file, (1e9, 1e9))
    with lock(run):
        pass


def test_the_heartbeat_touches_the_lock(run, monkeypatch):
    touched = threading.Event()
    original = os.utime

    def utime(path, *arguments):
        original(path, *arguments)
        touched.set()

    monkeypatch.setattr(locking, "HEARTBEAT", 0.01)
    with lock(run):
        monkeypatch.setattr(os, "utime", utime)
        assert touched.wait(10)


def test_a_holder_whose_lock_was_taken_over_notices_and_leaves_it_alone(run, monkeypatch):
    noticed = threading.Event()
    monkeypatch.setattr(locking, "HEARTBEAT", 0.01)
    monkeypatch.setattr(locking.logger, "error", lambda *arguments: noticed.set())
    with lock(run) as held:
        file = leave_lock(run)
        assert noticed.wait(10)
        assert held.lost
    assert read_holder(file).host == "node7"


def test_a_forked_child_does_not_release_the_lock_of_its_parent(run, monkeypatch):
    held = RunLock(run)
    held.acquire()
    with monkeypatch.context() as child:
        child.setattr(os, "getpid", lambda: 1)
        held.release()
    assert is_held(held.file)
    held.release()
    assert not held.file.exists()


def test_where_folders_cannot_be_locked_the_lock_file_alone_serves(run, monkeypatch):
    def refuse(*arguments):
        raise OSError(9, "Bad file descriptor")

    monkeypatch.setattr(locking.fcntl, "flock", refuse)
    with lock(run), pytest.raises(RunError, match="is in use"), lock(run):
        pytest.fail("the lock was given twice")


def test_where_there_are_no_hard_links_the_lock_file_is_exclusive_all_the_same(run, monkeypatch):
    def refuse(*arguments):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    with lock(run), pytest.raises(RunError, match="is in use"), lock(run):
        pytest.fail("the lock was given twice")
    assert names(run.path) == ["run.json"]


def test_taking_the_lock_clears_away_what_a_killed_process_left_half_written(run):
    (run.path / ".run.json.0badf00d-0badf00d.partial").touch()
    with lock(run):
        assert names(run.path) == ["run.json", "run.lock"]


def test_a_read_only_folder_cannot_be_locked(run, read_only_disk):
    folder, protect = read_only_disk
    protect()
    with (
        pytest.raises(RunError, match="Cannot lock .*: the file system is read-only"),
        lock(dataclasses.replace(run, path=folder)),
    ):
        pytest.fail("a lock was made on a read-only disk")

"""Data on the node's own disk: whole or not used, once a node, and named by the settings."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from experiments_manager.cluster import staging
from experiments_manager.cluster.errors import ClusterError
from experiments_manager.cluster.staging import stage_folder, staged
from experiments_manager.common.machine import local_copies
from experiments_manager.settings import load_settings


@pytest.fixture
def source(tmp_path):
    """A folder of data."""
    folder = tmp_path / "shared" / "images"
    for name in ("train/a.txt", "train/b.txt", "validation/c.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name * 100)
    (folder / "empty").mkdir()
    return folder


@pytest.fixture
def disk(tmp_path):
    """The node's own disk."""
    (tmp_path / "local").mkdir()
    return tmp_path / "local" / "copies"


def content(folder):
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def copy_of(source, disk, said=None):
    """Stage and give where the copy is."""
    with staged([source], disk, (said if said is not None else []).append):
        return local_copies.to_copies(source)


def test_the_copy_holds_what_the_source_holds_and_tells_how_far_it_is(source, disk):
    said = []
    copy = copy_of(source, disk, said)
    assert disk in copy.parents
    assert content(copy) == content(source)
    assert (copy / "empty").is_dir()
    assert said[0] == f"Copying {source} to {copy}: 3.8 kB in 3 files."
    assert said[-1] == "Copied 3.8 kB of 3.8 kB, 3 of 3 files."
    assert disk.stat().st_mode & 0o077 == 0


def test_a_single_file_is_copied_too(source, disk):
    copy = copy_of(source / "train" / "a.txt", disk)
    assert copy.read_text() == "train/a.txt" * 100


def test_a_whole_copy_is_used_again_and_not_copied(source, disk, monkeypatch):
    first = copy_of(source, disk)
    monkeypatch.setattr(staging, "copy_files", None)
    said = []
    assert copy_of(source, disk, said) == first
    assert said == [f"{source}: the copy on this node is whole, and is used again (3.8 kB)."]


def test_a_file_that_the_copy_has_lost_or_that_was_cut_is_copied_again_alone(source, disk):
    copy = copy_of(source, disk)
    (copy / "train" / "a.txt").unlink()
    os.truncate(copy / "train" / "b.txt", 10)
    said = []
    copy_of(source, disk, said)
    assert content(copy) == content(source)
    assert said[0].endswith("in 2 files.")


def test_when_the_source_has_changed_there_is_a_new_copy_and_the_old_one_goes(source, disk):
    old = copy_of(source, disk)
    (source / "train" / "a.txt").write_text("new")
    new = copy_of(source, disk)
    assert content(new) == content(source)
    assert not old.exists()


def test_the_old_copy_stays_as_long_as_somebody_reads_it(source, disk):
    with staged([source], disk, print):
        old = local_copies.to_copies(source)
        (source / "train" / "a.txt").write_text("new")
        command = "import sys, pathlib; from experiments_manager.cluster.staging import staged\n"
        command += "with staged([pathlib.Path(sys.argv[1])], pathlib.Path(sys.argv[2]), print): pass"
        subprocess.run([sys.executable, "-c", command, source, disk], check=True)
        assert (old / "train" / "a.txt").read_text() == "train/a.txt" * 100
    copies = [path for path in disk.iterdir() if (path / "whole.json").exists()]
    assert len(copies) == 2


KILLED = """
import os, pathlib, signal, sys
from experiments_manager.cluster import staging

copy = staging._Copying.copy

def die_in_the_second(self, source, target):
    if source.name == "b.txt":
        target.write_bytes(source.read_bytes())  # of the right size, but not known to be whole
        os.kill(os.getpid(), signal.SIGKILL)
    copy(self, source, target)

staging.COPIES_AT_A_TIME = 1
staging._Copying.copy = die_in_the_second
with staging.staged([pathlib.Path(sys.argv[1])], pathlib.Path(sys.argv[2]), print):
    print("whole")
"""


def test_what_a_killed_process_has_left_is_not_taken_for_whole(source, disk):
    killed = subprocess.run([sys.executable, "-c", KILLED, source, disk], capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL
    assert "whole" not in killed.stdout
    [place] = disk.iterdir()
    assert not (place / "whole.json").exists()
    said = []
    copy = copy_of(source, disk, said)
    assert content(copy) == content(source)
    assert "Copying" in said[0] and not said[0].endswith("in 0 files.")


def test_of_several_tasks_on_a_node_one_copies_and_the_others_wait(source, disk):
    command = "import sys, pathlib; from experiments_manager.cluster.staging import staged\n"
    command += "with staged([pathlib.Path(sys.argv[1])], pathlib.Path(sys.argv[2]), print): sys.stdin.read()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    tasks = [subprocess.Popen([sys.executable, "-c", command, source, disk], **pipes) for _ in range(3)]
    said = [task.communicate(timeout=120)[0] for task in tasks]
    assert [task.returncode for task in tasks] == [0, 0, 0]
    assert sum("Copying" in text for text in said) == 1, said
    assert sum("is used again" in text for text in said) == 2, said


def test_a_task_that_comes_while_another_copies_says_that_it_waits(source, disk, monkeypatch):
    begun, go_on, copy = threading.Event(), threading.Event(), staging.copy_files

    def held_up(*arguments):
        begun.set()
        go_on.wait()
        copy(*arguments)

    monkeypatch.setattr(staging, "copy_files", held_up)
    first = threading.Thread(target=copy_of, args=(source, disk))
    first.start()
    begun.wait()
    said = []

    def tell(text):
        said.append(text)
        go_on.set()

    with staging._copy_of(source, disk, tell) as found:
        assert content(found) == content(source)
    first.join()
    assert said[0] == f"{source}: another task on this node copies it; waiting."


def test_where_there_is_no_room_nothing_is_copied(source, small_disk):
    (source / "large.bin").write_bytes(bytes(100_000))
    with pytest.raises(ClusterError, match=r"has not enough space\. Expected 104 kB, got .* free\. .*stage_dir"):
        copy_of(source, small_disk / "copies")
    assert not list((small_disk / "copies").glob("*/data"))


def test_where_the_disk_fills_up_meanwhile_the_half_copy_goes(source, small_disk, monkeypatch):
    (source / "large.bin").write_bytes(bytes(100_000))
    monkeypatch.setattr(staging.shutil, "disk_usage", lambda path: _Plenty)
    with pytest.raises(ClusterError, match="No space left on device"):
        copy_of(source, small_disk / "copies")
    assert not list((small_disk / "copies").glob("*/data"))


class _Plenty:
    free = 10**12


def test_a_path_that_does_not_exist_or_is_no_data_is_refused(source, disk, tmp_path):
    with pytest.raises(ClusterError, match=r"nowhere does not exist\. Expected a folder or file that this node sees"):
        copy_of(tmp_path / "nowhere", disk)
    with pytest.raises(ClusterError, match="got nothing to copy"):
        copy_of(source / "empty", disk)
    os.mkfifo(source / "pipe")
    with pytest.raises(ClusterError, match=r"pipe is no file\. Expected folders and files alone"):
        copy_of(source, disk)


def test_a_source_that_changes_while_it_is_copied_is_refused(source, disk, monkeypatch):
    copy = staging.copy_files

    def meanwhile(*arguments):
        (source / "train" / "a.txt").write_text("other")
        copy(*arguments)

    monkeypatch.setattr(staging, "copy_files", meanwhile)
    with pytest.raises(ClusterError, match=r"a\.txt changed while it was copied"):
        copy_of(source, disk)
    assert not list(disk.glob("*/whole.json"))


def test_links_are_followed_but_not_in_circles(source, disk, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "d.txt").write_text("d")
    (source / "linked").symlink_to(tmp_path / "elsewhere")
    (source / "linked_back").symlink_to(source)
    copy = copy_of(source, disk)
    assert (copy / "linked" / "d.txt").read_text() == "d"
    assert not (copy / "linked_back").exists()


def test_a_folder_that_belongs_to_somebody_else_is_not_used(source, disk, monkeypatch):
    disk.mkdir()
    monkeypatch.setattr(staging.os, "getuid", lambda: 12345)
    with pytest.raises(ClusterError, match="belongs to another user"):
        copy_of(source, disk)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"SLURM_TMPDIR": "job", "TMPDIR": "tmp"}, "job"),
        ({"TMPDIR": "tmp"}, "tmp"),
        ({"SLURM_TMPDIR": "job", "setting": "own"}, "own"),
    ],
)
def test_the_folder_is_that_of_the_setting_then_of_the_job_then_tmpdir(tmp_path, monkeypatch, given, expected):
    for name in ("SLURM_TMPDIR", "TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    for name, folder in given.items():
        (tmp_path / folder).mkdir()
        monkeypatch.setenv(name, str(tmp_path / folder))
    setting = str(tmp_path / given["setting"]) if "setting" in given else None
    assert stage_folder(setting) == tmp_path / expected / f"experiments_manager-{os.getuid()}"


def test_a_folder_of_the_node_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(ClusterError, match="stage_dir folder .*missing does not exist on this node"):
        stage_folder(str(tmp_path / "missing"))


SETTINGS = """
DATA = {data!r}
train_data_dir = DATA + "/train"
hparams = {{"rate": 1.0, "lists": [DATA + "/train/*.txt", "elsewhere"]}}
working_dir = DATA + "/runs"
"""


def test_settings_name_the_copy_wherever_they_name_a_path_below_the_source(source, disk, settings_file):
    file = settings_file(SETTINGS.format(data=str(source)))
    with staged([source], disk, print):
        copy = local_copies.to_copies(str(source))
        settings = load_settings(file, [f"validation_data_dir={source}/validation"])
        assert (settings.train_data_dir, settings.validation_data_dir) == (f"{copy}/train", f"{copy}/validation")
        assert settings.hparams["lists"] == [f"{copy}/train/*.txt", "elsewhere"]
        assert settings.working_dir == f"{source}/runs"  # what is written belongs on the shared disk
        assert local_copies.to_originals(settings.hparams) == {
            "rate": 1.0,
            "lists": [f"{source}/train/*.txt", "elsewhere"],
        }
    assert load_settings(file).train_data_dir == f"{source}/train"


def test_a_copy_that_no_setting_names_is_known(source, disk, settings_file):
    file = settings_file(SETTINGS.format(data=str(source)))
    with staged([source], disk, print):
        load_settings(settings_file(name="mysettings_other.py"))
        assert local_copies.unused() == [str(source)]
        load_settings(file)
        assert local_copies.unused() == []

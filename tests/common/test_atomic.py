import errno
import json
import os
import stat

import pytest

from experiments_manager.common import atomic


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


def test_text_is_written_in_utf_8_and_replaces_what_was_there(tmp_path):
    file = tmp_path / "note.txt"
    atomic.write_text(file, "old")
    atomic.write_text(file, "größer\r\n")
    assert file.read_bytes() == "größer\r\n".encode()
    assert names(tmp_path) == ["note.txt"]


def test_a_file_has_the_permissions_that_the_users_mask_asks_for(tmp_path):
    former = os.umask(0o027)
    try:
        atomic.write_text(tmp_path / "note.txt", "")
    finally:
        os.umask(former)
    assert stat.S_IMODE((tmp_path / "note.txt").stat().st_mode) == 0o640


def test_json_is_readable_by_people(tmp_path):
    atomic.write_json(tmp_path / "a.json", {"name": "é", "values": [1]})
    assert (tmp_path / "a.json").read_text("utf-8") == '{\n  "name": "é",\n  "values": [\n    1\n  ]\n}\n'


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object()])
def test_what_json_does_not_have_is_refused_before_anything_is_written(tmp_path, value):
    file = tmp_path / "a.json"
    atomic.write_json(file, {"a": 1})
    with pytest.raises((ValueError, TypeError)):
        atomic.write_json(file, {"a": value})
    assert json.loads(file.read_text()) == {"a": 1}
    assert names(tmp_path) == ["a.json"]


def test_a_very_long_name_can_be_written(tmp_path):
    file = tmp_path / ("é" * 127)
    atomic.write_text(file, "x")
    assert file.read_text() == "x"


def test_a_full_disk_leaves_the_old_file_and_no_litter(small_disk, full_disk):
    file = small_disk / "a.bin"
    atomic.write_bytes(file, b"old")
    full_disk()
    with pytest.raises(OSError, match=r"No space left.*a\.bin") as error:
        atomic.write_bytes(file, b"new" * 10000)
    assert error.value.errno == errno.ENOSPC
    assert file.read_bytes() == b"old"
    assert names(small_disk) == ["a.bin", "ballast"]


def test_a_read_only_disk_leaves_the_old_file(read_only_disk):
    folder, protect = read_only_disk
    file = folder / "a.txt"
    atomic.write_text(file, "old")
    protect()
    with pytest.raises(OSError) as error:
        atomic.write_text(file, "new")
    assert error.value.errno == errno.EROFS
    assert error.value.filename == str(file)
    assert file.read_text() == "old"
    assert names(folder) == ["a.txt"]


def test_an_interruption_while_writing_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    file = tmp_path / "a.txt"
    atomic.write_text(file, "old")

    def interrupt(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        atomic.write_text(file, "new")
    assert file.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def make_folder(path, text):
    path.mkdir()
    (path / "content").write_text(text)
    return path


def test_a_folder_takes_a_free_place(tmp_path):
    atomic.replace_directory(make_folder(tmp_path / "stage", "new"), tmp_path / "target")
    assert names(tmp_path) == ["target"]
    assert (tmp_path / "target" / "content").read_text() == "new"


def test_a_folder_replaces_another_as_a_whole(tmp_path):
    target = make_folder(tmp_path / "target", "old")
    (target / "only_old").touch()
    atomic.replace_directory(make_folder(tmp_path / "stage", "new"), target)
    assert names(tmp_path) == ["target"]
    assert names(target) == ["content"]
    assert (target / "content").read_text() == "new"


def test_a_folder_that_cannot_be_moved_leaves_the_old_one(tmp_path):
    target = make_folder(tmp_path / "target", "old")
    with pytest.raises(OSError):
        atomic.replace_directory(tmp_path / "missing", target)
    assert names(tmp_path) == ["target"]
    assert (target / "content").read_text() == "old"


def test_leftovers_of_killed_processes_are_removed_and_all_else_is_spared(tmp_path):
    mine = atomic.staging_path(tmp_path / "mine")
    mine.touch()
    (tmp_path / ".run.json.0badf00d-0badf00d.partial").touch()
    make_folder(tmp_path / ".settings.0badf00d-0badf00d.partial", "half")
    (tmp_path / ".hidden").touch()
    (tmp_path / "user.partial").touch()
    assert len(atomic.remove_leftovers(tmp_path)) == 2
    assert names(tmp_path) == [".hidden", mine.name, "user.partial"]


def test_leftovers_that_are_young_are_spared_when_an_age_is_given(tmp_path):
    young, old = tmp_path / ".a.0badf00d-00000001.partial", tmp_path / ".b.0badf00d-00000002.partial"
    young.touch()
    old.touch()
    os.utime(old, (1.0, 1.0))
    assert atomic.remove_leftovers(tmp_path, older_than=3600) == [old]
    assert names(tmp_path) == [young.name]


def test_a_folder_moved_aside_by_a_killed_process_gets_its_name_back(tmp_path):
    make_folder(tmp_path / ".v1.2.0badf00d-0badf00d.previous", "old")
    atomic.remove_leftovers(tmp_path)
    assert names(tmp_path) == ["v1.2"]


def test_a_folder_moved_aside_is_removed_when_the_new_one_stands(tmp_path):
    make_folder(tmp_path / ".v1.0badf00d-0badf00d.previous", "old")
    make_folder(tmp_path / "v1", "new")
    atomic.remove_leftovers(tmp_path)
    assert names(tmp_path) == ["v1"]
    assert (tmp_path / "v1" / "content").read_text() == "new"

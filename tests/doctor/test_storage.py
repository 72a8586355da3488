import os

import pytest

from experiments_manager.doctor import storage
from experiments_manager.doctor.finding import FindingState
from experiments_manager.doctor.storage import free_space, locks, working_folder


def test_a_folder_that_is_not_there_yet_is_looked_at_where_it_would_be_made_and_nothing_is_left(tmp_path):
    found = working_folder(tmp_path / "runs" / "of_today")
    assert [finding.name for finding in found] == ["Working folder", "Write speed", "Locks"]
    assert all(finding.state is not FindingState.PROBLEM for finding in found)
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_place_of_the_folder_is_a_problem(tmp_path):
    (tmp_path / "runs").touch()
    (found,) = working_folder(tmp_path / "runs" / "deeper")
    assert found.state is FindingState.PROBLEM


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_a_problem(tmp_path):
    tmp_path.chmod(0o500)
    (found,) = working_folder(tmp_path)
    assert found.state is FindingState.PROBLEM


def test_a_disk_that_refuses_to_be_written_is_a_problem_with_its_reason(tmp_path, monkeypatch):
    def refuse(probe):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(storage, "write_speed", refuse)
    found = working_folder(tmp_path)[-1]
    assert found.state is FindingState.PROBLEM
    assert "No space left on device" in found.text


@pytest.mark.parametrize(
    ("free", "state"), [(0, FindingState.PROBLEM), (2**30, FindingState.NOTE), (2**40, FindingState.OK)]
)
def test_little_space_is_told_and_none_is_a_problem(tmp_path, free, state):
    assert free_space(tmp_path, free).state is state


def test_a_file_system_without_hard_links_is_told(tmp_path, monkeypatch):
    def refuse(*paths):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(storage.os, "link", refuse)
    assert locks(tmp_path).text == "the file system lacks hard links"

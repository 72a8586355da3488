"""Finding a project's files from wherever they are needed."""

import pytest

from experiments_manager.data import find_upwards


@pytest.fixture
def project(tmp_path):
    (tmp_path / "project" / "data").mkdir(parents=True)
    (tmp_path / "project" / "runs" / "run" / "settings").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    return tmp_path / "project"


def test_data_beside_the_file_is_found(project):
    assert find_upwards("data", near=project / "mysettings.py") == project / "data"


def test_data_above_the_file_is_found_from_any_working_directory(project, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert find_upwards("data", near=project / "runs" / "run" / "settings" / "mysettings.py") == project / "data"


def test_data_above_the_working_directory_is_found_for_a_file_that_was_moved(project, tmp_path, monkeypatch):
    monkeypatch.chdir(project / "runs")
    assert find_upwards("data", near=tmp_path / "elsewhere" / "mysettings.py") == project / "data"


def test_what_is_nowhere_is_reported_with_the_places_searched(project, monkeypatch):
    monkeypatch.chdir(project)
    with pytest.raises(
        FileNotFoundError, match=f"no_such_name was not found. Expected it in {project}/runs or {project}"
    ):
        find_upwards("no_such_name", near=project / "runs" / "mysettings.py")

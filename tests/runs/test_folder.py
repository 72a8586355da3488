import datetime
import json
import os
import shutil
from pathlib import Path

import pytest

from experiments_manager.runs import RunError, create_run, find_run, open_run
from experiments_manager.runs.manifest import SCHEMA_VERSION

NOW = datetime.datetime(2024, 2, 29, 7, 8, 9)

CREATE_RUNS = """
import datetime, sys
from experiments_manager.runs import create_run
print("ready", flush=True)
sys.stdin.readline()
for _ in range(5):
    print(create_run(sys.argv[1], "demo", {}, now=datetime.datetime(2024, 2, 29)).path)
"""


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


def test_a_new_run_has_a_folder_and_a_first_manifest(tmp_path):
    run = create_run(tmp_path / "deep" / "runs", "demo", {"units": 10}, now=NOW)
    assert run.path == tmp_path / "deep" / "runs" / "demo_units10_2024-02-29--07-08-09"
    assert names(run.path) == ["run.json"]
    assert run.manifest["state"] == "created"
    assert run.manifest["schema_version"] == SCHEMA_VERSION
    assert run.manifest["hparams"] == {"units": 10}
    assert not run.is_started


def test_the_places_of_a_run_are_as_promised(run):
    assert run.manifest_file == run.path / "run.json"
    assert run.settings_dir == run.path / "settings"
    assert run.checkpoints_dir == run.path / "checkpoints"
    assert run.exports_dir == run.path / "exported_models"
    assert run.logs_dir == run.path / "logs"
    assert run.metrics_csv == run.path / "metrics.csv"
    assert run.git_diff == run.path / "git.diff"


def test_a_relative_working_dir_gives_an_absolute_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = create_run("runs", "demo", {}, now=NOW)
    monkeypatch.chdir("/")
    assert run.path.parent == tmp_path / "runs"
    assert run.manifest["state"] == "created"


def test_runs_of_the_same_second_get_folders_of_their_own(tmp_path):
    names = [create_run(tmp_path, "demo", {}, now=NOW).name for _ in range(3)]
    base = "demo_2024-02-29--07-08-09"
    assert names == [base, f"{base}-2", f"{base}-3"]


def test_processes_that_start_in_the_same_second_get_folders_of_their_own(tmp_path, start_process):
    processes = [start_process(CREATE_RUNS, tmp_path / "runs") for _ in range(4)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    paths = [path for process in processes for path in process.communicate()[0].split()]
    assert len(paths) == len(set(paths)) == 20
    assert sorted(Path(path).name for path in paths) == names(tmp_path / "runs")


def test_a_file_in_place_of_the_working_dir_is_named(tmp_path):
    (tmp_path / "runs").touch()
    with pytest.raises(RunError, match=r"runs: a file stands where a folder is expected\. Move that file away"):
        create_run(tmp_path / "runs", "demo", {})


def test_a_file_above_the_working_dir_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="a file stands where a folder is expected"):
        create_run(tmp_path / "file" / "runs", "demo", {})


def test_a_file_with_the_name_of_the_run_is_left_alone(tmp_path):
    (tmp_path / "demo_2024-02-29--07-08-09").write_text("precious")
    assert create_run(tmp_path, "demo", {}, now=NOW).name.endswith("-2")
    assert (tmp_path / "demo_2024-02-29--07-08-09").read_text() == "precious"


def test_a_read_only_disk_is_reported(read_only_disk):
    folder, protect = read_only_disk
    protect()
    with pytest.raises(RunError, match="the file system is read-only"):
        create_run(folder, "demo", {})


def test_a_full_disk_is_reported_and_nothing_is_left(small_disk, full_disk):
    full_disk()
    with pytest.raises(RunError, match="the disk is full"):
        create_run(small_disk, "demo", {})
    assert names(small_disk) == ["ballast"]


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_an_unwritable_working_dir_is_reported(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(RunError, match="permission is denied"):
            create_run(tmp_path, "demo", {})
    finally:
        tmp_path.chmod(0o700)


def test_a_permission_that_is_denied_is_reported(tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(RunError, match=r"permission is denied\. Choose a working_dir that you may write"):
        create_run(tmp_path / "runs", "demo", {})


def test_a_run_name_is_the_exact_name_of_the_folder(tmp_path):
    assert create_run(tmp_path, "demo", {"a": 1}, run_name="night").path == tmp_path / "night"


def test_a_run_name_that_is_taken_is_refused(tmp_path):
    create_run(tmp_path, "demo", {}, run_name="night")
    with pytest.raises(RunError, match="There is a run .*night already"):
        create_run(tmp_path, "demo", {}, run_name="night")
    assert names(tmp_path) == ["night"]


def test_a_run_is_found_by_its_name_or_not_there_yet(tmp_path):
    assert find_run(tmp_path, "night") is None
    run = create_run(tmp_path, "demo", {}, run_name="night")
    assert find_run(tmp_path, "night") == run


def test_folders_that_killed_processes_left_half_made_are_cleared_away_in_time(tmp_path):
    for name, age in (("old", 1.0), ("young", None)):
        half = tmp_path / f".{name}.0badf00d-0badf00d.partial"
        half.mkdir()
        if age:
            os.utime(half, (age, age))
    create_run(tmp_path, "demo", {}, run_name="night")
    assert names(tmp_path) == [".young.0badf00d-0badf00d.partial", "night"]


@pytest.mark.parametrize("inside", ["", "run.json", "settings", "settings/deep/file.py"])
def test_a_run_is_opened_from_anything_inside_it(run, inside):
    (run.settings_dir / "deep").mkdir(parents=True)
    (run.settings_dir / "deep" / "file.py").touch()
    assert open_run(run.path / inside) == run
    assert open_run(str(run.path / inside)) == run


def test_a_run_opens_after_it_was_moved(run, tmp_path):
    shutil.move(run.path, tmp_path / "moved")
    assert open_run(tmp_path / "moved").manifest["hparams"] == {"units": 10}


def test_a_missing_folder_is_reported_with_the_nearest_run(run):
    with pytest.raises(RunError, match=f"There is no run folder .* Did you mean {run.path}"):
        open_run(run.path.with_name(run.name.replace("units", "unit")))


def test_a_folder_that_is_no_run_is_reported(tmp_path):
    with pytest.raises(RunError, match=r"is no run folder: it has no run\.json"):
        open_run(tmp_path)


def test_a_folder_of_runs_is_not_taken_for_one_of_them(run):
    with pytest.raises(RunError, match="It holds 1 run; name it"):
        open_run(run.path.parent)


def test_a_damaged_manifest_is_reported(run):
    run.manifest_file.write_text('{"schema_version": 1,')
    with pytest.raises(RunError, match=r"run\.json is damaged\. Expected valid JSON"):
        open_run(run.path)


def test_a_manifest_of_something_else_is_reported(run):
    run.manifest_file.write_text('{"name": "npm"}')
    with pytest.raises(RunError, match="is not the manifest of a run"):
        open_run(run.path)


def test_a_newer_manifest_says_which_version_reads_it(run):
    manifest = {**run.manifest, "schema_version": SCHEMA_VERSION + 1, "tool_version": "7.8.9"}
    run.manifest_file.write_text(json.dumps(manifest))
    with pytest.raises(RunError, match="Install release 7.8.9 or later"):
        open_run(run.path)

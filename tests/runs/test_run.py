import datetime
import json
import shutil

import pytest

from experiments_manager.runs import RunError, create_run, open_run


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


@pytest.fixture
def started(run, experiment):
    run.start(
        settings_file=experiment / "mysettings.py",
        model_file=experiment / "model_mlp.py",
        command=["em", "train", "mysettings.py"],
        overrides={"epochs": 2},
        hparams={"units": 10},
        settings={"epochs": 2, "working_dir": experiment},
        seed=42,
        devices=["CPU"],
        data_position="arrays",
    )
    return run


def test_a_started_run_says_all_about_itself(started, experiment):
    manifest = started.manifest
    assert started.is_started
    assert manifest["state"] == "running"
    assert manifest["command"] == ["em", "train", "mysettings.py"]
    assert manifest["overrides"] == {"epochs": 2}
    assert manifest["settings"] == {"epochs": 2, "working_dir": str(experiment)}
    assert (manifest["seed"], manifest["devices"], manifest["data_position"]) == (42, ["CPU"], "arrays")
    assert manifest["settings_file"] == "settings/mysettings.py"
    assert manifest["model_file"] == "settings/model_mlp.py"
    assert manifest["files"] == ["settings/helper.py", "settings/model_mlp.py", "settings/mysettings.py"]
    assert manifest["packages"]["pytest"] == pytest.__version__
    assert set(manifest["host"]) == {"name", "system", "python", "cpus"}
    assert datetime.datetime.fromisoformat(manifest["start"]).tzinfo is not None
    assert manifest["end"] is None
    assert names(started.path) == ["run.json", "settings"]


def test_nothing_in_the_manifest_depends_on_where_the_run_stands(started, tmp_path):
    shutil.move(started.path, tmp_path / "moved")
    moved = open_run(tmp_path / "moved")
    assert moved.settings_file.read_text().startswith("import helper")
    assert moved.model_file == tmp_path / "moved" / "settings" / "model_mlp.py"
    assert str(started.path) not in moved.manifest_file.read_text()


def test_uncommitted_changes_are_kept_as_a_diff(run, experiment, git):
    git(experiment, "init")
    git(experiment, "add", "mysettings.py")
    git(experiment, "commit", "-m", "First")
    (experiment / "mysettings.py").write_text("value = 1\n")
    run.start(settings_file=experiment / "mysettings.py", model_file=experiment / "model_mlp.py")
    assert "+value = 1\n" in run.git_diff.read_text()
    assert run.manifest["git"] == {
        "commit": git(experiment, "rev-parse", "HEAD"),
        "dirty": True,
        "branch": "trunk",
        "untracked": ["model_mlp.py"],
    }


def test_a_run_without_a_model_file_has_none(run, experiment):
    run.start(settings_file=experiment / "mysettings.py")
    assert run.model_file is None


def test_a_run_that_never_started_has_no_settings_file(run):
    with pytest.raises(RunError, match="was made but never started"):
        _ = run.settings_file


def test_a_start_that_was_killed_in_the_midst_can_be_repeated(run, experiment, write_file):
    write_file(run.settings_dir / "half.py", "")
    run.git_diff.write_text("stale")
    run.start(settings_file=experiment / "mysettings.py")
    assert names(run.settings_dir) == ["helper.py", "mysettings.py"]
    assert not run.git_diff.exists()


def test_a_run_starts_once_only(started, experiment):
    with pytest.raises(RunError, match="has started before. Resume it"):
        started.start(settings_file=experiment / "mysettings.py")


def test_a_missing_settings_file_leaves_the_run_as_it_was(run, tmp_path):
    with pytest.raises(RunError, match="There is no settings file"):
        run.start(settings_file=tmp_path / "missing.py")
    assert run.manifest["state"] == "created"
    assert names(run.path) == ["run.json"]


def test_a_full_disk_at_the_start_is_reported(small_disk, full_disk, experiment):
    run = create_run(small_disk, "demo", {})
    full_disk()
    with pytest.raises(RunError, match="the disk is full"):
        run.start(settings_file=experiment / "mysettings.py")
    assert run.manifest["state"] == "created"
    assert names(run.path) == ["run.json"]


@pytest.mark.parametrize("state", ["finished", "failed", "interrupted"])
def test_the_end_of_a_run_is_noted_with_its_time(started, state):
    started.finish(state, epochs=2, best={"epoch": 1, "step": 10, "value": 0.5, "name": "val_loss"})
    manifest = started.manifest
    assert (manifest["state"], manifest["epochs"], manifest["best"]["value"]) == (state, 2, 0.5)
    assert manifest["end"] >= manifest["start"]
    assert 0 <= manifest["seconds"] < 60


def test_seconds_that_are_given_are_kept(started):
    started.finish("finished", seconds=12.5)
    assert started.manifest["seconds"] == 12.5


def test_the_error_of_a_failed_run_is_kept(started):
    error = {"type": "ValueError", "text": "bad", "place": "mysettings.py:3"}
    started.finish("failed", error=error)
    assert started.manifest["error"] == error


def test_an_unknown_end_is_refused(started):
    with pytest.raises(RunError, match="Expected finished, failed or interrupted"):
        started.finish("done")
    assert started.manifest["state"] == "running"


def test_a_resumed_run_is_running_again(started):
    started.finish("failed", error={"type": "ValueError", "text": "bad", "place": None})
    started.mark_resumed(devices=["GPU"])
    manifest = started.manifest
    assert (manifest["state"], manifest["error"], manifest["end"]) == ("running", None, None)
    assert len(manifest["resumed"]) == 1
    assert manifest["devices"] == ["GPU"]


def test_the_manifest_is_valid_json_of_one_object(started):
    assert isinstance(json.loads(started.manifest_file.read_text("utf-8")), dict)

"""What a resume keeps, leaves alone and tells; and signals before the first step."""

import hashlib
import json
import os
import shutil
import signal
import sys

import pytest

from experiments_manager import api
from experiments_manager.runs import RunError, open_run
from experiments_manager.settings import SettingsError, UserCodeError
from experiments_manager.training.errors import TrainingError
from tests.helpers.warm_processes import warm_run

UNITS = """
hparams = {"units": 1}


def model(hparams):
    return keras.Sequential([keras.Input([3]), keras.layers.Dense(hparams["units"]), keras.layers.Dense(1)])
"""

STOPPED_IN_MODEL = """
import os
import signal


def model(hparams):
    if os.environ.pop("STOP_IN_MODEL", None):
        signal.raise_signal(signal.SIGTERM)
    return keras.Sequential([keras.Input([3], name="position"), keras.layers.Dense(1, name="height")])
"""


def content(folder):
    """Every file below a folder with its content and time."""
    return {
        path.relative_to(folder).as_posix(): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def interrupted(experiment):
    """Trains an experiment of four epochs until it is asked to stop in the second one."""

    def train(source=UNITS, **overrides):
        answers = iter([False] * 8)
        overrides = {"epochs": 4, "checkpoint_every_steps": 1, **overrides}
        trained = experiment(source, overrides, should_stop=lambda: next(answers, True))
        assert trained.result.state == "interrupted"
        return trained

    return train


@pytest.mark.slow
@pytest.mark.parametrize(
    ("override", "error"),
    [
        ({"hparams": {"units": 16}}, TrainingError),
        ({"loss": "nosuch"}, (SettingsError, TrainingError, UserCodeError)),
        ({"monitor_mode": "sideways"}, SettingsError),
    ],
)
def test_an_override_that_fails_is_not_kept_and_the_plain_resume_goes_on(interrupted, resume, override, error):
    trained = interrupted()
    before = trained.run.manifest
    files = {name: (trained.run.path / name).read_text() for name in ("model.txt", "model_serving_setup.ini")}
    with pytest.raises(error):
        resume(trained.run.path, override)
    after = trained.run.manifest
    for name in ("overrides", "hparams", "settings"):
        assert after[name] == before[name]
    assert files == {name: (trained.run.path / name).read_text() for name in files}
    assert resume(trained.run.path).result.epochs == 4


@pytest.mark.slow
def test_an_override_is_kept_once_steps_were_trained_with_it(interrupted, resume):
    trained = interrupted()
    seen = []

    def stop_after_the_first_steps():
        seen.append(trained.run.manifest["overrides"]["epochs"])
        return len(seen) == 2

    again = resume(trained.run.path, {"epochs": 5}, should_stop=stop_after_the_first_steps)
    assert (again.result.state, seen[0]) == ("interrupted", 4)
    manifest = trained.run.manifest
    assert (manifest["overrides"]["epochs"], manifest["settings"]["epochs"]) == (5, 5)
    assert resume(trained.run.path).result.epochs == 5


@pytest.mark.slow
def test_a_finished_run_that_cannot_be_resumed_with_an_override_stays_finished(experiment, resume):
    trained = experiment(UNITS)
    with pytest.raises(TrainingError):
        resume(trained.run.path, {"hparams": {"units": 16}, "epochs": 4})
    assert trained.run.manifest["state"] == "finished"
    assert trained.run.manifest["error"] is None
    assert resume(trained.run.path, {"epochs": 3}).result.epochs == 3


@pytest.mark.slow
@pytest.mark.parametrize("overrides", [{}, {"epochs": 2}, {"early_stopping_patience": 7}])
def test_a_resume_of_a_finished_run_leaves_its_folder_untouched_and_says_how_to_train_on(
    experiment, resume, caplog, overrides
):
    trained = experiment("export = True")
    before = content(trained.run.path)
    again = resume(trained.run.path, overrides)
    assert content(trained.run.path) == before
    assert (again.result.state, again.result.epochs, again.epochs) == ("finished", 2, [])
    assert again.result.best == trained.result.best
    assert again.result.exported_model == trained.result.exported_model
    assert "The run is already finished, after 2 epochs." in caplog.text
    assert "`--set epochs=4`" in caplog.text


@pytest.mark.slow
def test_a_finished_run_with_other_settings_is_built_but_its_checkpoint_is_not_written_again(experiment, resume):
    trained = experiment()
    before = content(trained.run.checkpoints_dir)
    again = resume(trained.run.path, {"learning_rate": 0.01})
    assert again.result.state == "finished"
    assert content(trained.run.checkpoints_dir) == before


@pytest.mark.slow
def test_a_finished_run_without_a_checkpoint_is_not_trained_anew_over_its_results(experiment, resume):
    trained = experiment()
    shutil.rmtree(trained.run.checkpoints_dir)
    assert resume(trained.run.path).result.state == "finished"
    with pytest.raises(RunError, match="is finished and has no checkpoint"):
        resume(trained.run.path, {"epochs": 4})


@pytest.mark.slow
def test_a_settings_file_that_changed_since_the_start_is_told_and_the_copy_is_used(interrupted, resume, caplog):
    trained = interrupted()
    file = trained.settings.file
    assert resume(trained.run.path, should_stop=lambda: True).result.state == "interrupted"
    assert "changed since" not in caplog.text
    file.write_text(file.read_text().replace("batch_size = 8", "batch_size = 4"))
    again = resume(trained.run.path)
    assert again.settings.batch_size == 8
    [told] = [text for text in caplog.messages if "changed since" in text]
    assert told.startswith(f"{file} has changed since the run was started")
    assert told.endswith(f"experiments_manager train {file}")


def test_resume_auto_tells_it_too(settings_file, tmp_path, caplog):
    words = {"working_dir": tmp_path / "runs", "run_name": "mine", "resume": "auto", "quiet": True}
    api.train(settings_file("helper = 1"), **words)
    api.train(settings_file("helper = 2"), **words)
    assert "mysettings_curve.py has changed since the run was started" in caplog.text


@pytest.mark.slow
def test_where_the_settings_file_is_gone_nothing_is_told(interrupted, resume, caplog):
    trained = interrupted()
    trained.settings.file.unlink()
    assert resume(trained.run.path).result.state == "finished"
    assert "changed since" not in caplog.text


def test_a_signal_while_the_model_is_built_ends_the_run_as_interrupted_and_resume_finishes_it(
    settings_file, tmp_path, monkeypatch
):
    monkeypatch.setenv("STOP_IN_MODEL", "1")
    result = api.train(settings_file(STOPPED_IN_MODEL), working_dir=tmp_path / "runs", quiet=True)
    assert (result.state, result.epochs) == ("interrupted", 0)
    manifest = open_run(result.run_dir).manifest
    assert (manifest["state"], manifest["error"]) == ("interrupted", None)
    assert not list(result.run_dir.glob(".*"))
    assert api.resume(result.run_dir, quiet=True).epochs == 2


def test_a_signal_before_there_is_a_run_is_a_keyboard_interrupt_for_notebooks(settings_file, tmp_path):
    file = settings_file("import signal\nsignal.raise_signal(signal.SIGTERM)\n")
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        api.train(file, working_dir=tmp_path / "runs", quiet=True)
    assert not (tmp_path / "runs").exists()
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.slow
def test_a_resume_that_is_stopped_before_it_began_leaves_interrupted_where_a_kill_left_running(
    interrupted, settings_file
):
    trained = interrupted("import os, signal\nif 'STOP_HERE' in os.environ: signal.raise_signal(signal.SIGTERM)\n")
    trained.run.update(state="running")
    code = "import sys\nfrom experiments_manager import api\napi.resume(sys.argv[1], quiet=True)\n"
    words = [sys.executable, "-c", code, str(trained.run.path)]
    done = warm_run(words, env=os.environ | {"STOP_HERE": "1"}, timeout=300)
    assert "KeyboardInterrupt" in done.stderr or "StopRequested" in done.stderr
    assert json.loads(trained.run.manifest_file.read_text())["state"] == "interrupted"


@pytest.mark.parametrize("stopped", [True, False])
def test_a_run_whose_folder_is_gone_at_its_end_says_so(experiment, tmp_path, stopped):
    def lose_the_folder():
        shutil.rmtree(tmp_path / "runs", ignore_errors=True)
        return stopped

    with pytest.raises(RunError, match="was removed, and what was trained is lost"):
        experiment(should_stop=lose_the_folder)


@pytest.mark.slow
def test_a_resume_tells_the_best_epoch_of_its_checkpoint_also_where_run_json_was_left_behind(
    interrupted, resume, recorder
):
    trained = interrupted(epochs=3, early_stopping_min_delta=1e9)
    best = trained.result.best
    trained.run.update(best={**best, "epoch": 7, "value": best["value"] + 1})  # as a kill may leave it
    again = resume(trained.run.path, make_watchers=lambda run, settings: [recorder])
    [start], [end] = recorder.starts, recorder.ends
    told = [start.reached["best"], end.best, again.result.best, trained.run.manifest["best"]]
    assert told == [best] * 4
    assert [report.best for report in recorder.epochs] == [best] * 2


def test_a_resume_that_would_begin_over_lost_checkpoints_is_refused_and_changes_nothing(interrupted, resume):
    trained = interrupted()
    kept = trained.run.path.parent / "kept"
    trained.run.checkpoints_dir.rename(kept)
    before = content(trained.run.path)
    for empty in (False, True):
        if empty:
            trained.run.checkpoints_dir.mkdir()
        with pytest.raises(RunError, match="its checkpoints are gone.*Expected epoch-0000"):
            resume(trained.run.path)
        assert content(trained.run.path) == before
    trained.run.checkpoints_dir.rmdir()
    kept.rename(trained.run.checkpoints_dir)
    assert resume(trained.run.path).result.state == "finished"


def test_a_resume_of_a_run_that_was_killed_before_its_first_checkpoint_says_that_it_begins_again(
    interrupted, resume, caplog
):
    trained = interrupted()
    for path in trained.run.checkpoints_dir.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    (trained.run.checkpoints_dir / ".checkpoint.0-0.partial").mkdir()
    trained.run.update(checkpoint=None, state="running")
    assert resume(trained.run.path).result.epochs == 4
    assert "has no checkpoint: it ended before its first one was whole. It begins again." in caplog.text

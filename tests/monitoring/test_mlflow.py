"""Runs in MLflow, read back by MLflow's own client from a local store."""

import importlib.util
import logging
import math
import os
import textwrap

import numpy as np
import pytest

import experiments_manager as em
from experiments_manager.events import EpochReport, RunEnd
from experiments_manager.settings import SettingsError

pytest.importorskip("mlflow")

from experiments_manager.monitoring import mlflow as logs  # noqa: E402

SOURCE = """
    hparams = {"units": 3, "rate": 0.05, "nothing": None, "layers": [1, 2], "odd:name": "x"}
    learning_rate = hparams["rate"]
    export = True
    mlflow = True
"""


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """A working directory with a run that was interrupted, resumed and finished; what MLflow knew in between."""
    folder = tmp_path_factory.mktemp("mlflow")
    environment = {name: os.environ.pop(name, None) for name in ("MLFLOW_TRACKING_URI", "MLFLOW_ALLOW_FILE_STORE")}
    yield folder
    os.environ.update({name: value for name, value in environment.items() if value is not None})


@pytest.fixture
def client(workspace):
    return logs.connect((workspace / logs.STORE).as_uri())


class Stopper:
    """Interrupts a run after its second epoch, as a signal does."""

    def __init__(self, last_epoch):
        self.last_epoch, self.stop = last_epoch, False

    def on_epoch(self, report):
        self.stop = report.epoch >= self.last_epoch

    def __getattr__(self, name):
        return lambda *content: None


@pytest.fixture(scope="module")
def story(workspace, curve):
    """Trains, interrupts, resumes; gives the run and MLflow's states on the way."""
    from experiments_manager.monitoring.watchers import watchers_of
    from experiments_manager.runs import open_run
    from experiments_manager.settings import load_settings
    from experiments_manager.training.engine import runner
    from experiments_manager.training.engine.context import RunOptions

    file = workspace / "mysettings_curve.py"
    file.write_text(curve + textwrap.dedent(SOURCE))
    stopper = Stopper(2)
    settings = load_settings(file, {"epochs": 4, "figures": True})
    result = runner.start_run(
        settings,
        RunOptions(
            make_watchers=lambda run, settings: [*watchers_of(run, settings, quiet=True), stopper],
            should_stop=lambda: stopper.stop,
        ),
        working_dir=workspace,
        run_name="logged",
        command=["em", "train"],
    )
    run = open_run(result.run_dir)
    client = logs.connect((workspace / logs.STORE).as_uri())
    states = [client.get_run(run.manifest["mlflow"]["run_id"]).info.status]
    em.resume(run, overrides={"epochs": 5, "hparams.units": 4}, quiet=True)
    states.append(client.get_run(run.manifest["mlflow"]["run_id"]).info.status)
    return run, states


@pytest.fixture
def logged(client, story):
    """The run as MLflow has it."""
    return client.get_run(story[0].manifest["mlflow"]["run_id"])


@pytest.mark.slow
def test_an_interrupted_run_is_killed_and_its_resume_finishes_the_same_one(client, story, logged):
    run, states = story
    assert states == ["KILLED", "FINISHED"]
    assert len(client.search_runs([logged.info.experiment_id])) == 1
    assert client.get_experiment(logged.info.experiment_id).name == "curve"
    assert logged.info.run_name == run.name == "logged"


@pytest.mark.slow
def test_hparams_and_settings_that_are_not_as_by_default_are_parameters(logged):
    parameters = logged.data.params
    hparams = {"units": "3", "rate": "0.05", "nothing": "None", "layers": "[1, 2]", "odd_name": "x"}
    assert {name: parameters[name] for name in hparams} == hparams
    assert parameters["settings.batch_size"] == "8"
    assert "settings.export" not in parameters
    assert "settings.hparams" not in parameters


def test_what_a_resume_changed_is_a_tag(logged):
    assert logged.data.params["settings.epochs"] == "4"
    assert logged.data.tags["resumed.settings.epochs"] == "5"
    assert logged.data.tags["resumed.units"] == "4"


def test_every_epoch_has_each_metric_once_as_in_metrics_csv(client, story, logged):
    from experiments_manager.monitoring.metrics_csv import read_rows

    _, rows = read_rows(story[0].metrics_csv)
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4", "5"]
    for name in ("loss", "val_loss", "learning_rate"):
        history = client.get_metric_history(logged.info.run_id, name)
        assert [metric.step for metric in history] == [1, 2, 3, 4, 5]
        assert [metric.value for metric in history] == [float(row[name]) for row in rows]


def test_curves_settings_figures_and_model_are_artefacts(client, story, logged):
    def names(folder=None):
        return {file.path for file in client.list_artifacts(logged.info.run_id, folder)}

    assert {"metrics.csv", "settings", "figures", "model"} <= names()
    assert names("settings") == {"settings/mysettings_curve.py"}
    assert "figures/learning_curves.png" in names("figures")
    assert {"model/MLmodel", "model/saved_model", "model/requirements.txt"} <= names("model")


def test_the_model_can_be_loaded_by_mlflow_and_says_what_the_exported_one_says(client, story, logged):
    pytest.importorskip("pandas")
    import mlflow
    import tensorflow as tf

    folder = client.download_artifacts(logged.info.run_id, "model")
    x = np.ones((4, 3), np.float32)
    said = mlflow.pyfunc.load_model(folder).predict({"position": x})
    run = story[0]
    exported = tf.saved_model.load(str(run.path / run.manifest["exported_model"]))
    expected = exported.signatures["serving_default"](position=tf.constant(x))
    assert said.keys() == expected.keys() == {"height"}
    assert np.array_equal(np.ravel(said["height"]), np.ravel(expected["height"]))


def test_the_source_is_told(logged, story):
    tags = logged.data.tags
    git = story[0].manifest["git"] or {}
    assert tags["mlflow.source.name"] == "settings/mysettings_curve.py"
    assert tags.get("mlflow.source.git.commit") == git.get("commit")
    assert tags["command"] == "em train"
    assert tags["run_dir"] == str(story[0].path)
    assert tags["best_epoch"] == str(story[0].manifest["best"]["epoch"])


def test_runs_are_listed_without_what_mlflow_keeps_beside_them(workspace, story):
    assert [row.name for row in em.list_runs(workspace)] == ["logged"]


def test_the_environment_is_left_as_it_was(story):
    assert "MLFLOW_ALLOW_FILE_STORE" not in os.environ
    assert "MLFLOW_TRACKING_URI" not in os.environ


def test_after_a_kill_each_epoch_is_there_once(make_run, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    run = make_run("killed", git={"commit": "abc123", "branch": "trunk", "dirty": True})
    settings = {"session_name": "story", "hparams": {}}
    for epochs, value in (([1, 2, 3], 0.5), ([3, 4], 0.25)):  # the first session ends without a word
        log = logs.MlflowLog(run, settings, settings)
        log.on_start(None)
        for epoch in epochs:
            log.on_epoch(EpochReport(epoch, 10 * epoch, {"loss": value, "val_loss": math.nan}, 0.1, 1.0, True))
    log.on_end(RunEnd("finished", 4, 1.0, None, {}, None))
    client = logs.connect(logs.tracking_uri(run))
    known = client.get_run(run.manifest["mlflow"]["run_id"])
    history = client.get_metric_history(known.info.run_id, "loss")
    assert [(metric.step, metric.value) for metric in history] == [(1, 0.5), (2, 0.5), (3, 0.5), (4, 0.25)]
    assert len(client.get_metric_history(known.info.run_id, "val_loss")) == 4
    assert known.info.status == "FINISHED"
    assert known.data.tags["mlflow.source.git.commit"] == "abc123"
    assert known.data.tags["git.dirty"] == "true"


def test_what_a_store_missed_is_sent_later(make_run, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    run = make_run("late")
    settings = {"session_name": "story", "hparams": {}}
    log, connect = logs.MlflowLog(run, settings, settings), logs.connect
    monkeypatch.setattr(logs, "connect", lambda uri: 1 / 0)
    log.on_start(None)
    log.on_epoch(EpochReport(1, 10, {"loss": 0.5}, 0.1, 1.0, True))
    monkeypatch.setattr(logs, "connect", connect)
    log.on_epoch(EpochReport(2, 20, {"loss": 0.25}, 0.1, 1.0, True))
    log.on_end(RunEnd("failed", 2, 1.0, None, {}, None))
    client = connect(logs.tracking_uri(run))
    run_id = run.manifest["mlflow"]["run_id"]
    assert [metric.value for metric in client.get_metric_history(run_id, "loss")] == [0.5, 0.25]
    assert client.get_run(run_id).info.status == "FAILED"


def test_a_store_that_lost_the_run_gets_it_anew(make_run, monkeypatch, caplog):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    run = make_run("moved", mlflow={"run_id": "0" * 32, "experiment_id": "1"})
    log = logs.MlflowLog(run, {"session_name": "story", "hparams": {}}, {})
    log.on_start(None)
    assert "does not know this run; a new MLflow run is created" in caplog.text
    assert run.manifest["mlflow"]["run_id"] != "0" * 32


def test_a_run_that_fails_before_its_first_step_is_failed_there_too(settings_file, tmp_path):
    broken = "def loss():\n    raise ValueError('no loss today')\n"
    with pytest.raises(Exception, match="no loss today"):
        em.train(settings_file(SOURCE, broken), working_dir=tmp_path / "runs", quiet=True)
    client = logs.connect((tmp_path / "runs" / logs.STORE).as_uri())
    experiment = client.get_experiment_by_name("curve")
    assert [run.info.status for run in client.search_runs([experiment.experiment_id])] == ["FAILED"]


def test_a_store_that_does_not_answer_is_told_once_and_the_run_finishes(settings_file, tmp_path, monkeypatch, caplog):
    (tmp_path / "in_the_way").write_text("")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "in_the_way").as_uri())
    with caplog.at_level(logging.WARNING):
        result = em.train(settings_file(SOURCE, "export = False"), working_dir=tmp_path / "runs", quiet=True)
    assert result.state == "finished"
    assert len([record for record in caplog.records if "cannot be written to" in record.message]) == 1
    assert not (tmp_path / "runs" / "mlruns").exists()


def test_a_server_that_is_gone_is_not_asked_for_minutes_unless_the_user_says_so(monkeypatch, tmp_path):
    retries, timeout = "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT"
    monkeypatch.delenv(retries, raising=False)
    monkeypatch.setenv(timeout, "7")
    logs.connect(tmp_path.as_uri())
    assert (os.environ[retries], os.environ[timeout]) == ("2", "7")


def test_where_mlflow_is_not_installed_the_settings_are_refused(settings_file, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "mlflow" else find(name, *rest)
    )
    with pytest.raises(SettingsError, match="pip install 'mlflow-skinny"):
        em.load_settings(settings_file(SOURCE))
    assert em.load_settings(settings_file(SOURCE), {"mlflow": False}).mlflow is False


@pytest.mark.parametrize(
    ("name", "safe"), [("val_loss", "val_loss"), ("a/b c.d-e", "a/b c.d-e"), ("odd:näme*", "odd_näme_"), ("", "_")]
)
def test_names_are_such_as_mlflow_allows(name, safe):
    assert logs.safe_name(name) == safe

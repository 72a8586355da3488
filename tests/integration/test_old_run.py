"""A run folder that version 0.1.0 made before the package had its present rooms: everything still works with it.

`tests/fixtures/old_run` was interrupted by SIGTERM within the third of four epochs (step 38 of 60).
"""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest

import experiments_manager as em

FIXTURE = Path(__file__).parents[1] / "fixtures" / "old_run"
FINISHED = [1.0912225, 0.3867806, 0.2994170, 0.2578199]
"""`loss` of each epoch after the release that made the folder had resumed it."""


@pytest.fixture
def old_run(tmp_path):
    return shutil.copytree(FIXTURE, tmp_path / "old_run")


def losses(folder):
    with (folder / "metrics.csv").open(encoding="utf-8", newline="") as stream:
        return [float(row["loss"]) for row in csv.DictReader(stream)]


def variables(folder):
    from experiments_manager.training.state.checkpoints import read_latest

    _, snapshot = read_latest(folder / "checkpoints")
    return {name: value.numpy() for name, value in snapshot.tensors.items()}


def test_it_is_listed_and_reported(old_run, tmp_path):
    [row] = em.list_runs(tmp_path)
    assert (row.state, row.epochs) == ("interrupted", 2)
    page = em.report(old_run, tmp_path / "page.html")
    assert "old_run" in page.read_text(encoding="utf-8")


@pytest.mark.slow
def test_it_is_resumed_as_if_it_had_never_been_interrupted(old_run, tmp_path, tensorflow):
    source = (old_run / "settings" / "mysettings_old_run.py").read_text(encoding="utf-8")
    file = tmp_path / "mysettings_undisturbed.py"
    file.write_text(source.partition("class StopHere")[0], encoding="utf-8")
    whole = em.train(file, overrides={"working_dir": str(tmp_path / "whole")}, quiet=True)
    em.resume(old_run, quiet=True)
    assert losses(old_run) == pytest.approx(FINISHED, rel=1e-3)
    resumed, undisturbed = variables(old_run), variables(whole.run_dir)
    assert resumed.keys() == undisturbed.keys()
    assert all(_close(resumed[name], undisturbed[name]) for name in resumed)
    same = old_run / "settings" / "mysettings_old_run.py"
    stopped = em.train(same, overrides={"working_dir": str(tmp_path / "stopped")}, quiet=True)
    if differing(variables(stopped.run_dir), variables(FIXTURE)):
        pytest.skip("this processor computes other last bits than the one that the folder was made on")
    assert differing(resumed, undisturbed) == []


def differing(one, other):
    return [name for name in one if not np.array_equal(one[name], other[name])]


def _close(one, other):
    return np.allclose(one, other, rtol=1e-3, atol=1e-5) if one.dtype.kind == "f" else np.array_equal(one, other)


@pytest.mark.slow
def test_it_is_evaluated_and_served(old_run, running, tensorflow):
    assert em.evaluate(old_run)["loss"] < 1.0
    with running.running_server([f"--model_base_path={old_run / 'exported_models'}", "--model_name=old"]) as server:
        answer = server.post("/v1/models/old:predict", {"instances": [[0.0], [1.0]]})
        assert np.shape(answer.json["predictions"]) == (2, 1)

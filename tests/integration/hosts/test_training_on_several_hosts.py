"""One training by several processes on the loopback address, as on several hosts, started by the command line."""

import json
import shutil
import signal

import pytest

from experiments_manager.common.exit_codes import ExitCode
from tests.helpers.training_hosts import (
    SETTINGS,
    Training,
    assert_near,
    assert_same_bits,
    rows_of,
    tensors_of,
    trained,
    weights_of,
)

pytestmark = pytest.mark.slow

SECONDS_TO_STOP = 30.0
NOTHING_DRAWN = ("--set", "figures=False", "--set", "export=False")
"""Only the runs whose folders are compared draw and export."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("hosts")


@pytest.fixture(scope="module")
def alone(folder):
    """The run of one process."""
    return trained(folder, "alone", 1)


@pytest.fixture(scope="module")
def two(folder):
    """The run of two processes."""
    return trained(folder, "two", 2)


def test_two_processes_train_what_one_does_and_only_the_chief_writes(folder, alone, two):
    assert_near(weights_of(alone), weights_of(two))
    assert len(rows_of(two)) == 4
    written = {path.relative_to(alone).parts[0] for path in alone.rglob("*")}
    assert {path.relative_to(two).parts[0] for path in two.rglob("*")} == written
    assert not list((folder / "two").glob("experiments_manager-worker-*"))
    manifest = json.loads((two / "run.json").read_text())
    assert (manifest["state"], manifest["workers"], len(manifest["devices"])) == ("finished", 2, 2)


def test_three_processes_share_batches_that_cannot_be_shared_evenly(folder):
    uneven = (*NOTHING_DRAWN, "--set", "samples=230", "--set", "epochs=2")  # the last batch has 14 rows
    one, three = trained(folder, "uneven-alone", 1, *uneven), trained(folder, "uneven", 3, *uneven)
    assert_near(weights_of(one), weights_of(three))
    for row, other in zip(rows_of(one), rows_of(three), strict=True):
        assert float(other["val_loss"]) == pytest.approx(float(row["val_loss"]), abs=1e-5)


@pytest.fixture(scope="module")
def stopped(folder):
    """A run that worker 1 was asked to stop, and where a copy of it is."""
    place = ("--working-dir", folder / "runs", "--run-name", "stopped")
    command = ("train", SETTINGS, *place, "--set", "pause=2", *NOTHING_DRAWN)
    run = folder / "runs" / "stopped"
    with Training(folder / "stopped", 2, *command) as training:
        training.wait_for((run / "checkpoints" / "latest").exists)
        training.processes[1].send_signal(signal.SIGTERM)
        assert training.end() == [ExitCode.INTERRUPTED] * 2, training.output
    assert json.loads((run / "run.json").read_text())["state"] == "interrupted"
    shutil.copytree(run, folder / "copy")
    return run


def test_a_lost_worker_stops_all_and_resumes_end_with_the_same_bits(folder, two, stopped):
    before = (stopped / "checkpoints" / "latest").read_text()
    with Training(folder / "stopped", 2, "resume", stopped) as training:
        training.wait_for(lambda: (stopped / "checkpoints" / "latest").read_text() != before)
        training.processes[1].send_signal(signal.SIGKILL)
        assert training.end(SECONDS_TO_STOP) == [ExitCode.INTERRUPTED, -signal.SIGKILL], training.output
        assert training.output[0].count("Worker 1") == 1, training.output[0]
        assert "All processes of this training stop" in training.output[0]
        assert "Traceback" not in training.output[0]
    assert json.loads((stopped / "run.json").read_text())["state"] == "interrupted"
    with Training(folder / "stopped", 2, "resume", stopped, "--set", "pause=0") as training:
        assert training.end() == [0, 0], training.output
        assert "rounded differently" not in training.output[0]
    assert_same_bits(tensors_of(two), tensors_of(stopped))
    assert rows_of(two) == rows_of(stopped)


def test_a_mistake_that_only_one_process_meets_ends_all_as_a_mistake(folder):
    words = ("--working-dir", folder / "runs", "--run-name", "mistaken", "--set", "unreadable_at=1")
    with Training(folder / "mistaken", 2, "train", SETTINGS, *words) as training:
        assert training.end() == [ExitCode.USER_CODE_FAILED] * 2, training.output
        assert "Worker 1" in training.output[0]
        assert "the local disk of this host is empty" in training.output[0]
    assert json.loads((folder / "runs/mistaken/run.json").read_text())["state"] == "failed"


def test_a_resume_by_another_number_of_processes_goes_on_and_says_what_that_means(folder, two, stopped):
    copy = folder / "copy"
    with Training(folder / "stopped", 3, "resume", copy, "--set", "pause=0") as training:
        assert training.end() == [0] * 3, training.output
        assert "trained by 2 processes and goes on with 3: sums are rounded differently" in training.output[0]
    assert_near(weights_of(two), weights_of(copy))
    assert len(rows_of(copy)) == 4

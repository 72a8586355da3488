"""What a run does when the disk is full, the numbers are none, or memory runs out."""

import csv
import json
import logging

import pytest

from tests.helpers.survival import case
from tools.bench import survival as bench

pytestmark = pytest.mark.slow

BAD_INPUT = 2

BLOWS_UP = """
import tensorflow as tf

epochs = 60
early_stopping_patience = None
checkpoint_every_steps = 4
on_nan = "reload"
reduce_lr_factor = 0.3
learning_rate = 4.0


def optimizer(learning_rate):
    return keras.optimizers.SGD(learning_rate)


def dataset(split):
    x = np.random.default_rng(samples[split]).normal(size=(samples[split], 3)).astype("float32")
    return x, x.sum(axis=1, keepdims=True)
"""

NEVER_A_NUMBER_AFTER_STEP_12 = """
on_nan = "reload"
checkpoint_every_steps = 4
epochs = 5


class Spoilt(keras.Sequential):
    def train_step(self, data):
        logs = super().train_step(data)
        spoilt = self.optimizer.iterations > 12
        return logs | {"loss": tf.where(spoilt, float("nan"), logs["loss"])}


def model():
    return Spoilt([keras.Input([3]), keras.layers.Dense(1)])
"""


class FillsTheDisk:
    """Fills it at the end of one epoch and clears it at the end of another, each time while nothing is being written.

    What is being written when the disk fills up may free as much as the next one takes.
    """

    def __init__(self, folder, filled_after, cleared_after, settle):
        self.ballast, self.filled_after, self.cleared_after = folder / "ballast", filled_after, cleared_after
        self.settle = settle

    def on_epoch(self, report):
        if report.epoch in (self.filled_after, self.cleared_after):
            self.settle()
        if report.epoch == self.filled_after:
            with self.ballast.open("ab", buffering=0) as stream:
                try:
                    while True:
                        stream.write(bytes(4096))
                except OSError:
                    pass
        elif report.epoch == self.cleared_after:
            self.ballast.unlink()


@pytest.fixture
def checkpoints_by_steps_alone(monkeypatch):
    """No checkpoint at the end of an epoch because the last one is seconds old, which a slow machine would make."""
    from experiments_manager.training.engine import loop

    monkeypatch.setattr(loop, "SECONDS_BETWEEN_EPOCH_CHECKPOINTS", float("inf"))


def epochs_in_metrics_csv(run_dir):
    lines = (run_dir / "metrics.csv").read_text().splitlines()
    return [int(row["epoch"]) for row in csv.DictReader(lines)]


def test_training_outlives_a_full_disk_and_writes_everything_when_there_is_room(
    settings_file, mounted_disk, recorder, caplog, settle
):
    from experiments_manager import api
    from experiments_manager.training.state.checkpoints import read_latest

    disk = mounted_disk("3m")
    ballast = FillsTheDisk(disk, filled_after=3, cleared_after=9, settle=settle)
    recorder.on_epoch = ballast.on_epoch
    file = settings_file("export = True\nepochs = 14\ncheckpoint_every_steps = 2\nlearning_rate = 0.001")
    with caplog.at_level(logging.WARNING):
        result = api.train(file, working_dir=disk, quiet=True, watchers=[recorder])
    assert (result.state, result.epochs) == ("finished", 14)
    told = [record.getMessage() for record in caplog.records]
    for beginning in ("A checkpoint could not be written", "Checkpoints are written again"):
        assert sum(beginning in text for text in told) == 1, told
    assert sum("metrics.csv cannot be written" in text for text in told) <= 1
    assert sum("was not published" in text for text in told) <= 1

    assert epochs_in_metrics_csv(result.run_dir) == list(range(1, 15))
    _, snapshot = read_latest(result.run_dir / "checkpoints")
    assert (snapshot.progress.epoch, snapshot.progress.global_step) == (14, 70)
    assert result.exported_model.name == str(result.best["step"])
    assert json.loads((result.run_dir / "run.json").read_text())["state"] == "finished"
    assert not list(result.run_dir.rglob("*.partial"))


@pytest.mark.parametrize("export", [True, False])
def test_a_disk_that_is_full_to_the_very_end_ends_the_run_as_failed_and_says_so_everywhere(
    settings_file, mounted_disk, recorder, settle, capsys, export
):
    from experiments_manager import api
    from experiments_manager.cli.main import report
    from experiments_manager.runs import RunError, list_runs

    disk = mounted_disk("3m")
    recorder.on_epoch = FillsTheDisk(disk, filled_after=3, cleared_after=None, settle=settle).on_epoch
    file = settings_file(f"export = {export}\nepochs = 8\ncheckpoint_every_steps = 2\nlearning_rate = 0.001")
    with pytest.raises(RunError, match="could not be saved: .*No space left") as raised:
        api.train(file, working_dir=disk, quiet=True, watchers=[recorder])
    assert report(raised.value) == BAD_INPUT
    assert "is full, free some space), then go on from its checkpoint epoch-0000" in capsys.readouterr().err
    [row] = list_runs(disk)
    assert (row.state, row.epochs) == ("failed", 8)
    assert "No space left" in json.loads((row.path / "run.json").read_text())["error"]["text"]
    [end] = recorder.ends
    assert (end.state, end.epochs) == ("failed", 8)

    (disk / "ballast").unlink()
    result = api.resume(row.path, quiet=True)
    assert (result.state, result.epochs) == ("finished", 8)
    assert epochs_in_metrics_csv(row.path) == list(range(1, 9))


@pytest.mark.usefixtures("checkpoints_by_steps_alone")
def test_after_a_learning_rate_that_blows_up_training_goes_back_with_a_lower_one_and_learns(experiment, settle):
    trained = experiment(BLOWS_UP, should_stop=settle)
    reloads = [text for text in trained.messages if text.startswith("The loss was not finite after step")]
    assert 1 <= len(reloads) <= 3
    assert trained.result.state == "finished"
    assert trained.snapshot.progress.reloads == len(reloads)
    assert trained.epochs[-1].learning_rate < 4.0
    assert trained.epochs[-1].logs["loss"] < 1e-3


@pytest.mark.usefixtures("checkpoints_by_steps_alone")
def test_epochs_that_are_trained_again_after_a_reload_stand_once_in_metrics_csv(settings_file, tmp_path, recorder):
    from experiments_manager import api

    seldom = BLOWS_UP.replace("every_steps = 4", "every_steps = 12")  # so it goes back over the end of an epoch
    result = api.train(settings_file(seldom), working_dir=tmp_path, quiet=True, watchers=[recorder])
    told = [report.epoch for report in recorder.epochs]
    assert len(told) > len(set(told))
    assert epochs_in_metrics_csv(result.run_dir) == list(range(1, 61))


def test_training_gives_up_after_going_back_three_times(experiment, only_run):
    from experiments_manager.training.errors import DivergedError

    with pytest.raises(DivergedError, match="after step 13 .* Training went back to a checkpoint 3 times"):
        experiment(NEVER_A_NUMBER_AFTER_STEP_12)
    manifest = only_run().manifest
    assert (manifest["state"], manifest["error"]["type"]) == ("failed", "DivergedError")


def test_out_of_memory_names_the_batch_size_and_what_takes_less(tmp_path):
    with bench.Training(case("too_large"), tmp_path) as training:
        code, output = training.wait(), training.output
    assert code == BAD_INPUT, output
    assert "\nMemory ran out in epoch 1 after step" in output
    assert "with batch_size = 8" in output
    assert "`batch_size = 4` and `gradient_accumulation_steps = 2`" in output
    assert training.manifest["state"] == "failed"

"""What a run does in a folder on a slow shared file system, and when the quota there is used up."""

import csv
import json
import logging
import threading
import time

import pytest

pytestmark = pytest.mark.slow

MILLISECONDS = 1
"""Of each call; the loop's thread makes none, however long they are."""
WATCHED = """
epochs = 12
export = True
checkpoint_every_steps = 2
log_every_steps = 2
histogram_every = 1
embeddings = []
figures = False
"""
"""What is written in each epoch, and little at the end."""


RESTORABLE = """
epochs = 3
export = False
checkpoint_every_steps = 3


def sample(number):
    x = tf.fill([3], tf.cast(number, "float32") / 40)
    return x, tf.reduce_sum(x, keepdims=True)


def dataset(split):
    return tf.data.Dataset.range(samples[split]).map(sample).batch(8)
"""
"""A pipeline whose iterator is part of each checkpoint."""


class Loop:
    """Notes in which thread training goes on, and when epochs end."""

    def __init__(self):
        self.thread, self.ends = threading.get_native_id(), []

    def on_epoch(self, report):
        self.ends.append(time.monotonic())


def epochs_in_metrics_csv(run_dir):
    return [int(row["epoch"]) for row in csv.DictReader((run_dir / "metrics.csv").read_text().splitlines())]


@pytest.mark.parametrize("data", ["", RESTORABLE], ids=["arrays", "pipeline"])
def test_between_the_first_step_and_the_last_the_loop_makes_no_call_to_the_disk(
    settings_file, slow_disk, recorder, tmp_path, settle, data
):
    from experiments_manager import api

    disk, loop = slow_disk(MILLISECONDS), Loop()
    recorder.on_epoch = loop.on_epoch
    if data:
        recorder.on_progress = lambda progress: settle()  # so that each checkpoint is written
    file = settings_file(WATCHED, data)
    result = api.train(file, working_dir=disk.folder, quiet=True, watchers=[recorder])
    csv_on_slow_disk = (result.run_dir / "metrics.csv").read_bytes()
    slow_disk.unmount()
    first, last = loop.ends[0], loop.ends[-1]
    meanwhile = [call for call in disk.calls() if first < call.time < last]
    of_loop = [f"{call.operation} {call.path}" for call in meanwhile if call.thread == loop.thread]
    assert of_loop == []
    assert [call for call in meanwhile if call.operation == "write"]  # the others wrote all the while
    kinds = {call.path.rpartition("/")[2].partition(".")[0] for call in meanwhile if "/checkpoints/" in call.path}
    assert ("iterator-train" in kinds) == bool(data), kinds

    fast = api.train(file, working_dir=tmp_path / "fast", quiet=True)
    assert csv_on_slow_disk == (fast.run_dir / "metrics.csv").read_bytes()


def test_a_quota_that_is_used_up_for_a_while_costs_nothing_that_is_not_written_later(
    settings_file, slow_disk, recorder, caplog, settle
):
    from experiments_manager import api
    from experiments_manager.training.state.checkpoints import read_latest

    disk = slow_disk(0)

    def use_up_and_free(report):
        settle()
        if report.epoch == 3:
            disk.quota_file.touch()
        if report.epoch == 9:
            disk.quota_file.unlink()

    recorder.on_epoch = use_up_and_free
    with caplog.at_level(logging.WARNING):
        result = api.train(settings_file(WATCHED), working_dir=disk.folder, quiet=True, watchers=[recorder])
    assert (result.state, result.epochs) == ("finished", 12)
    told = [record.getMessage() for record in caplog.records]
    [lost] = [text for text in told if text.startswith("A checkpoint could not be written")]
    assert "quota exceeded" in lost.lower() and "free some space on the disk that holds" in lost
    assert sum(text.startswith("Checkpoints are written again") for text in told) == 1, told
    assert epochs_in_metrics_csv(result.run_dir) == list(range(1, 13))
    _, snapshot = read_latest(result.run_dir / "checkpoints")
    assert (snapshot.progress.epoch, snapshot.progress.global_step) == (12, 60)
    assert json.loads((result.run_dir / "run.json").read_text())["state"] == "finished"


def test_a_quota_that_is_used_up_to_the_end_ends_the_run_as_failed_and_says_so(
    settings_file, slow_disk, recorder, capsys
):
    from experiments_manager import api
    from experiments_manager.cli.main import report
    from experiments_manager.common.exit_codes import ExitCode
    from experiments_manager.runs import RunError

    disk = slow_disk(0)
    recorder.on_epoch = lambda report: disk.quota_file.touch()
    with pytest.raises(RunError, match="could not be saved: .*quota exceeded") as raised:
        api.train(settings_file("epochs = 4"), working_dir=disk.folder, quiet=True, watchers=[recorder])
    assert report(raised.value) == ExitCode.BAD_INPUT
    assert "free some space), then go on from its" in capsys.readouterr().err
    disk.quota_file.unlink()
    [run_dir] = disk.folder.iterdir()
    result = api.resume(run_dir, quiet=True)
    assert (result.state, result.epochs) == ("finished", 4)
    assert epochs_in_metrics_csv(run_dir) == [1, 2, 3, 4]


def test_a_run_is_not_begun_where_the_quota_is_used_up(settings_file, slow_disk):
    from experiments_manager import api
    from experiments_manager.runs import RunError

    disk = slow_disk(0)
    disk.quota_file.touch()
    with pytest.raises(RunError, match=r"the disk quota is used up\. Free some space, or choose another working_dir"):
        api.train(settings_file(), working_dir=disk.folder, quiet=True)

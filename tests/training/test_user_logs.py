"""The hook `tensorboard_logs`."""

import numpy as np
import pytest
import tensorflow as tf

from experiments_manager.settings import UserCodeError

HOOK = """
    seen = []

    def tensorboard_logs(model, epoch, logs, validation_data):
        x, y = next(iter(validation_data))
        seen.append((epoch, logs, model.get_weights()))
        tf.summary.scalar("largest error", tf.reduce_max(abs(y - model(x))))
        tf.summary.scalar("twice", 2 * epoch, step=epoch * 100)
"""


def events(run):
    found = []
    for file in sorted((run.logs_dir / "custom").glob("events*")):
        for record in tf.data.TFRecordDataset(str(file)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            found += [(value.tag, event.step, float(tf.make_ndarray(value.tensor))) for value in event.summary.value]
    return found


def test_the_hook_is_called_after_each_epoch_and_its_summaries_are_written(experiment):
    trained = experiment(HOOK)
    seen = trained.settings.module.seen
    assert [(epoch, logs) for epoch, logs, _ in seen] == [(report.epoch, report.logs) for report in trained.epochs]
    written = events(trained.run)
    assert [(tag, step) for tag, step, _ in written] == [
        ("largest error", 1),
        ("twice", 100),
        ("largest error", 2),
        ("twice", 200),
    ]
    assert [value for tag, _, value in written if tag == "twice"] == [2.0, 4.0]


def test_the_hook_sees_the_averaged_weights_that_were_validated(experiment):
    trained = experiment(HOOK)
    kernel, bias = trained.settings.module.seen[-1][2]
    assert np.array_equal(kernel, trained.tensors["averages/0000"])
    assert np.array_equal(bias, trained.tensors["averages/0001"])


def test_without_tensorboard_the_hook_is_not_called(experiment):
    trained = experiment(HOOK, {"tensorboard": False})
    assert trained.settings.module.seen == []
    assert not trained.run.logs_dir.exists()


def test_a_hook_that_raises_fails_the_run_at_its_line(experiment, only_run):
    with pytest.raises(UserCodeError, match="tensorboard_logs: ZeroDivisionError"):
        experiment("def tensorboard_logs():\n    1 / 0\n")
    assert only_run().manifest["error"]["type"] == "ZeroDivisionError"


def test_a_folder_that_cannot_be_made_costs_the_logs_and_not_the_run(experiment, caplog):
    source = """
        def callbacks(run):
            run.logs_dir.write_text("in the way")
            return []
    """
    assert experiment([HOOK, source]).result.state == "finished"
    assert "Summaries cannot be written" in caplog.text

"""The hook `tensorboard_logs`."""

import shutil

import numpy as np
import pytest
import tensorflow as tf

from experiments_manager.settings import UserCodeError
from experiments_manager.training.observe.user_logs import drop_from, mark_epoch

HOOK = """
    seen = []

    def tensorboard_logs(model, epoch, logs, validation_data):
        x, y = next(iter(validation_data))
        seen.append((epoch, logs, model.get_weights()))
        tf.summary.scalar("largest error", tf.reduce_max(abs(y - model(x))))
        tf.summary.scalar("twice", 2 * epoch, step=epoch * 100)
"""


@pytest.fixture
def experiment(experiment):
    """Trains with TensorBoard's logs."""

    def train(source="", overrides=(), **options):
        sources = [source] if isinstance(source, str) else source
        return experiment(["tensorboard = True\n", *sources], overrides, **options)

    return train


def in_order_of_time(files):
    """TensorFlow ends the names of files of one second in a number that grows, in digits too."""
    return sorted(files, key=lambda file: (len(file.name), file.name))


def events(run, folder="custom"):
    found = []
    for file in in_order_of_time((run.logs_dir / folder).glob("events*")):
        for record in tf.data.TFRecordDataset(str(file)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            found += [(value.tag, event.step, float(tf.make_ndarray(value.tensor))) for value in event.summary.value]
    return found


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_resumed_run_shows_each_of_its_epochs_once_whatever_steps_the_hook_names(experiment, resume):
    trained = experiment(HOOK, {"epochs": 3})
    assert [step for tag, step, _ in events(trained.run) if tag == "twice"] == [100, 200, 300]
    for file in trained.run.checkpoints_dir.iterdir():  # as if it had been killed before the first checkpoint
        shutil.rmtree(file) if file.is_dir() else file.unlink()
    trained.run.update(state="interrupted", checkpoint=None, epochs=0, global_step=0)
    resumed = resume(trained.run.path, {"epochs": 2})
    assert [step for tag, step, _ in events(resumed.run) if tag == "twice"] == [100, 200]
    more = resume(trained.run.path, {"epochs": 4})
    assert [(step, value) for tag, step, value in events(more.run) if tag == "twice"] == [
        (100, 2.0),
        (200, 4.0),
        (300, 6.0),
        (400, 8.0),
    ]


def test_what_was_written_from_an_epoch_on_is_dropped_with_a_record_that_was_cut_off(tmp_path):
    for epochs in ([1, 2], [3, 4]):
        writer = tf.summary.create_file_writer(str(tmp_path))
        for epoch in epochs:
            with writer.as_default(step=1000 - epoch):
                tf.summary.scalar("value", epoch)
            mark_epoch(writer, epoch)
        writer.close()
    first, second = in_order_of_time(tmp_path.iterdir())
    second.write_bytes(second.read_bytes()[:-9])
    drop_from(tmp_path, 4)
    records = [len(list(tf.data.TFRecordDataset(str(file)))) for file in (first, second)]
    assert records == [5, 3]  # what the file is, then value and mark of each epoch
    drop_from(tmp_path, 2)
    assert [file.name for file in tmp_path.iterdir()] == [first.name]
    assert len(list(tf.data.TFRecordDataset(str(first)))) == 3


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


def test_under_its_earlier_name_the_hook_counts_epochs_from_0(experiment):
    source = """
        seen = []
        def custom_tensorboard_logs(model, epoch, logs):
            seen.append(epoch)
            tf.summary.scalar("unnamed", 1.0)
            tf.summary.scalar("named", 1.0, step=epoch)
    """
    trained = experiment(source)
    assert trained.settings.module.seen == [0, 1]
    assert [(tag, step) for tag, step, _ in events(trained.run)] == [
        ("unnamed", 0),
        ("named", 0),
        ("unnamed", 1),
        ("named", 1),
    ]


@pytest.mark.slow
def test_under_its_earlier_name_a_resumed_run_shows_each_epoch_once(experiment, resume):
    source = """
        def custom_tensorboard_logs(model, epoch, logs):
            tf.summary.scalar("named", 1.0, step=epoch)
    """
    trained = experiment(source)
    resume(trained.run.path, {"epochs": 4})
    assert [step for _, step, _ in events(trained.run)] == [0, 1, 2, 3]


@pytest.mark.slow
def test_callbacks_of_an_earlier_file_find_a_writer_and_a_resume_shows_each_epoch_once(experiment, resume):
    source = """
        def addon_callbacks(model, train_samples, val_samples):
            def note(epoch, logs):
                tf.summary.scalar("noted", 1.0, step=epoch)
            return {"note": keras.callbacks.LambdaCallback(on_epoch_end=note)}
    """
    trained = experiment(source)
    resume(trained.run.path, {"epochs": 4})
    assert [(tag, step) for tag, step, _ in events(trained.run, "callbacks")] == [("noted", step) for step in range(4)]


@pytest.mark.slow
def test_callbacks_of_a_file_of_today_open_their_own(experiment):
    trained = experiment("callbacks = [keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: None)]\n")
    assert not (trained.run.logs_dir / "callbacks").exists()


MANY_SUMMARIES_ON_A_FULL_DISK = """
def tensorboard_logs(run, epoch):
    if FIRST <= epoch < FIRST + 2:
        with (run.path / "ballast").open("ab", buffering=0) as stream:
            try:
                while stream.write(bytes(4096)):
                    pass
            except OSError:
                pass
    for number in range(30):  # more than what is left of the file's last page
        tf.summary.text(f"value_{number}", "x" * 1000)


class FreesTheDisk(keras.callbacks.Callback):
    def __init__(self, ballast):
        super().__init__()
        self.ballast = ballast

    def on_epoch_end(self, epoch, logs=None):
        if epoch + 1 == FIRST + 1:
            self.ballast.unlink()


def callbacks(run):
    return [FreesTheDisk(run.path / "ballast")]
"""


@pytest.mark.slow
@pytest.mark.parametrize(("first", "written"), [(1, [3, 4, 5]), (2, [1, 4, 5])])
def test_a_disk_that_is_full_for_a_while_costs_the_epochs_in_between_and_says_so(
    experiment, mounted_disk, caplog, first, written
):
    source = MANY_SUMMARIES_ON_A_FULL_DISK.replace("FIRST", str(first))
    trained = experiment(source, {"epochs": 5}, working_dir=mounted_disk("3m"))
    assert trained.result.state == "finished"
    files = in_order_of_time((trained.run.logs_dir / "custom").glob("events*"))
    found = [tf.compat.v1.Event.FromString(r.numpy()) for file in files for r in tf.data.TFRecordDataset(str(file))]
    assert [event.step for event in found for value in event.summary.value if value.tag == "value_29"] == written
    assert sum(text.startswith("Summaries cannot be written") for text in caplog.messages) == 1
    assert any(text.endswith("again; lost: 2 epochs.") for text in caplog.messages)

"""TensorBoard logs, read again with TensorBoard's own readers."""

import contextlib
import dataclasses
import logging
import shutil

import numpy as np
import pytest
from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator as PluginEventAccumulator
from tensorboard.context import RequestContext
from tensorboard.plugins import base_plugin
from tensorboard.plugins.hparams import api_pb2, backend_context, list_session_groups, metadata

from experiments_manager.events import EpochReport, ModelView, Rollback, RunEnd, RunStart, StepReport
from experiments_manager.monitoring.tensorboard import event_files
from experiments_manager.monitoring.tensorboard.event_files import EventFile, scalars_summary
from experiments_manager.monitoring.tensorboard.scalars import TensorBoardLogs, hparam_value
from experiments_manager.monitoring.tensorboard.texts import code_block


def start(logs_dir, first_epoch=1, **hparams):
    return RunStart(logs_dir.parent, "test", hparams, 10, first_epoch, 10, 31, ("CPU",), "val_loss")


def report(epoch, scale=1.0):
    logs = {"loss": scale / epoch, "accuracy": 0.5, "val_loss": 2 * scale / epoch, "val_accuracy": 0.25}
    return EpochReport(epoch, 10 * epoch, logs, 0.1, 0.5, True)


def end(state="finished"):
    return RunEnd(state, 3, 1.0, None, {}, None)


def train(logs_dir, epochs, first_epoch=1, state="finished", scale=1.0, texts=None, **hparams):
    logs = TensorBoardLogs(logs_dir, texts)
    logs.on_start(start(logs_dir, first_epoch, **hparams))
    for epoch in epochs:
        logs.on_epoch(report(epoch, scale))
    if state is not None:
        logs.on_end(end(state))


def read(folder):
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
    accumulator.Reload()
    return accumulator


def scalars(folder, tag):
    return [(event.step, pytest.approx(event.value)) for event in read(folder).Scalars(tag)]


def hparams_page(logs_dir):
    """Asks TensorBoard's HParams page what it shows of a folder of runs."""
    multiplexer = plugin_event_multiplexer.EventMultiplexer()
    multiplexer.AddRunsFromDirectory(str(logs_dir))
    multiplexer.Reload()
    provider = data_provider.MultiplexerDataProvider(multiplexer, str(logs_dir))
    context = backend_context.Context(base_plugin.TBContext(data_provider=provider, logdir=str(logs_dir)))
    request_context = RequestContext()
    found = context.hparams_metadata(request_context, "")
    runs = context.scalars_metadata(request_context, "")
    experiment = context.experiment_from_metadata(request_context, "", True, found, None)
    request = api_pb2.ListSessionGroupsRequest(
        start_index=0,
        slice_size=10,
        allowed_statuses=[
            api_pb2.STATUS_UNKNOWN,
            api_pb2.STATUS_SUCCESS,
            api_pb2.STATUS_FAILURE,
            api_pb2.STATUS_RUNNING,
        ],
    )
    assert runs
    groups = list_session_groups.Handler(request_context, context, "", request).run()
    return experiment, groups.session_groups


@pytest.fixture
def logs_dir(tmp_path):
    return tmp_path / "run" / "logs"


def test_training_and_validation_share_names_so_that_they_share_a_chart(logs_dir):
    train(logs_dir, [1, 2])
    assert scalars(logs_dir / "train", "loss") == [(1, 1.0), (2, 0.5)]
    assert scalars(logs_dir / "validation", "loss") == [(1, 2.0), (2, 1.0)]
    tags = read(logs_dir / "validation").Tags()["scalars"]
    assert sorted(tag for tag in tags if not tag.startswith("best/")) == ["accuracy", "loss"]


def test_learning_rate_and_seconds_are_among_the_training_scalars(logs_dir):
    train(logs_dir, [1])
    assert scalars(logs_dir / "train", "learning_rate") == [(1, 0.1)]
    assert scalars(logs_dir / "train", "epoch_seconds") == [(1, 0.5)]


def test_the_readers_of_tensorboard_itself_see_each_epoch_once(logs_dir):
    train(logs_dir, [1, 2, 3], state=None)
    train(logs_dir, [2, 3], first_epoch=2, scale=10.0)
    accumulator = PluginEventAccumulator(str(logs_dir / "train"))
    accumulator.Reload()
    assert accumulator.SummaryMetadata("loss").plugin_data.plugin_name == "scalars"
    assert [event.step for event in accumulator.Tensors("loss")] == [1, 2, 3]


def test_a_killed_run_has_lost_no_epoch(logs_dir):
    train(logs_dir, [1, 2, 3], state=None)
    assert [step for step, _ in scalars(logs_dir / "train", "loss")] == [1, 2, 3]


def test_epochs_trained_again_after_a_resume_replace_the_earlier_ones(logs_dir):
    train(logs_dir, [1, 2, 3, 4], state=None)
    train(logs_dir, [3, 4, 5], first_epoch=3, scale=10.0)
    assert scalars(logs_dir / "train", "loss") == [(1, 1.0), (2, 0.5), (3, 10 / 3), (4, 2.5), (5, 2.0)]
    assert [step for step, _ in scalars(logs_dir / "validation", "loss")] == [1, 2, 3, 4, 5]


def test_a_run_resumed_twice_shows_each_epoch_once(logs_dir):
    train(logs_dir, [1, 2, 3], state=None)
    train(logs_dir, [2, 3], first_epoch=2, state=None)
    train(logs_dir, [3, 4], first_epoch=3)
    assert [step for step, _ in scalars(logs_dir / "train", "loss")] == [1, 2, 3, 4]


def test_a_record_that_was_cut_off_does_not_hide_the_resumed_epochs(logs_dir):
    train(logs_dir, [1, 2, 3], state=None)
    (file,) = (logs_dir / "train").iterdir()
    file.write_bytes(file.read_bytes()[:-7])
    train(logs_dir, [3, 4], first_epoch=3)
    assert [step for step, _ in scalars(logs_dir / "train", "loss")] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (10, 10),
        (0.1, 0.1),
        (True, True),
        ("adam", "adam"),
        (None, "None"),
        ([1, 2], "[1, 2]"),
        ((1, "a"), '[1, "a"]'),
        ({"a": None}, '{"a": null}'),
        (np.float32(0.5), 0.5),
        (np.array(3), 3),
        (len, "<built-in function len>"),
    ],
)
def test_every_kind_of_hparam_can_be_shown(value, shown):
    assert hparam_value(value) == shown
    assert type(hparam_value(value)) is type(shown)


def test_the_hparams_page_shows_values_metrics_and_state(logs_dir):
    train(logs_dir, [1, 2], units=10, flag=True, optimizer="adam", missing=None, layers=[8, 4])
    experiment, (group,) = hparams_page(logs_dir.parent.parent)
    assert {name: value.WhichOneof("kind") for name, value in group.hparams.items()} == {
        "units": "number_value",
        "flag": "bool_value",
        "optimizer": "string_value",
        "missing": "string_value",
        "layers": "string_value",
    }
    assert group.hparams["units"].number_value == 10
    values = {(value.name.group, value.name.tag): value.value for value in group.metric_values}
    assert values["validation", "loss"] == pytest.approx(1.0)
    assert values["train", "accuracy"] == pytest.approx(0.5)
    assert {info.name.tag for info in experiment.metric_infos} >= {"loss", "accuracy"}
    assert group.sessions[0].status == api_pb2.STATUS_SUCCESS


@pytest.mark.parametrize(
    ("state", "status"),
    [
        ("finished", api_pb2.STATUS_SUCCESS),
        ("failed", api_pb2.STATUS_FAILURE),
        ("interrupted", api_pb2.STATUS_UNKNOWN),
        (None, api_pb2.STATUS_UNKNOWN),
    ],
)
def test_the_hparams_page_shows_how_the_run_ended(logs_dir, state, status):
    train(logs_dir, [1], state=state, units=10)
    _, (group,) = hparams_page(logs_dir)
    assert group.sessions[0].status == status


def test_after_a_resume_the_hparams_page_shows_the_last_state(logs_dir):
    train(logs_dir, [1], state="interrupted", units=10)
    train(logs_dir, [2], first_epoch=2, state="finished", units=10)
    _, (group,) = hparams_page(logs_dir)
    assert group.sessions[0].status == api_pb2.STATUS_SUCCESS


def test_files_of_others_in_the_logs_folder_are_left_alone(logs_dir):
    logs_dir.mkdir(parents=True)
    other = logs_dir / "events.out.tfevents.1.other"
    other.write_bytes(b"")
    train(logs_dir, [1])
    assert other.exists()


def test_runs_with_equal_hparams_are_rows_of_their_own(tmp_path):
    train(tmp_path / "a" / "logs", [1], units=10)
    train(tmp_path / "b" / "logs", [1], units=10)
    assert len(hparams_page(tmp_path)[1]) == 2


def test_texts_are_shown(logs_dir):
    train(logs_dir, [1], texts={"settings": code_block("epochs = 3")}, units=10)
    accumulator = read(logs_dir)
    (event,) = accumulator.Tensors("settings")
    assert event.tensor_proto.string_val == [b"```python\nepochs = 3\n```"]
    assert b"| units | 10 |" in accumulator.Tensors("hparams")[0].tensor_proto.string_val[0]
    assert accumulator.SummaryMetadata("settings").plugin_data.plugin_name == "text"


def test_a_disk_that_refuses_is_reported_once_and_training_goes_on(tmp_path, caplog):
    logs_dir = tmp_path / "logs"
    logs_dir.write_text("a file where the folder should be")
    with caplog.at_level(logging.WARNING):
        train(logs_dir, [1, 2])
    assert len([record for record in caplog.records if "TensorBoard logs cannot be written" in record.message]) == 3


def test_after_a_failed_write_a_new_file_is_begun_and_nothing_earlier_is_dropped(tmp_path, monkeypatch):
    class Broken:
        def write(self, record):
            raise OSError(28, "No space left on device")

        def close(self):
            pass

    monkeypatch.setattr(event_files, "RETRY_SECONDS", 0.0)
    file = EventFile(tmp_path, first_step=1)
    file.write(scalars_summary({"loss": 1.0}), 1)
    file._writer.close()
    file._writer = Broken()
    file.write(scalars_summary({"loss": 2.0}), 2)
    file.write(scalars_summary({"loss": 3.0}), 3)
    file.close()
    assert [step for step, _ in scalars(tmp_path, "loss")] == [1, 2, 3]


def fill(folder):
    with (folder / "ballast").open("ab", buffering=0) as stream, contextlib.suppress(OSError):
        while True:
            stream.write(bytes(4096))


def test_a_disk_that_is_full_when_the_files_are_opened_loses_no_event_once_there_is_space(mounted_disk, caplog):
    disk = mounted_disk("1m")
    logs_dir = disk / "logs"
    fill(disk)
    logs = TensorBoardLogs(logs_dir, {"settings": "text"})
    logs.on_start(start(logs_dir, units=10))
    logs.on_epoch(report(1))
    (disk / "ballast").unlink()
    logs.on_epoch(report(2))
    with caplog.at_level(logging.WARNING):
        logs.on_end(end())
    assert [step for step, _ in scalars(logs_dir / "train", "loss")] == [1, 2]
    assert [step for step, _ in scalars(logs_dir / "validation", "loss")] == [1, 2]
    assert {"hparams", "settings"} <= set(read(logs_dir).Tags()["tensors"])
    assert sum(text.endswith("again; lost: nothing.") for text in caplog.messages) == 3
    assert all(path.stat().st_size for path in logs_dir.rglob("events*"))


def test_events_that_never_found_space_are_counted(mounted_disk, caplog):
    disk = mounted_disk("1m")
    fill(disk)
    file = EventFile(disk / "logs", first_step=1)
    for step in (1, 2, 3):
        file.write(scalars_summary({"loss": 1.0}), step)
    file.close()
    assert caplog.messages[-1] == f"TensorBoard logs in {disk / 'logs'} lack 3 events, which could not be written."


def test_of_events_that_wait_too_long_the_oldest_are_lost_and_counted(mounted_disk, caplog, monkeypatch):
    disk = mounted_disk("1m")
    fill(disk)
    monkeypatch.setattr(event_files, "MOST_BYTES_WAITING", 100)
    file = EventFile(disk / "logs", first_step=1)
    for step in range(1, 11):
        file.write(scalars_summary({"loss": 1.0}), step)
    (disk / "ballast").unlink()
    file.close()
    steps = [step for step, _ in scalars(disk / "logs", "loss")]
    assert steps == list(range(11 - len(steps), 11))
    assert 1 <= len(steps) < 10
    assert caplog.messages[-1].endswith(f"again; lost: {10 - len(steps)} events.")


def test_logs_that_never_started_can_end(logs_dir):
    TensorBoardLogs(logs_dir).on_end(end())
    assert not logs_dir.exists()


def test_the_logs_can_be_moved_with_the_run(logs_dir, tmp_path):
    train(logs_dir, [1], units=10)
    shutil.move(logs_dir.parent, tmp_path / "moved")
    assert scalars(tmp_path / "moved" / "logs" / "train", "loss") == [(1, 1.0)]
    assert metadata.SESSION_START_INFO_TAG in read(tmp_path / "moved" / "logs").Tags()["tensors"]


STEPS_AN_EPOCH = 10


def train_by_step(logs_dir, reached, last, *, every=4, scale=1.0, return_to=None):
    """Acts a session that goes on after step `reached` and is killed after step `last`."""
    logs = TensorBoardLogs(logs_dir, by_step=True)
    epoch, first_step = divmod(reached, STEPS_AN_EPOCH)
    begin = {"first_epoch": epoch + 1, "first_step": first_step, "global_step": reached}
    logs.on_start(RunStart(logs_dir.parent, "test", {}, 10, parameters=1, devices=(), steps_per_epoch=STEPS_AN_EPOCH,
                           monitor="val_loss", **begin))  # fmt: skip
    for step in range(reached + 1, last + 1):
        epoch = (step - 1) // STEPS_AN_EPOCH + 1
        if step % every == 0:
            logs.on_steps(StepReport(epoch, step, {"loss": scale / step}, 0.1, {"gradient_norm": 2.0}))
        if step % STEPS_AN_EPOCH == 0:
            logs.on_epoch(report(epoch, scale))
    if return_to is not None:
        epoch, step = divmod(return_to, STEPS_AN_EPOCH)
        logs.on_rollback(Rollback(epoch + 1, step, return_to))
        for step in range(return_to + 1, last + 1):
            if step % every == 0:
                logs.on_steps(StepReport(step, step, {"loss": -1.0}, 0.1, {}))
            if step % STEPS_AN_EPOCH == 0:
                logs.on_epoch(report((step - 1) // STEPS_AN_EPOCH + 1, -1.0))
    return logs


def test_values_by_step_have_names_and_folders_of_their_own(logs_dir):
    train_by_step(logs_dir, 0, 20)
    assert scalars(logs_dir / "train" / "by_step", "by_step/loss") == [(n, 1 / n) for n in (4, 8, 12, 16, 20)]
    assert scalars(logs_dir / "validation" / "by_step", "by_step/loss") == [(10, 2.0), (20, 1.0)]
    assert sorted(read(logs_dir / "train" / "by_step").Tags()["scalars"]) == [
        "by_step/gradient_norm",
        "by_step/learning_rate",
        "by_step/loss",
    ]
    assert [step for step, _ in scalars(logs_dir / "train", "loss")] == [1, 2]


@pytest.mark.parametrize("reached", [0, 9, 10, 11, 12, 19, 20])
def test_a_run_that_goes_on_within_an_epoch_shows_each_step_once(logs_dir, reached):
    train_by_step(logs_dir, 0, 21)
    train_by_step(logs_dir, reached, 30, scale=10.0)
    steps = scalars(logs_dir / "train" / "by_step", "by_step/loss")
    assert steps == [(n, (10 if n > reached else 1) / n) for n in range(4, 31, 4)]
    assert [step for step, _ in scalars(logs_dir / "validation" / "by_step", "by_step/loss")] == [10, 20, 30]
    assert [step for step, _ in scalars(logs_dir / "train", "loss")] == [1, 2, 3]


def test_a_validation_that_is_made_again_after_a_resume_is_shown_once(logs_dir):
    train_by_step(logs_dir, 0, 20)
    logs = TensorBoardLogs(logs_dir, by_step=True)
    logs.on_start(RunStart(logs_dir.parent, "test", {}, 10, 2, 10, 1, (), "val_loss", global_step=20, first_step=10))
    logs.on_epoch(report(2, 10.0))
    assert scalars(logs_dir / "validation" / "by_step", "by_step/loss") == [(10, 2.0), (20, 10.0)]


def test_steps_of_an_earlier_session_go_even_if_no_new_ones_come(logs_dir):
    train_by_step(logs_dir, 0, 20)
    train_by_step(logs_dir, 9, 9)
    assert [step for step, _ in scalars(logs_dir / "train" / "by_step", "by_step/loss")] == [4, 8]


@pytest.mark.parametrize("return_to", [7, 10, 13])
def test_what_was_logged_before_training_went_back_is_shown_once(logs_dir, return_to):
    train_by_step(logs_dir, 0, 20, return_to=return_to)
    steps = scalars(logs_dir / "train" / "by_step", "by_step/loss")
    assert steps == [(n, -1.0 if n > return_to else 1 / n) for n in (4, 8, 12, 16, 20)]
    assert [step for step, _ in scalars(logs_dir / "train", "loss")] == [1, 2]
    assert [step for step, _ in scalars(logs_dir / "validation" / "by_step", "by_step/loss")] == [10, 20]


def test_measures_of_an_epoch_are_among_the_training_scalars(logs_dir):
    logs = TensorBoardLogs(logs_dir)
    logs.on_start(start(logs_dir))
    logs.on_epoch(EpochReport(1, 10, {"loss": 1.0}, 0.1, 0.5, True, {"gradient_norm": 3.0, "memory_mib/process": 7.0}))
    assert scalars(logs_dir / "train", "gradient_norm") == [(1, 3.0)]
    assert scalars(logs_dir / "train", "memory_mib/process") == [(1, 7.0)]


def test_histograms_show_the_weights_of_each_so_many_epochs(logs_dir):
    logs = TensorBoardLogs(logs_dir, histogram_every=2)
    logs.on_start(start(logs_dir))
    weights = {"dense/kernel": np.linspace(-1, 1, 100, dtype="float32"), "dropout/seed": np.array([1, 2], "uint32")}
    for epoch in range(1, 5):
        logs.on_validated(ModelView(epoch, 10 * epoch, {}, lambda: weights, lambda count, layers=(): None))
        logs.on_epoch(EpochReport(epoch, 10 * epoch, {"loss": 1.0}, 0.1, 0.5, False))
    accumulator = PluginEventAccumulator(str(logs_dir / "train"))
    accumulator.Reload()
    of_weights = [name for name in accumulator.Tags()["tensors"] if name.startswith("weights/")]
    assert of_weights == ["weights/dense/kernel"]
    assert accumulator.SummaryMetadata("weights/dense/kernel").plugin_data.plugin_name == "histograms"
    events = accumulator.Tensors("weights/dense/kernel")
    assert [event.step for event in events] == [2, 4]
    buckets = np.reshape(
        events[0].tensor_proto.float_val or np.frombuffer(events[0].tensor_proto.tensor_content), [-1, 3]
    )
    assert (buckets[0, 0], buckets[-1, 1], buckets[:, 2].sum()) == (-1.0, 1.0, 100)


def test_the_graph_of_the_model_is_there_once_also_after_a_resume(logs_dir, caplog):
    from tensorboard.compat.proto.graph_pb2 import GraphDef

    graph = GraphDef()
    graph.node.add(name="x", op="Placeholder")
    for first_epoch in (1, 2):
        logs = TensorBoardLogs(logs_dir)
        begin = start(logs_dir, first_epoch)
        logs.on_start(dataclasses.replace(begin, model_graph=graph.SerializeToString))
        logs.on_end(end())
    assert [node.name for node in read(logs_dir).Graph().node] == ["x"]
    assert "more than one graph" not in caplog.text

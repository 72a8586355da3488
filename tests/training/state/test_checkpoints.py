"""Checkpoints: whole, or named as damaged and passed over."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from experiments_manager import api
from experiments_manager.training.errors import OvertakenError, TrainingError
from experiments_manager.training.state.checkpoints import CheckpointWriter, checkpoints, read_latest
from experiments_manager.training.state.progress import Best, TrainingProgress
from experiments_manager.training.state.state import StateSnapshot


def snapshot(epoch, value=None):
    value = float(epoch) if value is None else value
    progress = TrainingProgress(epoch=epoch, global_step=10 * epoch, best=Best(0.5, 1, 10), last_logs={"loss": 0.25})
    return StateSnapshot(
        progress, {"model/0000/kernel": tf.constant([value] * 100)}, {"positions": {"train": {"pass": 3}}}
    )


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "checkpoints"


@pytest.fixture
def written(folder):
    """Writes checkpoints of these epochs, and gives their folders, newest first."""

    def write(*epochs, keep=2):
        writer = CheckpointWriter(folder, keep)
        for epoch in epochs:
            writer.submit(snapshot(epoch))
            writer.wait()
        writer.close()
        return checkpoints(folder)

    return write


def test_a_checkpoint_gives_back_what_was_written(folder, written):
    [path] = written(1)
    found, read = read_latest(folder)
    assert found == path
    assert read.progress == snapshot(1).progress
    assert read.extras == {"positions": {"train": {"pass": 3}}}
    assert np.array_equal(read.tensors["model/0000/kernel"], np.ones(100))


def test_the_newest_few_are_kept_and_nothing_else_lies_about(folder, written):
    written(1, 2, 3, 4, keep=2)
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["epoch-00003-step-00000030", "epoch-00004-step-00000040", "latest"]
    assert (folder / "latest").read_text() == "epoch-00004-step-00000040\n"


def test_the_newest_that_no_other_run_can_overtake_is_kept_too(folder):
    known = set()
    writer = CheckpointWriter(folder, 2, is_ours=lambda positions: len(known) > 0)
    (folder / "epoch-00001-step-00000010").mkdir(parents=True)  # of an earlier process
    for epoch in (2, 3, 4, 5):
        writer.submit(snapshot(epoch))
        writer.wait()
    assert [int(path.name[6:11]) for path in checkpoints(folder)] == [5, 4, 1]
    known.add("that the group knows of 4 and 5")
    writer.submit(snapshot(6))
    writer.close()
    assert [int(path.name[6:11]) for path in checkpoints(folder)] == [6, 5]


def test_checkpoints_that_another_run_overtook_are_given_up_once_one_is_found_that_was_not(folder, written):
    written(1, 2, 3, keep=3)
    overtaken_by = OvertakenError("Another run trains on it.")

    def require(found, least=2):
        if found.progress.epoch >= least:
            raise overtaken_by

    with pytest.raises(TrainingError, match="Another run trains on it"):
        read_latest(folder, require=lambda found: require(found, 1))
    assert len(checkpoints(folder)) == 3
    said = []
    path, found = read_latest(folder, said.append, require)
    assert found.progress.epoch == 1
    assert [text.split(":")[0][-11:] for text in said] == [" is skipped"] * 2
    assert checkpoints(folder) == [path]
    assert (folder / "latest").read_text() == path.name + "\n"


def test_where_nothing_was_written_there_is_no_checkpoint(folder):
    assert read_latest(folder) is None


def flip_a_bit(path):
    data = next(path.glob("variables.data*"))
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)


def truncate(path):
    data = next(path.glob("variables.data*"))
    data.write_bytes(data.read_bytes()[:-7])


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (flip_a_bit, "variables.data-00000-of-00001 is damaged"),
        (truncate, "variables.data-00000-of-00001 is truncated"),
        (lambda path: (path / "state.json").unlink(), "state.json is missing"),
        (lambda path: (path / "checksums.json").unlink(), "checksums.json is missing"),
        (lambda path: (path / "checksums.json").write_text("{"), "checksums.json is damaged"),
    ],
    ids=["flipped_bit", "truncated_file", "missing_file", "missing_checksums", "damaged_checksums"],
)
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_taken(folder, written, damage, said):
    newest, before = written(1, 2)
    damage(newest)
    told = []
    found, read = read_latest(folder, told.append)
    assert (found, read.progress.epoch) == (before, 1)
    [text] = told
    assert str(newest) in text
    assert said in text


def test_where_all_are_damaged_the_message_names_each(folder, written):
    for path in written(1, 2):
        truncate(path)
    with pytest.raises(
        TrainingError, match="All checkpoints in .* are damaged.*step-00000020.*step-00000010.*start a new run"
    ):
        read_latest(folder, lambda text: None)


def test_a_pointer_to_a_checkpoint_that_is_gone_does_not_matter(folder, written):
    written(1)
    (folder / "latest").write_text("epoch-00009-step-00000090\n")
    assert read_latest(folder)[1].progress.epoch == 1


def test_a_checkpoint_of_a_newer_release_is_refused_as_such(folder, written):
    from experiments_manager.common.checksums import write_checksums

    [path] = written(1)
    state = json.loads((path / "state.json").read_text())
    (path / "state.json").write_text(json.dumps({**state, "schema_version": 99}))
    write_checksums(path)
    with pytest.raises(TrainingError, match="newer release.*Update experiments_manager"):
        read_latest(folder)


def test_weights_that_are_not_finite_never_take_the_place_of_good_ones(folder):
    writer = CheckpointWriter(folder, keep=1)
    for epoch, value in ((1, 1.0), (2, float("nan"))):
        writer.submit(snapshot(epoch, value))
        writer.wait()
    writer.close()
    assert read_latest(folder)[1].progress.epoch == 1


def test_a_full_disk_leaves_the_old_checkpoint_and_is_told_once(mounted_disk):
    disk = mounted_disk("256k")
    folder = disk / "checkpoints"
    writer = CheckpointWriter(folder, keep=1)

    def write(epoch):
        writer.submit(snapshot(epoch))
        writer.wait()

    write(1)
    with (disk / "ballast").open("wb", buffering=0) as stream:
        while stream.write(bytes(4096)) == 4096:
            if not stream.tell() < 256 * 1024 - 4096 * 14:
                break
    big = snapshot(2)
    big.tensors["model/0001/kernel"] = tf.ones([64, 1024])
    for _ in range(2):
        writer.submit(big)
        writer.wait()
    [text] = writer.messages()
    assert text.startswith("A checkpoint could not be written: ")
    assert "No space left on device. Training goes on" in text
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []
    assert read_latest(folder)[1].progress.epoch == 1
    (disk / "ballast").unlink()
    write(3)
    assert writer.messages() == ["Checkpoints are written again."]
    assert read_latest(folder)[1].progress.epoch == 3
    writer.close()


def test_a_checkpoint_of_another_model_is_refused_by_name(experiment, resume):
    source = """
        hparams = {"units": 1}

        def model(hparams):
            return keras.Sequential([keras.Input([3]), keras.layers.Dense(hparams["units"]), keras.layers.Dense(1)])
    """
    trained = experiment(source)
    with pytest.raises(TrainingError, match=r"kernel has shape \(3, 1\), expected \(3, 2\).* Resume with the settings"):
        resume(trained.run.path, {"units": 2})
    assert resume(trained.run.path, {"units": 1}).result.state == "finished"


def test_a_run_resumes_from_the_checkpoint_before_a_damaged_one_and_says_so(experiment, resume, same_bits, settle):
    trained = experiment("", {"checkpoint_every_steps": 5}, should_stop=settle)
    newest, before = checkpoints(trained.run.checkpoints_dir)
    assert before.name == "epoch-00001-step-00000005"
    tensors = trained.tensors
    flip_a_bit(newest)
    again = resume(trained.run.path)
    assert "A checkpoint is damaged and skipped" in again.messages[0]
    assert [report.epoch for report in again.epochs] == [2]
    assert same_bits(again.tensors, tensors) == []


def test_what_was_logged_is_on_the_disk_before_a_checkpoint_counts(tmp_path, monkeypatch):
    synced, sync = [], os.fsync

    def note(descriptor):
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    example = Path(__file__).parents[3] / "examples" / "regression" / "mysettings_curve_fitting.py"
    overrides = {"epochs": 2, "export": False}
    run_dir = api.train(example, overrides=overrides, working_dir=tmp_path, quiet=True).run_dir
    place = synced.index(run_dir / "checkpoints")  # brought to the disk once a checkpoint was renamed into it
    logged = set(synced[:place])
    assert run_dir / "metrics.csv" in logged
    assert {path.parent.name for path in logged if path.name.startswith("events.out")} >= {
        "logs",
        "train",
        "validation",
    }


def test_bytes_that_are_no_text_in_latest_are_told_and_the_newest_checkpoint_is_taken(folder, written):
    written(1, 2)
    (folder / "latest").write_bytes(b"\xff\xfe\x00epoch")
    told = []
    path, read = read_latest(folder, told.append)
    assert (path.name, read.progress.epoch) == ("epoch-00002-step-00000020", 2)
    assert told == [f"{folder / 'latest'} is damaged and ignored; the newest valid checkpoint is used."]

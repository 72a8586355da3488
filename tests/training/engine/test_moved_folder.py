"""A run folder that is moved or removed while it is trained in."""

import itertools
import shutil
import time

import pytest

from experiments_manager.export.versions import versions
from experiments_manager.monitoring.metrics_csv import read_rows
from experiments_manager.monitoring.watchers import watchers_of
from experiments_manager.runs import RunError, held_folder, open_run
from experiments_manager.runs.locking import LOCK_FILE
from experiments_manager.training.state.checkpoints import checkpoints

SHOWN = """
epochs = 6
export = True
keep_versions = 0
checkpoint_every_steps = 1
"""

UNEXPORTED = SHOWN.replace("export = True", "export = False")


@pytest.fixture(autouse=True)
def looks_at_each_step(monkeypatch):
    monkeypatch.setattr(held_folder, "SECONDS_BETWEEN_LOOKS", 0.0)
    monkeypatch.setattr(held_folder, "SECONDS_FOR_A_LOOK", 60.0)


@pytest.fixture
def train_and(experiment, tmp_path, recorder):
    """Trains, and does something with the run folder before its tenth step."""

    def train(action, source=SHOWN):
        calls = itertools.count()

        def act():
            if next(calls) == 9:
                folder = tmp_path / "runs" / "mine"
                for _ in range(300):  # the watchers' thread may be late on a busy machine, and open it elsewhere
                    if (folder / "metrics.csv").exists():
                        break
                    time.sleep(0.1)
                action(folder)
            return False

        return experiment(
            source,
            run_name="mine",
            should_stop=act,
            make_watchers=lambda run, settings: [*watchers_of(run, settings, quiet=True), recorder],
        )

    return train


def test_a_folder_that_is_moved_is_followed_with_all_that_is_written(train_and, recorder, resume, tmp_path):
    new = tmp_path / "other" / "renamed"
    new.parent.mkdir()
    trained = train_and(lambda folder: folder.rename(new))
    assert trained.result.run_dir == recorder.ends[0].run_dir == new
    assert not (tmp_path / "runs" / "mine").is_symlink()
    assert not (tmp_path / "runs" / "mine").exists()
    run = open_run(new)
    assert (run.manifest["state"], run.manifest["epochs"]) == ("finished", 6)
    assert (new / run.manifest["exported_model"] / "saved_model.pb").is_file()
    assert len(read_rows(run.metrics_csv)[1]) == 6
    assert versions(run.exports_dir)[-1] == run.manifest["best"]["step"]
    assert checkpoints(run.checkpoints_dir)[0].name == run.manifest["checkpoint"] == "epoch-00006-step-00000030"
    assert not (new / LOCK_FILE).exists()
    [told] = [text for text in recorder.messages if "was moved" in text]
    assert str(new) in told
    assert resume(new, {"epochs": 7}).result.epochs == 7


def test_a_folder_whose_parent_is_moved_twice_is_followed(train_and, tmp_path):
    def move(folder):
        folder.parent.rename(tmp_path / "first")
        moves.append(tmp_path / "first")

    moves = []
    source = SHOWN + (
        "import pathlib\n"
        "class Mover(keras.callbacks.Callback):\n"
        "    def on_epoch_end(self, epoch, logs=None):\n"
        f"        first = pathlib.Path({str(tmp_path / 'first')!r})\n"
        "        if epoch == 3:\n"
        f"            first.rename({str(tmp_path / 'second')!r})\n"
        "def callbacks():\n    return [Mover()]\n"
    )
    trained = train_and(move, source)
    assert trained.result.run_dir == tmp_path / "second" / "mine"
    assert open_run(trained.result.run_dir).manifest["state"] == "finished"
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "user") == ["second"]


@pytest.mark.parametrize("what", ["folder", "run.json", "all but run.json", "replaced"])
def test_a_folder_that_is_removed_ends_the_training_at_once_and_nothing_is_written_there_again(
    train_and, recorder, tmp_path, what
):
    def remove(folder):
        if what == "run.json":
            for _ in range(3):  # what writes it at that moment puts it back, whole
                (folder / "run.json").unlink(missing_ok=True)
                time.sleep(0.1)
            return
        if what == "all but run.json":  # a removal that failed, for something was written meanwhile
            shutil.rmtree(folder / "settings")
            (folder / LOCK_FILE).unlink()
            return
        folder.rename(tmp_path / "gone")  # a removal takes a while, and fails where something is written meanwhile
        shutil.rmtree(tmp_path / "gone")
        if what == "replaced":
            folder.mkdir()
            (folder / "mine.txt").write_text("of somebody else")

    with pytest.raises(RunError, match="was removed, and what was trained is lost") as removed:
        train_and(remove, UNEXPORTED)
    assert removed.value.exit_code == 2
    assert len(recorder.epochs) < 3
    folder = tmp_path / "runs" / "mine"
    if what == "folder":
        assert not folder.exists()
    if what == "replaced":
        assert [path.name for path in folder.iterdir()] == ["mine.txt"]


def test_a_folder_whose_former_place_was_taken_is_left_in_a_state_to_go_on_from(train_and, recorder, resume, tmp_path):
    new = tmp_path / "renamed"

    def move(folder):
        folder.rename(new)
        folder.mkdir()

    trained = train_and(move, UNEXPORTED)
    assert (trained.result.state, trained.result.run_dir) == ("interrupted", new)
    assert open_run(new).manifest["state"] == "interrupted"
    assert list((tmp_path / "runs" / "mine").iterdir()) == []
    assert any(f"resume {new}" in text for text in recorder.messages)
    assert resume(new).result.epochs == 6

"""A run goes on with the data that it was trained on, or says that it does not."""

import json
import sys

import numpy as np
import pytest

from experiments_manager import api
from experiments_manager.cli import main
from experiments_manager.runs import open_run
from experiments_manager.training.engine.exactness import DataChangedError
from experiments_manager.training.state.checkpoints import checkpoints
from tests.helpers.warm_processes import warm_run

FROM_FILES = """
import pathlib
import tensorflow as tf

FOLDER = pathlib.Path(__file__).parent
hparams = {"units": 1, "form": "arrays"}


def model():
    return keras.Sequential([keras.Input([3]), keras.layers.Dense(1)])


class Batches(keras.utils.PyDataset):
    def __init__(self, table):
        super().__init__()
        self.table = table

    def __len__(self):
        return len(self.table) // 8

    def __getitem__(self, index):
        rows = self.table[8 * index : 8 * index + 8]
        return rows[:, :3], rows[:, 3:]


def parsed(line):
    row = tf.strings.to_number(tf.strings.split(line, ",")[:4])
    return row[:3], row[3:]


def dataset(split, hparams):
    file = pathlib.Path(FOLDERS[0]) / f"{split}.csv"
    if hparams["form"] == "files":
        return tf.data.TextLineDataset(str(file)).map(parsed).batch(8)
    table = np.loadtxt(file, delimiter=",", dtype="float32")
    if hparams["form"] == "indexed":
        return Batches(table)
    if hparams["form"] == "pipeline":
        return tf.data.Dataset.from_tensor_slices((table[:, :3], table[:, 3:])).shuffle(9).batch(8)
    return table[:, :3], table[:, 3:]
"""


@pytest.fixture
def files(tmp_path):
    """Writes the tables that `FROM_FILES` reads; gives the source and a function that changes one value."""
    for split, rows in {"train": 64, "validation": 32}.items():
        table = np.random.default_rng(len(split)).normal(size=[rows, 4])
        np.savetxt(tmp_path / f"{split}.csv", table, delimiter=",", fmt="%.6f")

    def change(split="train", row=40, value="9.75"):
        lines = (tmp_path / f"{split}.csv").read_text().splitlines()
        lines[row] = ",".join([value, *lines[row].split(",")[1:]])
        (tmp_path / f"{split}.csv").write_text("\n".join(lines) + "\n")

    return f"FOLDERS = [{str(tmp_path)!r}]\n" + FROM_FILES, change


@pytest.fixture
def stopped(experiment):
    """Trains an experiment of four epochs until it is asked to stop."""

    def train(source, **overrides):
        answers = iter([False] * 12)
        overrides = {"epochs": 4, "checkpoint_every_steps": 1, **overrides}
        trained = experiment(source, overrides, should_stop=lambda: next(answers, True))
        assert trained.result.state == "interrupted"
        assert trained.run.manifest["exactness"]["exact"], trained.run.manifest["exactness"]
        return trained

    return train


def content(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize(
    ("form", "split", "told"),
    [
        ("arrays", "train", "train: x has other values"),
        ("arrays", "validation", "validation: x has other values"),
        ("pipeline", "train", "train: x 0 in memory has other values"),
        ("indexed", "train", "train: x of batch 4 has other values"),
        ("files", "validation", "validation: files has files of other sizes"),
    ],
)
def test_changed_data_is_refused_with_what_differs_and_the_folder_stays_as_it_was(
    files, stopped, resume, form, split, told
):
    source, change = files
    trained = stopped(source, hparams={"units": 1, "form": form})
    change(split, row={"indexed": 33}.get(form, 20))
    before = content(trained.run.path)
    with pytest.raises(DataChangedError, match=told) as refused:
        resume(trained.run.path)
    assert content(trained.run.path) | {trained.run.manifest_file: b""} == before | {trained.run.manifest_file: b""}
    assert trained.run.manifest == json.loads(before[trained.run.manifest_file])
    assert str(refused.value).endswith(f"resume {trained.run.path} --accept-changed-data")
    if form != "arrays" or split != "train":
        return
    again = resume(trained.run.path, accept_changed_data=True, should_stop=iter([False] * 4 + [True] * 9).__next__)
    assert any("The data changed at step" in text for text in again.messages)
    [reason] = again.run.manifest["exactness"]["reasons"]
    assert "as was accepted (train: x has other values" in reason
    final = resume(trained.run.path)  # with the same data as before that
    assert final.result.state == "finished"
    assert final.run.manifest["exactness"] == {"exact": False, "reasons": [reason]}


def test_rows_that_are_missing_are_counted_and_equal_data_goes_on_exactly(files, stopped, resume, tmp_path):
    trained = stopped(files[0])
    whole = (tmp_path / "train.csv").read_text()
    (tmp_path / "train.csv").write_text("\n".join(whole.splitlines()[:-4]) + "\n")
    with pytest.raises(DataChangedError, match=r"train: x is \(60, 3\) float32, \(64, 3\) float32 before"):
        resume(trained.run.path)
    (tmp_path / "train.csv").write_text(whole)
    again = resume(trained.run.path)
    assert (again.result.state, again.run.manifest["exactness"]["exact"]) == ("finished", True)


def test_values_that_are_rounded_otherwise_are_told_and_not_refused(files, stopped, resume, tmp_path):
    trained = stopped(files[0])
    file = tmp_path / "train.csv"
    table = np.loadtxt(file, delimiter=",") * (1 + 1e-7 * np.random.default_rng(0).normal(size=[64, 4]))
    np.savetxt(file, table, delimiter=",")
    again = resume(trained.run.path)
    assert again.result.state == "finished"
    assert "as another processor rounds" in " ".join(again.run.manifest["exactness"]["reasons"])


def test_data_that_changes_with_a_setting_goes_on_and_says_so(files, stopped, resume):
    source = files[0].replace(
        "return table[:, :3], table[:, 3:]", "return table[:, :3] * hparams['units'], table[:, 3:]"
    )
    trained = stopped(source)
    again = resume(
        trained.run.path,
        {"hparams": {"units": 2, "form": "arrays"}},
        should_stop=iter([False, True] + [True] * 9).__next__,
    )
    assert "with hparams (train: x has other values" in " ".join(again.messages)
    assert resume(trained.run.path).result.state == "finished"


UNSEEDED = """
def dataset(split):
    x = np.random.default_rng().normal(size=[32, 3])
    return x, x.sum(axis=1, keepdims=True)
"""


def test_data_that_is_other_data_at_each_call_is_not_taken_for_changed(stopped, resume):
    trained = stopped(UNSEEDED)
    again = resume(trained.run.path)
    assert again.result.state == "finished"
    assert "gives other data each time it is called" in " ".join(again.run.manifest["exactness"]["reasons"])


def test_class_weights_are_compared_too(stopped, resume, tmp_path):
    (tmp_path / "weight").write_text("2.0")
    trained = stopped(
        f"def class_weight():\n    return {{0: 1.0, 1: float(open({str(tmp_path / 'weight')!r}).read())}}\n"
        "def dataset(split):\n    x = np.ones([32, 3], 'float32')\n    return x, np.arange(32) % 2\n"
    )
    (tmp_path / "weight").write_text("3.0")
    with pytest.raises(DataChangedError, match="class_weight: weights has other values"):
        resume(trained.run.path)


def test_a_checkpoint_of_an_earlier_release_goes_on_as_before(files, stopped, resume):
    from experiments_manager.common.checksums import write_checksums

    source, change = files
    trained = stopped(source)
    for path in checkpoints(trained.run.checkpoints_dir):
        state = json.loads((path / "state.json").read_text())
        del state["extras"]["data"]
        (path / "state.json").write_text(json.dumps(state))
        (path / "checksums.json").unlink()
        write_checksums(path)
    change()
    assert resume(trained.run.path).result.state == "finished"


HASHED = """
epochs = 3

def dataset(split):
    names = list(set(f"class {number}" for number in range(40)))
    labels = np.array([names.index(f"class {number % 40}") for number in range(80)])
    return np.eye(80, 3, dtype="float32"), labels.astype("float32")[:, None]
"""


@pytest.mark.slow
def test_another_hash_seed_in_another_process_is_found_by_command_line(settings_file, tmp_path):
    place = ["--run-name", "mine", "--working-dir", str(tmp_path / "runs")]
    assert main.run(["train", str(settings_file(HASHED)), *place, "--resume", "auto", "--quiet"]) == 0
    folder = tmp_path / "runs" / "mine"
    more = ["resume", str(folder), "--quiet", "--set"]

    def resume_in_another_process(*words):
        return warm_run([sys.executable, "-m", "experiments_manager", *more, *words], timeout=300)

    refused = resume_in_another_process("epochs=5")
    assert refused.returncode == 2, refused.stderr
    assert "train: y has other values" in refused.stderr
    assert open_run(folder).manifest["state"] == "finished"
    assert main.run([*more, "epochs=5"]) == 0
    assert open_run(folder).manifest["exactness"]["exact"] is True
    assert resume_in_another_process("epochs=6", "--accept-changed-data").returncode == 0
    assert open_run(folder).manifest["exactness"]["exact"] is False


def test_resume_auto_refuses_too_and_goes_on_where_that_is_accepted(files, settings_file, tmp_path):
    source, change = files
    words = {"working_dir": tmp_path / "runs", "run_name": "mine", "resume": "auto", "quiet": True}
    api.train(settings_file(source), **words)
    change()
    file = settings_file(source, "epochs = 4")
    more = {"overrides": {"epochs": 4}}
    with pytest.raises(DataChangedError):
        api.train(file, **words, **more)
    assert api.train(file, **words, **more, accept_changed_data=True).epochs == 4

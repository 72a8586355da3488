"""`--stage-data` of `train` and `resume`: hooks read the copy, and what is written names the original."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from experiments_manager.cli import main
from experiments_manager.common.exit_codes import ExitCode
from tests.helpers.warm_processes import WarmPopen

READS_FILES = """
import pathlib

train_data_dir = {data!r} + "/train"
validation_data_dir = {data!r} + "/validation"
epochs = 1
tensorboard = False
figures = False


def dataset(split, data_dir):
    with open({seen!r}, "a") as stream:
        stream.write(f"{{data_dir}} {{train_data_dir}}\\n")
    x = np.load(pathlib.Path(data_dir) / "x.npy")
    return x, x.sum(axis=1, keepdims=True)
"""


@pytest.fixture
def shared(tmp_path, monkeypatch):
    """Data on a shared disk, and a node with a disk of its own."""
    for split in ("train", "validation"):
        (tmp_path / "shared" / split).mkdir(parents=True)
        np.save(tmp_path / "shared" / split / "x.npy", np.ones([16, 3], "float32"))
    (tmp_path / "node").mkdir()
    monkeypatch.setenv("SLURM_TMPDIR", str(tmp_path / "node"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "shared"


@pytest.mark.slow
def test_hooks_read_the_copy_and_the_run_knows_the_original(shared, settings_file, tmp_path, capsys, tensorflow):
    seen = tmp_path / "seen"
    file = settings_file(READS_FILES.format(data=str(shared), seen=str(seen)))
    place = ["--working-dir", str(tmp_path / "runs"), "--run-name", "staged"]
    assert main.run(["train", str(file), *place, "--stage-data", str(shared)]) == 0
    said = capsys.readouterr().err
    assert f"Copying {shared} to {tmp_path / 'node'}" in said
    assert "is not used" not in said
    read = set(seen.read_text().split())
    assert all(path.startswith(str(tmp_path / "node")) for path in read), read

    run = tmp_path / "runs" / "staged"
    text = (run / "run.json").read_text()
    assert str(tmp_path / "node") not in text
    assert json.loads(text)["overrides"]["train_data_dir"] == f"{shared}/train"

    seen.unlink()
    assert main.run(["resume", str(run), "--set", "epochs=2", "--stage-data", str(shared)]) == 0
    assert f"{shared}: the copy on this node is whole, and is used again" in capsys.readouterr().err
    assert all(path.startswith(str(tmp_path / "node")) for path in set(seen.read_text().split()))

    seen.unlink()
    assert main.run(["resume", str(run), "--set", "epochs=3"]) == 0
    assert set(seen.read_text().split()) == {f"{shared}/train", f"{shared}/validation"}


@pytest.mark.slow
def test_data_that_no_setting_names_is_told_and_training_goes_on(shared, settings_file, tmp_path, capsys, tensorflow):
    file = settings_file("epochs = 1\ntensorboard = False\nfigures = False\n")
    place = ["--working-dir", str(tmp_path / "runs")]
    assert main.run(["train", str(file), *place, "--stage-data", str(shared)]) == 0
    assert f"--stage-data {shared}: no setting names a path below it" in capsys.readouterr().err


def test_data_that_does_not_exist_is_refused_before_there_is_a_run(shared, settings_file, tmp_path, capsys):
    place = ["--working-dir", str(tmp_path / "runs")]
    assert main.run(["train", str(settings_file()), *place, "--stage-data", str(shared / "nowhere")]) == 2
    assert "nowhere does not exist. Expected a folder or file that this node sees." in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_site_names_the_folder_for_copies(shared, settings_file, tmp_path, capsys):
    (tmp_path / "config" / "experiments_manager").mkdir(parents=True)
    (tmp_path / "config" / "experiments_manager" / "cluster.toml").write_text(f'stage_dir = "{tmp_path}/gone"\n')
    assert main.run(["train", str(settings_file()), "--stage-data", str(shared)]) == 2
    assert f"stage_dir folder {tmp_path}/gone does not exist on this node" in capsys.readouterr().err


@pytest.mark.slow
def test_a_job_that_is_warned_while_it_copies_is_queued_again_and_nothing_counts_as_whole(
    settings_file, slow_disk, tmp_path
):
    disk = slow_disk(20)
    for number in range(400):
        (disk.source / f"{number}.txt").write_text("x")
    command = [
        sys.executable,
        "-m",
        "experiments_manager",
        "train",
        settings_file(),
        "--working-dir",
        tmp_path / "runs",
    ]
    (tmp_path / "node").mkdir()
    job = WarmPopen(
        [*map(str, command), "--stage-data", str(disk.folder)],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "SLURM_TMPDIR": str(tmp_path / "node")},
    )
    for line in job.stderr:
        if line.startswith("Copying"):
            job.send_signal(signal.SIGUSR1)
            break
    said = job.communicate(timeout=120)[1]
    assert job.returncode == ExitCode.INTERRUPTED, said
    assert "Stopped before training began" in said
    assert not list((tmp_path / "node").rglob("whole.json"))
    assert not (tmp_path / "runs").exists()

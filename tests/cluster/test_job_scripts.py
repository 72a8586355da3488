"""The job scripts of install/slurm, which run training in an image."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from experiments_manager.cluster import batch_script
from tests.helpers import slurm

FOLDER = Path(__file__).parents[2] / "install" / "slurm"
COMMON, SUPERVISE = FOLDER / "common.sh", FOLDER / "supervise.sh"
SCRIPTS = sorted(set(FOLDER.glob("*.sh")) - {COMMON, SUPERVISE})
SMALL = ["--cpus-per-task=1", "--mem=100"]
WITHOUT_GPU = {"gpu": ["--gres=none"], "nodes": ["--gpus-per-node=0"]}
SETTINGS = """
import keras
import numpy as np

session_name = "line"
epochs = 1
tensorboard = False
figures = False
export = False
loss = "mean_squared_error"
learning_rate = 0.01


def dataset(split):
    x = np.ones((8, 3), "float32")
    return x, x


def model():
    return keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(3)])
"""
APPTAINER = """#!/bin/sh
# Runs the command of an image without one, and keeps what it was asked for.
echo "$@" > {folder}/asked
while [ "$1" != experiments_manager ]; do shift; done
shift
exec {python} -m experiments_manager "$@"
"""


@pytest.mark.parametrize("script", [*SCRIPTS, COMMON, SUPERVISE], ids=lambda script: script.stem)
def test_each_script_is_valid(script):
    assert subprocess.run(["bash", "-n", script], capture_output=True, text=True).stderr == ""
    if shutil.which("shellcheck"):
        assert subprocess.run(["shellcheck", script], capture_output=True, text=True).stdout == ""


def test_all_scripts_train_by_the_common_part():
    assert len(SCRIPTS) == 5
    for script in SCRIPTS:
        text = script.read_text(encoding="utf-8")
        assert "train_in_image " in text.partition("/common.sh")[2]
        assert "requeue" not in text.partition("/common.sh")[2]
    assert SUPERVISE.resolve() == batch_script.SUPERVISE  # what `submit` writes into its scripts
    assert "supervise 20 " in COMMON.read_text(encoding="utf-8")


def test_a_folder_that_was_copied_without_what_its_link_names_says_so(tmp_path):
    shutil.copytree(FOLDER, tmp_path / "slurm")
    (tmp_path / "slurm" / "supervise.sh").unlink()
    (tmp_path / "tf2_addons.sif").touch()
    command = ["bash", tmp_path / "slurm" / "cpu.sh", "mysettings.py"]
    told = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (told.returncode, "cp -rL install/slurm" in told.stderr) == (2, True)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_without_an_image_a_script_says_what_to_do(script, tmp_path):
    told = subprocess.run(["bash", script, "mysettings.py"], cwd=tmp_path, capture_output=True, text=True)
    assert told.returncode == 2
    assert (
        f"There is no image {tmp_path}/tf2_addons.sif. Expected an Apptainer image. Name it: IMAGE=FILE" in told.stderr
    )


def test_the_shell_of_each_script_is_warned_ahead_of_its_time_limit():
    for script in SCRIPTS:
        assert "#SBATCH --signal=B:USR1@120" in script.read_text(encoding="utf-8").splitlines(), script


@pytest.mark.parametrize(("nodes", "code", "queued_again"), [(2, 137, True), (1, 137, False), (2, 2, False)])
def test_a_job_of_several_nodes_that_lost_a_process_is_queued_again(tmp_path, nodes, code, queued_again):
    for name, said in (("srun", f"exit {code}"), ("scontrol", f'echo "$@" >> {tmp_path}/called; [ "$1" = show ]')):
        (tmp_path / name).write_text(f"#!/bin/sh\n{said}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "image.sif").touch()
    variables = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "7", "IMAGE": str(tmp_path / "image.sif")}
    command = ["bash", FOLDER / "nodes.sh", "mysettings.py"]
    done = subprocess.run(command, env=os.environ | variables | {"SLURM_JOB_NUM_NODES": str(nodes)}, timeout=60)
    assert done.returncode == (75 if queued_again else code)
    assert ("requeue 7" in (tmp_path / "called").read_text()) is queued_again


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_slurm_accepts_each_script(cluster, script):
    options = [*SMALL, *WITHOUT_GPU.get(script.stem, [])]
    told = subprocess.run(["sbatch", "--test-only", *options, script, "s.py", "t"], capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    assert f"using {2 if script.stem == 'nodes' else 1} processors" in told.stderr


@pytest.mark.slow
def test_a_job_trains_in_the_image_in_the_run_folder_that_is_named(cluster, tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    apptainer = tmp_path / "bin" / "apptainer"
    apptainer.write_text(APPTAINER.format(folder=tmp_path, python=sys.executable))
    apptainer.chmod(0o755)
    (tmp_path / "image.sif").touch()
    (tmp_path / "mysettings_line.py").write_text(SETTINGS)
    monkeypatch.setenv("PATH", f"{apptainer.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.setenv("IMAGE", str(tmp_path / "image.sif"))
    monkeypatch.setenv("RUN_NAME", "first")
    script = shutil.copytree(FOLDER, tmp_path / "my scripts") / "cpu.sh"
    command = ["sbatch", "--parsable", *SMALL, "--mem=2000", script, "./mysettings_line.py", "--working-dir", "runs"]
    number = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout.strip()
    assert slurm.wait_for_end(number) == "COMPLETED", next(tmp_path.glob("train-*.out")).read_text()
    assert json.loads((tmp_path / "runs/first/run.json").read_text())["state"] == "finished"
    asked = (tmp_path / "asked").read_text()
    assert asked.startswith(
        f"exec --env PYTHONPATH= --bind {tmp_path} --pwd {tmp_path} {tmp_path}/image.sif experiments_manager train"
    )

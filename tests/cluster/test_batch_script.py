"""The script of a job: what it asks for, and what its shell does with signals and exit codes."""

import os
import signal
import subprocess
import sys
import time

import pytest

from experiments_manager.cluster.batch_script import Job, batch_script
from experiments_manager.cluster.job_options import JobOptions


def job(folder, *commands):
    return Job("my job", folder / "job", folder, commands or (("resume", "a run", "--set", "x=1 2"),))


def test_options_that_are_not_given_are_left_to_the_site(tmp_path):
    script = batch_script(job(tmp_path), JobOptions())
    assert "--partition" not in script
    assert "--mem" not in script
    given = batch_script(job(tmp_path), JobOptions(partition="gpu", gpus="a100:2", mem="16G", sbatch=("--qos=long",)))
    for line in ("--partition=gpu", "--gpus-per-node=a100:2", "--mem=16G", "--qos=long", "--job-name='my job'"):
        assert f"#SBATCH {line}\n" in given


def test_words_with_spaces_stay_one_word(tmp_path):
    assert "resume 'a run' --set 'x=1 2'\n" in batch_script(job(tmp_path), JobOptions())


def test_an_image_sees_the_working_folder_and_the_folder_of_runs_and_the_gpus_that_are_asked_for(tmp_path):
    made = Job("run", tmp_path / "job", tmp_path, (("resume", "r"),), binds=(tmp_path / "runs",))
    script = batch_script(made, JobOptions(image="tf.sif", gpus="1", bind=("/data",)))
    binds = f"--bind {tmp_path} --bind {tmp_path / 'runs'} --bind /data --pwd {tmp_path} tf.sif"
    assert f"apptainer exec --nv --env PYTHONPATH= {binds} experiments_manager resume r\n" in script
    assert "--nv" not in batch_script(made, JobOptions(image="tf.sif"))


@pytest.mark.parametrize("words", [("--stage-data", "set"), ("--stage-data=set",)])
def test_an_image_sees_the_disk_to_which_data_is_copied(tmp_path, words):
    script = batch_script(job(tmp_path, ("resume", "r", *words)), JobOptions(image="tf.sif"))
    assert "APPTAINER_BIND" in script
    assert "APPTAINER_BIND" not in batch_script(job(tmp_path, ("resume", "r")), JobOptions(image="tf.sif"))


def test_several_nodes_are_warned_through_srun(tmp_path):
    script = batch_script(job(tmp_path), JobOptions(nodes=2))
    assert "srun --kill-on-bad-exit=0 --wait=60 " in script
    assert "#SBATCH --signal=B:USR1@120" in script


def test_the_tasks_of_an_array_have_a_command_each(tmp_path):
    script = batch_script(job(tmp_path, ("resume", "a"), ("resume", "b")), JobOptions())
    assert "#SBATCH --array=0-1" in script
    assert "  1) set -- resume b ;;" in script
    assert "slurm-%A_%a.out" in script


COMMAND = """
import signal, sys, time
def stop(number, frame):
    sys.exit({code})
signal.signal(signal.SIGUSR1, stop)
signal.signal(signal.SIGTERM, stop)
print("ready", flush=True)
time.sleep({seconds})
sys.exit({code})
"""


@pytest.mark.parametrize(
    ("code", "number", "restarts", "queued_again"),
    [
        (75, signal.SIGUSR1, 0, True),
        (75, signal.SIGUSR1, 3, False),
        (75, signal.SIGTERM, 0, False),
        (0, signal.SIGUSR1, 0, False),
        (1, None, 0, False),
        (75, None, 0, False),
    ],
)
def test_a_run_that_stopped_at_a_warning_is_queued_again(tmp_path, code, number, restarts, queued_again):
    """The script runs in a shell; a program of the name scontrol notes how it is called."""
    program = tmp_path / "experiments_manager"
    program.mkdir()
    (program / "__init__.py").touch()
    (program / "__main__.py").write_text(COMMAND.format(code=code, seconds=0 if number is None else 60))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/scontrol").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/called\nexit 1\n')
    (tmp_path / "bin/scontrol").chmod(0o755)
    script = tmp_path / "job.sh"
    script.write_text(batch_script(job(tmp_path), JobOptions(python=sys.executable, max_requeues=3)))
    variables = {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "SLURM_JOB_ID": "7", "PYTHONPATH": str(tmp_path)}
    started = subprocess.Popen(
        ["bash", script],
        env=os.environ | variables | {"SLURM_RESTART_COUNT": str(restarts)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    if number is not None:
        assert started.stdout.readline() == "ready\n"
        time.sleep(0.1)
        started.send_signal(number)
    _, said = started.communicate(timeout=60)
    assert started.returncode == code, said
    assert (tmp_path / "called").exists() is queued_again
    if queued_again:
        assert (tmp_path / "called").read_text() == "requeue 7\n"
    assert ("--max-requeues" in said) is (restarts == 3)


@pytest.mark.parametrize(("code", "queued_again"), [(137, True), (75, False), (2, False)])
def test_a_training_of_several_nodes_is_queued_again_when_a_task_was_killed(tmp_path, code, queued_again):
    for name, said in (("srun", f"exit {code}"), ("scontrol", f'echo "$@" >> {tmp_path}/called; exit 1')):
        (tmp_path / name).write_text(f"#!/bin/sh\n{said}\n")
        (tmp_path / name).chmod(0o755)
    script = tmp_path / "job.sh"
    script.write_text(batch_script(job(tmp_path), JobOptions(nodes=2)))
    variables = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "2"}
    done = subprocess.run(["bash", script], env=os.environ | variables, timeout=60)
    assert done.returncode == (75 if code == 137 else code)
    assert (tmp_path / "called").exists() is queued_again

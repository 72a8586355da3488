"""The small SLURM that the tests use is one that users can start, too."""

import subprocess
import sys

import pytest

from tests.helpers import slurm


def tool(command, folder):
    done = subprocess.run(
        [sys.executable, slurm.TOOL, command, "--folder", folder], capture_output=True, text=True, timeout=60
    )
    return done.returncode, done.stdout + done.stderr


def test_it_is_started_once_and_says_so(cluster):
    assert tool("start", cluster) == (0, f"Already running in {cluster}.\n")
    code, said = tool("status", cluster)
    assert (code, said) == (0, "Running: munged, n1, n2, slurmctld.\n")


def test_what_does_not_run_cannot_be_stopped(tmp_path):
    assert tool("stop", tmp_path) == (0, "It does not run.\n")
    assert tool("status", tmp_path)[0] == 3


def test_accounting_is_told_from_what_the_controller_remembers(cluster):
    done = subprocess.run(
        ["sbatch", "--parsable", "--output=/dev/null", "--wrap", "exit 3"], capture_output=True, text=True, timeout=60
    )
    job = done.stdout.strip()
    assert slurm.wait_for_end(job) == "FAILED"
    told = subprocess.run(
        ["sacct", "-n", "-j", job, "--format=JobID,State,ExitCode"], capture_output=True, text=True, timeout=60
    )
    assert told.stdout == f"{job}|FAILED|3:0\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--folder", "{}/two words"], "Expected a path without spaces"),
        (["--folder", "{}/it's"], "Expected a path without spaces"),
        (["--cpus", "0"], "--cpus is 0. Expected a whole number from 1 on."),
        (["--nodes", "-1"], "--nodes is -1. Expected"),
    ],
)
def test_what_slurm_cannot_be_configured_with_is_refused(tmp_path, arguments, message):
    words = [word.format(tmp_path) for word in arguments]
    done = subprocess.run([sys.executable, slurm.TOOL, "start", *words], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())

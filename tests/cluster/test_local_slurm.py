"""The small SLURM that the tests use is one that users can start, too."""

import subprocess
import sys

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

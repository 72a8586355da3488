"""A real SLURM, shared by the tests of a run."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

TOOL = Path(__file__).parents[2] / "tools" / "local_slurm.py"


def is_possible():
    """Tells whether its daemons can be started here."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin"
    return os.geteuid() == 0 and all(shutil.which(name, path=path) for name in ("munged", "slurmctld", "slurmd"))


def call(command, folder, *options):
    done = subprocess.run(
        [sys.executable, TOOL, command, "--folder", folder, *options], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def environment(folder):
    """Gives the variables that let SLURM's commands find it."""
    told = call("environment", folder)
    return dict(re.findall(r"export (\w+)='(.*)'", told))


@contextlib.contextmanager
def running(folder, *options):
    """Starts it, and stops it at the end."""
    call("start", folder, *options)
    try:
        yield environment(folder)
    finally:
        call("stop", folder)


def job(number):
    """Tells what the controller knows of a job, by field."""
    told = subprocess.run(["scontrol", "--oneliner", "show", "job", number], capture_output=True, text=True).stdout
    return dict(re.findall(r"(\w+)=(\S*)", told))


def wait_for(condition, seconds=90.0):
    """Waits until something holds, and gives it."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.2)
    return found


def wait_for_end(number, seconds=120.0):
    """Waits until a job is neither queued nor running, and gives its state."""
    ended = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED"}
    return wait_for(lambda: state if (state := job(number).get("JobState")) in ended else None, seconds)


def manifest(run):
    return json.loads((Path(run) / "run.json").read_text())

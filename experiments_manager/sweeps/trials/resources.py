"""How the processors, GPUs and memory of a machine are shared out among trials that run at the same time."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from experiments_manager.common.machine.processes import usable_processors


def threads_of_a_trial(parallel: int) -> int:
    """Return how many threads each of some trials should compute with."""
    return max(1, usable_processors() // parallel)


def visible_gpus() -> list[str]:
    """Return the GPUs that trials may use, as `CUDA_VISIBLE_DEVICES` names them; TensorFlow is not asked for that."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name for name in given.split(",") if name.strip() and name.strip() != "-1"]
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    told = subprocess.run([program, "--list-gpus"], capture_output=True, text=True, check=False, timeout=30)
    return [str(number) for number, line in enumerate(told.stdout.splitlines()) if line.startswith("GPU ")]


def gpus_of_slot(slot: int, parallel: int, gpus: list[str]) -> str | None:
    """Return the value of `CUDA_VISIBLE_DEVICES` for the trials of one slot; `None` to leave it as it is.

    With more GPUs than trials each trial has several; with fewer, some trials share one.
    """
    if not gpus:
        return None
    if len(gpus) >= parallel:
        return ",".join(gpus[slot::parallel])
    return gpus[slot % len(gpus)]


def out_of_memory_kills() -> int:
    """Return how many processes the system has ended for want of memory so far; 0 where it does not tell."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)

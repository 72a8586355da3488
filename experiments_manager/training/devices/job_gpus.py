"""The GPUs that SLURM has given to this job, by its variables."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Sequence
from typing import TypeVar

logger = logging.getLogger(__name__)

Gpu = TypeVar("Gpu")


def in_job_with_gpus() -> bool:
    """Return whether this process belongs to a job of SLURM that has asked for GPUs."""
    return bool(os.environ.get("SLURM_JOB_ID")) and bool(_indices() or _count())


def gpus_of_job(visible: Sequence[Gpu], *, wanted: bool = True) -> list[Gpu]:
    """Return those of the GPUs that TensorFlow sees which belong to the job; all of them outside of a job with GPUs.

    Most clusters show a job its own GPUs alone, by `CUDA_VISIBLE_DEVICES` or by cgroups. Where they do not, the others
    belong to other jobs. Where TensorFlow sees none although GPUs are wanted, that is told.
    """
    visible = list(visible)
    if not in_job_with_gpus():
        return visible
    if not visible and wanted:
        logger.warning(
            "The job has GPUs (SLURM_JOB_GPUS=%s), but TensorFlow sees none, and trains on the CPU. Check the driver, "
            "and that TensorFlow was installed with CUDA; in a container, that it was started with --nv.",
            os.environ.get("SLURM_JOB_GPUS") or os.environ.get("SLURM_GPUS_ON_NODE"),
        )
    indices, count = _indices(), _count() or len(_indices())
    if os.environ.get("CUDA_VISIBLE_DEVICES") is not None or len(visible) <= count:
        return visible
    chosen = [gpu for number, gpu in enumerate(visible) if number in indices] if indices else visible[:count]
    return chosen or visible[:count]


def _indices() -> set[int]:
    """Return numbers of the job's GPUs on this node, from texts such as `0,2` or `0-1,3`."""
    told = os.environ.get("SLURM_STEP_GPUS") or os.environ.get("SLURM_JOB_GPUS") or ""
    found: set[int] = set()
    for first, last in re.findall(r"(\d+)(?:-(\d+))?", told):
        found.update(range(int(first), int(last or first) + 1))
    return found


def _count() -> int:
    """Return how many GPUs the job has on this node, from texts such as `2` or `tesla:2,kepler:1`."""
    return sum(map(int, re.findall(r"(?:^|[,:])(\d+)(?=,|$)", os.environ.get("SLURM_GPUS_ON_NODE", ""))))

"""Processors and memory, and what the control group of a job or container leaves of them."""

from __future__ import annotations

import os
from pathlib import Path

from experiments_manager.doctor.finding import Finding, note, ok

_ROOT = Path("/sys/fs/cgroup")
_GIB = 2**30
_NEEDED_BYTES = 2 * _GIB
_UNLIMITED = 2**60
"""What version 1 of control groups says where there is no limit, is larger than this."""


def processors(root: Path = _ROOT) -> Finding:
    """Tell the cores that a run may use, and whether it would start more threads than it has cores."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = _cores_of_control_group(root)
    text = f"{allowed} usable of {os.cpu_count()}"
    if limit is not None and limit < allowed:
        threads = max(1, round(limit))
        remedy = f"More threads than cores slow training down: export OMP_NUM_THREADS={threads}, or ask for more cores."
        return note("Cores", f"{text}; the control group allows {limit:g} at a time", remedy)
    return ok("Cores", text)


def memory(root: Path = _ROOT, meminfo: Path = Path("/proc/meminfo")) -> Finding:
    """Tell the memory that is available, within the limit of the control group."""
    available = _available(meminfo)
    if available is None:
        return note("Memory", "the system does not tell")
    limit, used = _memory_of_control_group(root)
    left = available if limit is None else min(available, limit - used)
    text = f"{left / _GIB:.1f} GiB available"
    if limit is not None:
        text += f"; the control group allows {limit / _GIB:.1f} GiB"
    if left < _NEEDED_BYTES:
        return note("Memory", text, "Training needs about 2 GiB and the data. End other programs, or ask for more.")
    return ok("Memory", text)


def _cores_of_control_group(root: Path) -> float | None:
    words = _read(root / "cpu.max").split()  # version 2 of control groups
    if len(words) == 2 and words[0] != "max":
        return int(words[0]) / int(words[1])
    quota, period = _read(root / "cpu/cpu.cfs_quota_us"), _read(root / "cpu/cpu.cfs_period_us")
    if quota and period and int(quota) > 0:
        return int(quota) / int(period)
    return None


def _memory_of_control_group(root: Path) -> tuple[int | None, int]:
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        text = _read(root / limit)
        if text and text != "max" and int(text) < _UNLIMITED:
            return int(text), int(_read(root / used) or 0)
    return None, 0


def _available(meminfo: Path) -> int | None:
    for line in _read(meminfo).splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii").strip()
    except OSError:
        return ""

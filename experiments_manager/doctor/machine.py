"""Processors and memory, and what the control group of a job or container leaves of them."""

from __future__ import annotations

import os
from pathlib import Path

from experiments_manager.common.machine.processes import usable_processors
from experiments_manager.doctor.finding import Finding, note, ok

_ROOT = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")
_GIB = 2**30
_NEEDED_BYTES = 2 * _GIB
_UNLIMITED = 2**60
"""What version 1 of control groups says where there is no limit, is larger than this."""


def processors(root: Path = _ROOT, own: Path = _OWN) -> Finding:
    """Tell the cores that a run may use, and whether it would start more threads than it has cores."""
    allowed = usable_processors()
    limit = _cores_of_control_groups(root, own)
    text = f"{allowed} usable of {os.cpu_count()}"
    if limit is not None and limit < allowed:
        threads = max(1, round(limit))
        remedy = f"More threads than cores slow training down: export OMP_NUM_THREADS={threads}, or ask for more cores."
        return note("Cores", f"{text}; the control group allows {limit:g} at a time", remedy)
    return ok("Cores", text)


def memory(root: Path = _ROOT, meminfo: Path = Path("/proc/meminfo"), own: Path = _OWN) -> Finding:
    """Tell the memory that is available, within the limit of the control group."""
    available = _available(meminfo)
    if available is None:
        return note("Memory", "the system does not tell")
    limit, used = _memory_of_control_groups(root, own)
    left = available if limit is None else min(available, limit - used)
    text = f"{left / _GIB:.1f} GiB available"
    if limit is not None:
        text += f"; the control group allows {limit / _GIB:.1f} GiB"
    if left < _NEEDED_BYTES:
        return note("Memory", text, "Training needs about 2 GiB and the data. End other programs, or ask for more.")
    return ok("Memory", text)


def _control_groups(root: Path, own: Path, controller: str) -> list[Path]:
    """Return the folders that limit this process: of its own control group, which a job has, and of those above."""
    folders = [root, root / controller]
    for line in _read(own).splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        base = root if number == "0" else root / controller  # versions 2 and 1
        if ".." in path or (number != "0" and controller not in controllers.split(",")):
            continue
        place = base / path.lstrip("/")
        folders += [folder for folder in (place, *place.parents) if folder != base and base in folder.parents]
    return folders


def _cores_of_control_groups(root: Path, own: Path) -> float | None:
    limits = []
    for folder in _control_groups(root, own, "cpu"):
        words = _read(folder / "cpu.max").split()  # version 2 of control groups
        if len(words) == 2 and words[0] != "max":
            limits.append(int(words[0]) / int(words[1]))
        quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
        if quota and period and int(quota) > 0:
            limits.append(int(quota) / int(period))
    return min(limits, default=None)


def _memory_of_control_groups(root: Path, own: Path) -> tuple[int | None, int]:
    """Return limit and use of the control group that leaves least; the use without files that can be read again."""
    found = []
    for folder in _control_groups(root, own, "memory"):
        for limit, used, cached in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            text = _read(folder / limit)
            if text and text != "max" and int(text) < _UNLIMITED:
                counts = dict(line.split()[:2] for line in _read(folder / "memory.stat").splitlines() if " " in line)
                found.append((int(text), int(_read(folder / used) or 0) - int(counts.get(cached, 0))))
    return min(found, key=lambda pair: pair[0] - pair[1], default=(None, 0))


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

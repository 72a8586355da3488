"""Threads: how many TensorFlow uses, and how those that load versions give way to those that answer."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import logging
import os
import platform
import threading
from collections.abc import Sequence
from pathlib import Path

logger = logging.getLogger(__name__)

SMALL_MODEL_BYTES = 32 << 20
"""Models with fewer bytes of variables than this are run by one thread each."""


@dataclasses.dataclass(frozen=True)
class Threads:
    """How many threads TensorFlow uses; the first model that is loaded decides for the process.

    Attributes:
        intra_op: Threads that share one operation, 0 for as many as there are processors.
        inter_op: Threads that share the operations of one call; -1 runs them in the calling thread, which for small
            models is faster than handing each operation over.
    """

    intra_op: int = 1
    inter_op: int = -1

    @classmethod
    def for_models(cls, base_paths: Sequence[Path]) -> Threads:
        """Choose for the models found: handing work to other threads costs a small model more than it gains."""
        largest = max((_variables_bytes(path) for path in base_paths), default=0)
        return cls(intra_op=1 if largest < SMALL_MODEL_BYTES else 0)


def _variables_bytes(base_path: Path) -> int:
    """Return the bytes of the variables of the largest version."""
    sizes: dict[Path, int] = {}
    for file in base_path.glob("[0-9]*/variables/variables.data-*"):
        sizes[file.parent] = sizes.get(file.parent, 0) + file.stat().st_size
    return max(sizes.values(), default=0)


@functools.cache
def processor() -> str:
    """Return what kind of processors this machine has, and how many: libraries choose their kernels by it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    about = sorted({line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))})
    digest = hashlib.sha256("\n".join(about).encode()).hexdigest()[:12]
    return f"{platform.machine()} {platform.processor()} {digest} {os.cpu_count()}"


def lower_priority() -> None:
    """Let the calling thread give way to the others, where the system has priorities of threads."""
    if hasattr(os, "setpriority") and hasattr(threading, "get_native_id"):
        try:
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)
        except OSError:
            logger.debug("the priority of a loading thread cannot be lowered", exc_info=True)

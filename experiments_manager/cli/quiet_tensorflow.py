"""Let TensorFlow start quickly, and keep what it says meanwhile off the terminal, without hiding what matters.

TensorFlow's C++ libraries write to file descriptor 2 while they are loaded and when devices are looked for the first
time, before any switch for their log is in force. So both happen here with that descriptor pointing to a temporary
file, which is shown if TensorFlow fails, or finds no GPU on a machine that has one.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from experiments_manager.common.machine.imports import imported_for_good
from experiments_manager.common.machine.redirection import errors_held_back

NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")


def silence_startup_logs() -> None:
    """Let the first import of TensorFlow, whenever it comes, be a quiet one."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if "tensorflow" not in sys.modules and sys.stderr is not None:
        sys.meta_path.insert(0, _QuietImport())


class _QuietImport(importlib.abc.MetaPathFinder):
    """A finder that lets TensorFlow start quietly."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != "tensorflow":
            return None
        sys.meta_path.remove(self)
        try:
            spec = importlib.util.find_spec(name)
        finally:
            sys.meta_path.insert(0, self)  # who asks whether there is a TensorFlow need not import it
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module
            spec.loader.exec_module = lambda module: self._execute(execute, module)
        return spec

    def _execute(self, execute: Callable[[ModuleType], None], module: ModuleType) -> None:
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        _execute_quietly(execute, module)


def _execute_quietly(execute: Callable[[ModuleType], None], module: ModuleType) -> None:
    gpus: list[Any] = []
    with errors_held_back(lambda: NVIDIA_DRIVER.exists() and not gpus), imported_for_good():
        execute(module)
        gpus += module.config.list_physical_devices("GPU")  # looks for drivers; they can still be chosen later

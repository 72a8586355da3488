"""All checks, at the same time: what they wait for is not the processor."""

from __future__ import annotations

import concurrent.futures
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments_manager.doctor import accelerators, machine, services, software, storage
from experiments_manager.doctor.finding import Finding, FindingState, problem

_Check = Callable[[], "Finding | list[Finding]"]


def examine(working_dir: Path | None = None) -> list[Finding]:
    """Look at everything.

    Args:
        working_dir: Where run folders shall be made; by default the one that settings have by default.

    Returns:
        What was found, in the order of the page. A check that fails is a finding, too.
    """
    values = default_values()
    checks: list[_Check] = [
        software.python,
        software.distribution,
        accelerators.tensorflow,
        software.extras,
        machine.processors,
        machine.memory,
        functools.partial(storage.working_folder, working_dir or Path(values["working_dir"])),
        software.apptainer,
        software.slurm,
        functools.partial(services.kafka, values),
        functools.partial(services.model_server, values),
    ]
    with concurrent.futures.ThreadPoolExecutor(max_workers=len(checks)) as threads:
        return [finding for found in threads.map(_run, checks) for finding in found]


def default_values() -> dict[str, Any]:
    """Return the settings that say where things are expected, by name."""
    from experiments_manager.settings.schema import Values

    names = ("working_dir", "server_host", "grpc_port", "kafka_bootstrap_servers")
    return {name: Values.model_fields[name].get_default() for name in names}


def is_usable(findings: list[Finding]) -> bool:
    """Tell whether nothing that is needed is broken."""
    return all(finding.state is not FindingState.PROBLEM for finding in findings)


def _run(check: _Check) -> list[Finding]:
    try:
        found = check()
    except Exception as error:
        function = check.func if isinstance(check, functools.partial) else check
        name = function.__name__.replace("_", " ").capitalize()
        return [problem(name, f"the check failed: {type(error).__name__}: {error}", "Report this as a bug.")]
    return found if isinstance(found, list) else [found]

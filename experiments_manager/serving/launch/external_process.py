"""TensorFlow Serving itself, as a child process that ends with us."""

from __future__ import annotations

import functools
import json
import os
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

from experiments_manager.common.machine.processes import die_with_parent, end_session
from experiments_manager.common.signals import shutdown_event
from experiments_manager.export.model_folders import versions_in
from experiments_manager.protocol.errors import ServerStartError
from experiments_manager.serving.launch.engines import Service, environment

PATIENCE = 15.0
"""Seconds that a server has to end after SIGTERM."""
_POLL = 0.1


def run_external(command: Sequence[str], service: Service, on_ready: Callable[[list[int]], None]) -> None:
    """Run a server until it ends, or this process is told to.

    Args:
        command: Its command line.
        service: Where it answers.
        on_ready: Called once with the versions that it serves, as soon as it does.

    Raises:
        ServerStartError: It ended by itself; what it said stands on standard error already.
    """
    with shutdown_event() as stopping:
        # No thread of ours exists yet, so that running Python between fork and exec is safe.
        process = subprocess.Popen(
            command,
            env=environment(service),
            start_new_session=True,
            preexec_fn=functools.partial(die_with_parent, os.getpid()),
        )
        try:
            ready = False
            while process.poll() is None and not stopping.is_set():
                if not ready and (versions := _available(service)):
                    ready = True
                    on_ready(versions)
                stopping.wait(_POLL if not ready else 1.0)
        finally:
            end_session(process, PATIENCE)
    if not stopping.is_set():
        raise ServerStartError(
            f"{command[0]} ended by itself with exit code {process.returncode}. Expected it to serve "
            f"{service.flags.model_base_path}. See its log above."
        )


def _available(service: Service) -> list[int]:
    """Return the versions that a server says it serves, newest last; none while it does not answer."""
    if not service.flags.rest_api_port:
        return _behind_grpc(service)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://{service.url}", timeout=2) as answer:
            found = json.load(answer)["model_version_status"]
        return sorted(int(version["version"]) for version in found if version["state"] == "AVAILABLE")
    except (OSError, ValueError, KeyError, urllib.error.URLError):
        return []


def _behind_grpc(service: Service) -> list[int]:
    """Return the newest version when the server listens: it does so as soon as it has loaded that."""
    try:
        with socket.create_connection(("127.0.0.1", service.flags.port), timeout=2):
            return versions_in(Path(service.flags.model_base_path))[-1:]
    except OSError:
        return []

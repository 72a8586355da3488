"""A model server for the time of one command, where a run has versions and nobody serves them."""

from __future__ import annotations

import contextlib
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

from experiments_manager.client.endpoint import Endpoint
from experiments_manager.common.console import warn
from experiments_manager.common.machine.addresses import free_port, is_loopback
from experiments_manager.export.model_folders import find_target, is_at_work, versions_in
from experiments_manager.serving.launch.engines import Service
from experiments_manager.serving.launch.serve import of_one_version
from experiments_manager.serving.launch.serve_options import Engine
from experiments_manager.serving.launch.sidecar import Sidecar
from experiments_manager.serving.server.flag_table import ServerFlags
from experiments_manager.serving.server.preflight import check_embedded

STARTING_SECONDS = 120.0
"""Time for the server to be there, on a busy machine."""


def needs_own_server(run: Path, endpoint: Endpoint) -> bool:
    """Return whether a run has versions that nobody serves, nor will: it is not being trained."""
    host, _, port = endpoint.address.rpartition(":")
    host = host.strip("[]")
    target = find_target(run)
    if not endpoint.has_settings or not is_loopback(host) or is_at_work(target) or not versions_in(target.base_path):
        return False
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except OSError:
        return True
    return False


@contextlib.contextmanager
def own_server(run: Path, model_name: str, version: int | str | None, *, quiet: bool) -> Iterator[str]:
    """Serve a run's versions on this machine until the end of the block; gives the address.

    Args:
        run: The run folder.
        model_name: Name of the model.
        version: The only version to serve; the newest where it is no number.
        quiet: Whether to say nothing as long as all goes well.

    Raises:
        ServerStartError: The extra `serving` is not installed, or there is no such version.
    """
    check_embedded()
    base_path = find_target(run).base_path
    flags = ServerFlags(port=free_port(), model_name=model_name, model_base_path=str(base_path))
    with contextlib.ExitStack() as stack:
        service = Service(flags)
        if isinstance(version, int):
            service = of_one_version(service, Engine.EMBEDDED, version, stack)
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="experiments_manager_"))
        server = Sidecar(warn)
        stack.callback(server.stop)
        server.start(service, Path(folder) / "model_server.log")
        if not quiet:
            warn(f"Nobody serves {model_name}: starting a server for the time of this command …")
        yield service.grpc_address

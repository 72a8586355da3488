"""`train --serve` and `resume --serve`: the embedded model server beside a training."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from experiments_manager.common.console import warn
from experiments_manager.common.errors import CommandLineError

if TYPE_CHECKING:
    from experiments_manager.runs import Run
    from experiments_manager.settings import Settings

LOG_FILE = "model_server.log"
HOST = "127.0.0.1"


@contextlib.contextmanager
def sidecar_server(settings: Settings, *, quiet: bool) -> Iterator[Callable[[Run], None]]:
    """Check that a server can be started, and end it with the `with` block.

    Args:
        settings: Of the experiment: ports, limits, name of the model, and whether the server may use a GPU.
        quiet: Whether to say nothing as long as all goes well.

    Yields:
        A function that starts the server, to be called with the run as soon as there is one.

    Raises:
        CommandLineError: The experiment exports nothing that could be served.
        ServerStartError: A port is taken, or the extra `serving` is not installed.
    """
    from experiments_manager.serving.launch.engines import Service, check_ports
    from experiments_manager.serving.launch.serve import LIMITS, addresses, limit_flags
    from experiments_manager.serving.launch.sidecar import Sidecar
    from experiments_manager.serving.server.preflight import check_embedded

    if not settings.export:
        raise CommandLineError("--serve has nothing to serve. Expected `export = True`, got False. Change it.")
    check_embedded()
    flags = ("--enable_batching=true", *limit_flags({name: getattr(settings, name) for name in LIMITS}))
    ports = {"grpc_port": settings.grpc_port, "rest_port": settings.rest_port}
    options = {"model_name": settings.model_name, "host": HOST, "flags": flags, "gpu": settings.serve_on_gpu, **ports}

    def service(run: Run | None) -> Service:
        return Service(run.exports_dir if run else settings.file.parent, **options)

    check_ports(service(None), flags=("--set grpc_port=PORT", "--set rest_port=PORT"))
    started: list[Run] = []
    with Sidecar(warn) as server:

        def start(run: Run) -> None:
            started.append(run)
            server.start(service(run), run.path / LOG_FILE)
            if not quiet:
                lines = addresses(service(run))
                warn("\n".join([f"Serving {settings.model_name} as soon as there is a version:", *lines]))

        yield start
    if started and not quiet:
        command = shlex.join(["experiments_manager", "serve", str(started[0].path)])
        warn(f"The model server has ended with the training. To serve on: {command}")

"""`train --serve` and `resume --serve`: the embedded model server as a sidecar of a training."""

from __future__ import annotations

import dataclasses

from experiments_manager.common.console import command_line, warn
from experiments_manager.common.errors import CommandLineError
from experiments_manager.events import RunEnd, RunStart, Watcher
from experiments_manager.runs import Run
from experiments_manager.serving.launch.engines import Service, check_ports
from experiments_manager.serving.launch.serve import addresses
from experiments_manager.serving.launch.sidecar import Sidecar
from experiments_manager.serving.server.flag_table import LIMITS, ServerFlags
from experiments_manager.serving.server.preflight import check_embedded
from experiments_manager.settings import Settings

LOG_FILE = "model_server.log"


class SidecarServer(Watcher):
    """A watcher that serves the versions of a run from its start to its end, on the loopback address.

    Args:
        settings: Of the experiment: ports, limits, name of the model, and whether the server may use a GPU.
        quiet: Whether to say nothing as long as all goes well.

    Raises:
        CommandLineError: The experiment exports nothing that could be served.
        ServerStartError: A port is taken, or the extra `serving` is not installed.
    """

    def __init__(self, settings: Settings, *, quiet: bool) -> None:
        if not settings.export:
            raise CommandLineError("--serve has nothing to serve. Expected `export = True`, got False. Change it.")
        check_embedded()
        self._flags = ServerFlags(
            port=settings.grpc_port,
            rest_api_port=settings.rest_port,
            model_name=settings.model_name,
            enable_batching=True,
            **{name: getattr(settings, name) for name in LIMITS},
        )
        check_ports(self._flags, options=("--set grpc_port=PORT", "--set rest_port=PORT"))
        self._gpu, self._quiet = settings.serve_on_gpu, quiet
        self._server = Sidecar(warn)
        self._run: Run | None = None

    def on_start(self, start: RunStart) -> None:
        """Start the server, which waits for the first version."""
        run = Run(start.run_dir)
        flags = dataclasses.replace(self._flags, model_base_path=str(run.exports_dir))
        service = Service(flags, gpu=self._gpu)
        self._server.start(service, run.path / LOG_FILE)
        self._run = run
        if not self._quiet:
            warn("\n".join([f"Serving {flags.model_name} as soon as there is a version:", *addresses(service)]))

    def on_end(self, end: RunEnd) -> None:
        """Ask the server to end; `close` waits for it, when the run's lock is given back."""
        self._server.ask_to_end()
        if self._run and not self._quiet and end.state != "failed":
            command = command_line("serve", str(self._run.path))
            warn(f"The model server has ended with the training. To serve on: {command}")

    def close(self) -> None:
        """Wait until the server has ended, however the run came to its end."""
        self._server.stop()

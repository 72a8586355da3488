"""`sweep --serve`: the best trial so far, live, under one model name."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments_manager.common import atomic
from experiments_manager.common.console import warn
from experiments_manager.common.errors import CommandLineError
from experiments_manager.export import versions
from experiments_manager.runs import Run
from experiments_manager.serving.launch.engines import Service, check_ports
from experiments_manager.serving.launch.serve import addresses
from experiments_manager.serving.launch.sidecar import Sidecar
from experiments_manager.serving.server.flag_table import ServerFlags
from experiments_manager.serving.server.preflight import check_embedded
from experiments_manager.sweeps.driver import Observer
from experiments_manager.sweeps.experiment import SweptExperiment
from experiments_manager.sweeps.state.folder import SweepFolder
from experiments_manager.sweeps.state.trials import SweepState, Trial, best_trial

KEPT = 2
"""Versions that are kept: the best model and the one before, which may still be answering."""
LOG_FILE = "model_server.log"


class BestServer(Observer):
    """Publishes the newest version of each new best trial, and serves what was published.

    Args:
        folder: Of the sweep.
        experiment: What is known of the experiment: ports, limits, name of the model.

    Raises:
        CommandLineError: The experiment exports nothing that could be served.
        ServerStartError: A port is taken, or the extra `serving` is not installed.
    """

    def __init__(self, folder: SweepFolder, experiment: SweptExperiment) -> None:
        told = experiment.settings
        if not told["export"]:
            raise CommandLineError("--serve has nothing to serve. Expected `export = True`, got False. Change it.")
        check_embedded()
        self._folder, self._modes = folder, experiment.modes
        self._models = folder.path / "best_model"
        self._models.mkdir(parents=True, exist_ok=True)
        versions.remove_stages(self._models)
        flags = ServerFlags(
            port=told["ports"][0],
            rest_api_port=told["ports"][1],
            model_name=told["model_name"],
            model_base_path=str(self._models),
            enable_batching=True,
            **told["limits"],
        )
        check_ports(flags, options=("grpc_port in `overrides`", "rest_port in `overrides`"))
        self._served: int | None = None
        self._server = Sidecar(warn)
        service = Service(flags, gpu=told["serve_on_gpu"])
        self._server.start(service, folder.path / LOG_FILE)
        warn("\n".join([f"Serving {flags.model_name}, the best so far, as soon as there is one:", *addresses(service)]))

    def on_event(self, state: SweepState, event: Mapping[str, Any]) -> None:
        """Publish the model of a new best trial."""
        best = best_trial(state.trials.values(), self._modes)
        if best is not None and best.number >= 0 and best.number != self._served:
            self._served = best.number
            self._publish(best)

    def _publish(self, trial: Trial) -> None:
        exports = Run(self._folder.trials_dir / trial.name).exports_dir
        found = versions.versions(exports)
        if not found:
            warn(f"Trial {trial.number} is the best, and exported no model; the one before is served on.")
            return
        number = max(versions.versions(self._models), default=0) + 1
        stage = self._models / f"{versions.STAGE_PREFIX}{number}"
        try:
            shutil.copytree(exports / str(found[-1]), stage)
            atomic.write_text(self._models / "trial.txt", f"version {number} is {trial.name}\n")
            Path(stage).rename(self._models / str(number))
            versions.prune(self._models, KEPT)
        except OSError as error:
            shutil.rmtree(stage, ignore_errors=True)
            warn(f"The model of trial {trial.number} could not be published: {error.strerror}. Serving the one before.")

    def close(self) -> None:
        """End the model server of the best trial."""
        self._server.stop()

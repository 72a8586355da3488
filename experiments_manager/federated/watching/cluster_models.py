"""The models of clusters, scored on the validation split of the server and exported as versions of their own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from experiments_manager.export.publisher import Publisher
from experiments_manager.federated.local.trainer import LocalTrainer
from experiments_manager.training.engine.chunks import ChunkSize
from experiments_manager.training.engine.context import TrainingContext, publisher_of
from experiments_manager.training.engine.validation import run_test_steps


class ClusterModels:
    """Puts the weights of clusters into the model of the run, one after the other.

    Whoever uses the model afterwards puts its own weights back.

    Args:
        context: The run of the global model.
        server: Knows the variables of that model.
        folder: Where each cluster has a folder by its name, with `exported_models/`.
    """

    def __init__(self, context: TrainingContext, server: LocalTrainer, folder: Path) -> None:
        self._context, self._server, self._folder = context, server, folder
        self._publishers: dict[str, Publisher] = {}

    def use(self, weights: Mapping[str, np.ndarray], number: int) -> None:
        """Let the model have the weights of a cluster in a round."""
        self._server.put_back(weights, number)

    def score(self) -> dict[str, float]:
        """Return loss and metrics of the model on the validation split; nothing where there is none."""
        feed, loop = self._context.experiment.validation, self._context.loops.validation
        if feed is None or loop is None:
            return {}
        self._context.reset_metrics()
        return run_test_steps(loop, feed, self._context.experiment.state.progress.epoch, ChunkSize())

    def publish(self, name: str, version: int) -> bool:
        """Hand the model to the publisher of a cluster; return whether this run exports at all."""
        if self._context.publisher is None:
            return False
        if name not in self._publishers:
            exports = self._folder / name / "exported_models"
            exports.mkdir(parents=True, exist_ok=True)
            self._publishers[name] = publisher_of(self._context.experiment, exports)
        self._publishers[name].submit(version)
        return True

    def close(self) -> None:
        """Wait for the versions, and say which could not be published."""
        for name, publisher in self._publishers.items():
            publisher.close()
            for version, problem in publisher.outcomes():
                if problem is not None:
                    text = f"Version {version} of cluster {name} was not published: {problem}"
                    self._context.dispatch("on_message", text)
        self._publishers.clear()

"""`clusters.json` and `figures/clusters.png`: which clients share a model, since when, and how good these models are.

They are written after each round in which the clusters changed, and at the end.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments_manager.common.atomic import write_bytes, write_json
from experiments_manager.common.jsonable import to_jsonable
from experiments_manager.events import RunEnd
from experiments_manager.export.publisher import Publisher
from experiments_manager.federated.local.trainer import LocalTrainer
from experiments_manager.federated.message_records import to_arrays
from experiments_manager.federated.watching.round_watcher import RoundWatcher
from experiments_manager.monitoring.plots.run_figures import FOLDER
from experiments_manager.runs import Run
from experiments_manager.training.engine.chunks import ChunkSize, run_test_steps
from experiments_manager.training.engine.context import TrainingContext, publisher_of

if TYPE_CHECKING:
    from experiments_manager.federated.server.federation_state import RoundReport
    from experiments_manager.federated.strategies.clustered import Cluster
    from experiments_manager.federated.strategies.server_strategy import ServerStrategy


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


logger = logging.getLogger(__name__)

FILE, FIGURE = "clusters.json", "clusters"
_OF_A_SPLIT = ("round", "cluster", "proc_ids", "groups", "separation")


class Clusters(RoundWatcher):
    """Writes them, and sees to it that each cluster's model is scored and exported.

    Args:
        run: The run of the global model.
        models: Scores and exports.
        true_groups: The true group of each client by its number.
        figures: Whether to draw.
    """

    def __init__(
        self, run: Run, models: ClusterModels, *, true_groups: Sequence[Hashable] | None = None, figures: bool = True
    ) -> None:
        self._run, self._models, self._figures = run, models, figures
        self._truth = None if true_groups is None else dict(enumerate(true_groups))
        self._members: list[list[int]] | None = None

    def on_begin(self, first_round: int) -> None:
        """Take note of the clusters that were written last, if they are still true."""
        written = _read(self._run.path / FILE)
        if written.get("round", first_round) < first_round:
            self._members = [cluster["members"] for cluster in written["clusters"]]

    def on_round(self, report: RoundReport, strategy: ServerStrategy) -> None:
        """Write, score and export where the clusters changed."""
        if strategy.clustered is not None and _members(strategy.clusters) != self._members:
            self._tell(report.round, strategy)

    def on_last(self, number: int, strategy: ServerStrategy) -> None:
        """Write, score and export the clusters that there are in the end."""
        if strategy.clustered is not None:
            self._tell(number, strategy)
            self._models.close()

    def on_end(self, end: RunEnd) -> None:
        """Wait for versions that are on their way."""
        self._models.close()

    def _tell(self, number: int, strategy: ServerStrategy) -> None:
        clusters, clustered = strategy.clusters, strategy.clustered
        self._members = _members(clusters)
        told: dict[str, Any] = {"round": number}
        if self._truth is not None:
            told["ari"] = clustered.score(self._truth)
        told["clusters"] = [self._described(str(index), each, clusters, number) for index, each in enumerate(clusters)]
        told["splits"] = [{name: split[name] for name in _OF_A_SPLIT} for split in clustered.history]
        try:
            write_json(self._run.path / FILE, to_jsonable(told))
            if self._figures and clustered.history:
                self._draw(number, clustered.history)
        except OSError as error:
            logger.warning("The clusters of round %d cannot be written: %s.", number, error)

    def _described(self, name: str, cluster: Cluster, clusters: Sequence[Cluster], number: int) -> dict[str, Any]:
        told = {"name": name, "members": list(cluster.proc_ids), "samples": cluster.examples}
        if len(clusters) < 2:  # its model is the global one
            return told
        self._models.use(to_arrays(cluster.arrays), number)
        told["metrics"] = {f"val_{name}": value for name, value in self._models.score().items()}
        if self._models.publish(name, number):
            told["version"] = number
        return told

    def _draw(self, number: int, history: Sequence[Mapping[str, Any]]) -> None:
        from experiments_manager.monitoring.plots.canvas import encode
        from experiments_manager.monitoring.plots.clusters import clusters_figure

        figure = clusters_figure(self._members, history, number)
        folder = self._run.path / FOLDER
        folder.mkdir(exist_ok=True)
        for ending in (".png", ".svg"):
            write_bytes(folder / f"{FIGURE}{ending}", encode(figure, ending))


def _members(clusters: Sequence[Cluster]) -> list[list[int]]:
    return [list(cluster.proc_ids) for cluster in clusters]


def _read(file: Path) -> dict[str, Any]:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}

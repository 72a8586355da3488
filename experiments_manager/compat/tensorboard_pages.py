"""TensorBoard's HParams and Projector pages, made so that subclasses can change what they show.

TensorBoard has no public way to change its pages: what they read is in private methods and attributes of its plug-ins.
`tests/compat/test_tensorboard_pages.py` tests each; where a new release fails there, see which methods the plug-ins in
`tensorboard/plugins/hparams` and `tensorboard/plugins/projector` have now, or leave the pages as TensorBoard has them
(`monitoring/tensorboard/board_plugins.py`, `REPLACED`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tensorboard.context import RequestContext
from tensorboard.plugins.hparams import backend_context, hparams_plugin
from tensorboard.plugins.hparams.metadata import SESSION_START_INFO_TAG
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from tensorboard.plugins.projector import projector_plugin
from tensorboard.plugins.projector.metadata import PROJECTOR_FILENAME

__all__ = ["SESSION_START_INFO_TAG", "HParamsPluginData"]

HParamsContents = dict[str, dict[str, bytes]]
"""What the HParams page reads from files, by run and tag."""
HPARAMS, PROJECTOR = hparams_plugin.HParamsPlugin, projector_plugin.ProjectorPlugin
"""TensorBoard's own pages."""


class AdjustedHParams(hparams_plugin.HParamsPlugin):
    """The HParams page, whose contents subclasses may change (`_context`, and two methods of its class)."""

    def __init__(self, context: Any) -> None:
        super().__init__(context)
        self._context = _Context(context, self)

    def adjusted_contents(self, contents: HParamsContents, logdir: Path) -> HParamsContents:
        """Return what the page shows instead of what the files hold."""
        return contents

    def sorted_metrics(self, metrics: Sequence[Any]) -> Sequence[Any]:
        """Return the `MetricInfo` messages of the columns in the order in which they are shown."""
        return metrics


class _Context(backend_context.Context):
    def __init__(self, context: Any, page: AdjustedHParams) -> None:
        super().__init__(context)
        self._page = page

    def hparams_metadata(self, *arguments: Any, **options: Any) -> HParamsContents:
        contents = super().hparams_metadata(*arguments, **options)
        return self._page.adjusted_contents(contents, Path(self.tb_context.logdir))

    def experiment_from_metadata(self, *arguments: Any, **options: Any) -> Any:
        experiment = super().experiment_from_metadata(*arguments, **options)
        metrics = list(self._page.sorted_metrics(experiment.metric_infos))
        del experiment.metric_infos[:]
        experiment.metric_infos.extend(metrics)
        return experiment


class AdjustedProjector(projector_plugin.ProjectorPlugin):
    """The Projector page, whose configurations are read again where subclasses say so, and may be changed by them.

    Uses `_configs`, `_run_paths`, `_update_configs` and `_read_latest_config_files` of the plug-in.
    """

    def is_active(self) -> bool:
        """Return whether any run has embeddings; told at once, so that the page does not open without its tab."""
        self._update_configs()
        return bool(self._configs)

    def is_stale(self, files: Sequence[Path]) -> bool:
        """Return whether the configurations must be read again, told by the files that they are in."""
        return False

    def adjusted_configs(self, configs: dict[str, Any], files: dict[str, str]) -> dict[str, Any]:
        """Return the configurations by run that the page shows, in their order."""
        return configs

    def _update_configs(self) -> None:
        if self.is_stale(self._config_files()):
            self._run_paths = None
            self.tensor_cache = projector_plugin.LRUCache(1)
        super()._update_configs()

    def _read_latest_config_files(self, run_path_pairs: list[tuple[str, str]]) -> tuple[dict, dict]:
        configs, files = super()._read_latest_config_files(run_path_pairs)
        return self.adjusted_configs(configs, files), files

    def _config_files(self) -> list[Path]:
        if not self.data_provider or not self.logdir:
            return []
        runs = self.data_provider.list_runs(RequestContext(), experiment_id="")
        return [Path(self.logdir, run.run_name, PROJECTOR_FILENAME) for run in runs]

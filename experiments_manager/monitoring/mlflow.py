"""Runs in MLflow: parameters, metrics by epoch, artefacts, model and state.

Where `MLFLOW_TRACKING_URI` names no server or store, runs go to `mlruns/` in the working directory. MLflow cannot take
a logged value back, so each epoch is logged once: one that is trained again after a resume keeps its first values.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import platform
import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments_manager.common.error_text import reason
from experiments_manager.common.jsonable import to_jsonable
from experiments_manager.events import EpochReport, RunEnd, RunStart, Watcher
from experiments_manager.runs import Run, RunError

if TYPE_CHECKING:
    from mlflow import MlflowClient

logger = logging.getLogger(__name__)

STORE = "mlruns"
STATES = {"finished": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}
LONGEST_PARAM = 6000
"""Characters, MLflow's own limit."""
LONGEST_TAG = 5000
MOST_METRICS = 1000
"""In one call, MLflow's own limit."""
RETRY_SECONDS = 30.0
LARGEST_SHARE = 0.05
"""The share of a run's time that attempts to reach a server may take."""
DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # By its own defaults, MLflow asks a server that is gone for four minutes, in which training would stand still.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}
"""MLflow's variables that we set where the user has not."""
_FILE_STORE = "MLFLOW_ALLOW_FILE_STORE"


class MlflowLog(Watcher):
    """Logs one run to MLflow. A server that does not answer costs these logs and nothing else."""

    in_background = True

    def __init__(self, run: Run, settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
        """Remember what to log; MLflow is imported when the run starts.

        Args:
            run: The run. `run.json` keeps the identity of its counterpart in MLflow, for a resume.
            settings: All settings by name.
            defaults: Their defaults; those that differ are logged as parameters, besides the hparams.
        """
        self._run, self._settings, self._defaults = run, settings, defaults
        self._client: MlflowClient | None = None
        self._run_id = ""
        self._last_step = 0
        self._pending: list[EpochReport] = []
        self._retry_at = 0.0
        self._has_warned = False

    def on_start(self, start: RunStart) -> None:
        """Find the run in MLflow, or make it."""
        self._try(self._open)

    def on_epoch(self, report: EpochReport) -> None:
        """Log the values of one epoch, and those that could not be logged before."""
        self._pending.append(report)
        if time.monotonic() >= self._retry_at:
            self._try(self._log_pending)

    def on_end(self, end: RunEnd) -> None:
        """Log what the run left behind, and how it ended."""

        def finish() -> None:
            self._log_pending()
            self._log_artifacts(end)
            self._client.set_terminated(self._run_id, STATES.get(end.state, "FAILED"))

        self._try(finish)

    def _try(self, work: Any) -> None:
        began = time.monotonic()
        try:
            if self._client is None and work != self._open:
                self._open()
            work()
        except Exception as error:  # MLflow and its stores raise errors of many kinds
            now = time.monotonic()
            self._retry_at = now + max(RETRY_SECONDS, (now - began) / LARGEST_SHARE)
            if not self._has_warned:
                self._has_warned = True
                uri = tracking_uri(self._run)
                logger.warning("MLflow at %s cannot be written to: %s. Training goes on.", uri, reason(error))
                logger.debug("traceback", exc_info=True)

    def _open(self) -> None:
        client = connect(tracking_uri(self._run))
        self._run_id = self._known_run(client) or self._new_run(client)
        self._log_params(client)
        self._last_step = _last_step(client, self._run_id)
        self._client = client

    def _known_run(self, client: MlflowClient) -> str | None:
        """Return the run of an earlier session, going again; `None` where this store does not know it."""
        from mlflow.exceptions import MlflowException

        known = self._run.manifest.get("mlflow") or {}
        if not known.get("run_id"):
            return None
        try:
            client.update_run(known["run_id"], status="RUNNING")
        except MlflowException:
            logger.warning("MLflow at %s does not know this run; a new MLflow run is created.", tracking_uri(self._run))
            return None
        return known["run_id"]

    def _new_run(self, client: MlflowClient) -> str:
        name = self._settings["session_name"]
        experiment = client.get_experiment_by_name(name)
        experiment_id = client.create_experiment(name) if experiment is None else experiment.experiment_id
        created = client.create_run(experiment_id, tags=_tags(self._run), run_name=self._run.name)
        run_id = created.info.run_id
        with contextlib.suppress(RunError):  # a full disk: a resume then makes another one
            self._run.update(mlflow={"run_id": run_id, "experiment_id": experiment_id})
        return run_id

    def _log_params(self, client: MlflowClient) -> None:
        """Log what is not logged yet; a value that a resume changed becomes a tag, for a parameter stays as it is."""
        from mlflow.entities import Param, RunTag

        logged = client.get_run(self._run_id).data.params
        wanted = parameters(self._settings, self._defaults)
        new = [Param(name, value) for name, value in wanted.items() if name not in logged]
        changed = [
            RunTag(f"resumed.{name}", value[:LONGEST_TAG])
            for name, value in wanted.items()
            if name in logged and logged[name] != value
        ]
        for start in range(0, max(len(new), 1), 100):
            client.log_batch(self._run_id, params=new[start : start + 100], tags=changed if start == 0 else ())

    def _log_pending(self) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        reports = [report for report in self._pending if report.epoch > self._last_step]
        metrics = [
            Metric(name, value, now, report.epoch) for report in reports for name, value in _values(report).items()
        ]
        for start in range(0, len(metrics), MOST_METRICS):
            self._client.log_batch(self._run_id, metrics=metrics[start : start + MOST_METRICS])
        self._last_step = max([self._last_step, *(report.epoch for report in reports)])
        self._pending.clear()

    def _log_artifacts(self, end: RunEnd) -> None:
        client, run = self._client, self._run
        for file in (run.metrics_csv, run.git_diff):
            if file.is_file():
                client.log_artifact(self._run_id, str(file))
        for folder in (run.settings_dir, run.path / "figures"):
            if folder.is_dir():
                client.log_artifacts(self._run_id, str(folder), folder.name)
        if end.best:
            client.set_tag(self._run_id, "best_epoch", end.best["epoch"])
            client.set_tag(self._run_id, f"best_{safe_name(str(end.best['name']))}", end.best["value"])
        if end.exported_model is not None and end.exported_model.is_dir():
            client.log_artifacts(self._run_id, str(end.exported_model), "model/saved_model")
            _log_model_files(client, self._run_id, end.exported_model.name)


def tracking_uri(run: Run) -> str:
    """Tell where runs are logged to: what `MLFLOW_TRACKING_URI` says, else `mlruns/` beside the run folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or (run.path.parent / STORE).as_uri()


def connect(uri: str) -> MlflowClient:
    """Open a tracking store.

    MLflow 3 opens a store of plain files only where it is told that this is meant; nothing is reported to its makers.
    """
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    with _file_store_allowed() if _is_local(uri) else contextlib.nullcontext():
        from mlflow import MlflowClient

        client = MlflowClient(uri)
        client.get_experiment_by_name("Default")  # opens the store
    return client


def parameters(settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, str]:
    """Give MLflow's parameters: the hparams by their names, and as `settings.NAME` what is not as by default."""
    hparams = settings.get("hparams") or {}
    others = {
        f"settings.{name}": value
        for name, value in settings.items()
        if name != "hparams" and value != defaults.get(name)
    }
    return {safe_name(name): _text(value)[:LONGEST_PARAM] for name, value in {**hparams, **others}.items()}


def safe_name(name: str) -> str:
    """Replace by underscores what MLflow does not allow in names."""
    return re.sub(r"[^\w\-. /]", "_", name) or "_"


def model_description(version: str, run_id: str) -> str:
    """Give the file `MLmodel`, by which MLflow loads a SavedModel through its signature `serving_default`.

    The flavour is called `tf1-estimator` for its history; it takes any SavedModel, with named inputs and outputs.
    """
    import mlflow
    import tensorflow as tf

    flavours = {
        "python_function": {
            "loader_module": "mlflow.tensorflow",
            "python_version": platform.python_version(),
            "env": {"virtualenv": "python_env.yaml"},
        },
        "tensorflow": {
            "saved_model_dir": "saved_model",
            "meta_graph_tags": ["serve"],
            "signature_def_key": "serving_default",
            "model_type": "tf1-estimator",
        },
    }
    description = {
        "artifact_path": "model",
        "flavors": flavours,
        "mlflow_version": mlflow.__version__,
        "run_id": run_id,
        "metadata": {"version": version, "tensorflow": tf.__version__},
    }
    return json.dumps(description, indent=2)  # which is YAML, too


def _log_model_files(client: MlflowClient, run_id: str, version: str) -> None:
    import tensorflow as tf

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "MLmodel").write_text(model_description(version, run_id), encoding="utf-8")
        (folder / "requirements.txt").write_text(f"mlflow\npandas\ntensorflow=={tf.__version__}\n", encoding="utf-8")
        (folder / "python_env.yaml").write_text(
            f"python: {platform.python_version()}\ndependencies:\n- -r requirements.txt\n", encoding="utf-8"
        )
        client.log_artifacts(run_id, name, "model")


def _values(report: EpochReport) -> dict[str, float]:
    measures = getattr(report, "measures", None) or {}
    values = {**report.logs, **measures, "learning_rate": report.learning_rate, "epoch_seconds": report.seconds}
    return {safe_name(name): float(value) for name, value in values.items()}


def _last_step(client: MlflowClient, run_id: str) -> int:
    latest = client.get_run(run_id).data.metrics
    if "learning_rate" not in latest:
        return 0
    return max(metric.step for metric in client.get_metric_history(run_id, "learning_rate"))


def _tags(run: Run) -> dict[str, str]:
    manifest = run.manifest
    git = manifest.get("git") or {}
    tags = {
        "mlflow.source.type": "LOCAL",
        "mlflow.source.name": manifest.get("settings_file"),
        "mlflow.source.git.commit": git.get("commit"),
        "mlflow.source.git.branch": git.get("branch"),
        "mlflow.user": os.environ.get("USER"),
        "git.dirty": str(bool(git.get("dirty"))).lower() if git else None,
        "command": " ".join(manifest.get("command") or []),
        "host": (manifest.get("host") or {}).get("name"),
        "run_dir": str(run.path),
    }
    return {name: str(value)[:LONGEST_TAG] for name, value in tags.items() if value}


def _text(value: Any) -> str:
    value = to_jsonable(value)
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (list, dict)) else str(value)


def _is_local(uri: str) -> bool:
    return "://" not in uri or uri.startswith("file:")


@contextlib.contextmanager
def _file_store_allowed() -> Iterator[None]:
    before = os.environ.get(_FILE_STORE)
    os.environ[_FILE_STORE] = "true"
    try:
        yield
    finally:
        os.environ.pop(_FILE_STORE) if before is None else os.environ.update({_FILE_STORE: before})

"""What the server counts, under TensorFlow Serving's names and in its Prometheus format.

The page is written here and not by `prometheus_client`, which adds `_total` to the names of counters: dashboards made
for TensorFlow Serving would find nothing. Latencies are in microseconds and in the same buckets as there.
"""

from __future__ import annotations

import bisect
import dataclasses
import math
import threading
from collections.abc import Sequence

DEFAULT_PATH = "/monitoring/prometheus/metrics"
CONTENT_TYPE = "text/plain"


def _exponential(scale: float, growth: float, count: int) -> list[float]:
    """Upper limits of buckets; the last one, which has no limit, is left out."""
    return [scale * growth**number for number in range(count)]


_LATENCY = _exponential(10, 1.8, 33)  # up to about 20 minutes
_QUEUING = _exponential(100, 1.2, 52)  # up to about a second
_BATCH = _exponential(1, 2, 15)  # up to 16,384 samples
_GRAPH = _exponential(1000, 2, 20)  # up to about 9 minutes
_SESSION = "TF1"
"""What TensorFlow Serving calls the runtime of everything that runs in a session, models of TensorFlow 2 too."""

_MOST_PATHS = 1000
"""Folders of versions that are told of: a server that watches a training would tell of ever more."""


@dataclasses.dataclass
class _Histogram:
    """Numbers of observations in each bucket, and their sum."""

    counts: list[int]
    total: float = 0.0


class Family:
    """One metric with a value for each combination of its labels.

    Args:
        name: As Prometheus shows it.
        kind: `counter` or `histogram`.
        labels: Names of the labels.
        limits: Upper limits of a histogram's buckets.
        most: Combinations that are kept; beyond, the oldest ones are forgotten.
    """

    def __init__(
        self, name: str, kind: str, labels: Sequence[str], limits: Sequence[float] = (), most: float = math.inf
    ) -> None:
        self.name, self.kind, self._labels, self._limits = name, kind, tuple(labels), list(limits)
        self._most = most
        self._values: dict[tuple[str, ...], float] = {}
        self._histograms: dict[tuple[str, ...], _Histogram] = {}
        self._lock = threading.Lock()

    def add(self, *labels: str, amount: float = 1) -> None:
        """Increases a counter."""
        with self._lock:
            self._values[labels] = self._values.get(labels, 0) + amount
            if len(self._values) > self._most:
                del self._values[next(iter(self._values))]

    def observe(self, *labels: str, value: float) -> None:
        """Put a value into its bucket."""
        bucket = bisect.bisect_right(self._limits, value)
        with self._lock:
            found = self._histograms.get(labels)
            if found is None:
                found = self._histograms[labels] = _Histogram([0] * (len(self._limits) + 1))
                if len(self._histograms) > self._most:
                    del self._histograms[next(iter(self._histograms))]
            found.counts[bucket] += 1
            found.total += value

    def sums(self) -> tuple[int, float]:
        """Return how many values a histogram has, and what they add up to."""
        with self._lock:
            found = self._histograms.values()
            return sum(sum(one.counts) for one in found), sum(one.total for one in found)

    def lines(self) -> list[str]:
        """Return the metric in Prometheus' text format; nothing where nothing was counted."""
        with self._lock:
            values = dict(self._values)
            histograms = {key: _Histogram(list(found.counts), found.total) for key, found in self._histograms.items()}
        if not values and not histograms:
            return []
        lines = [f"# TYPE {self.name} {self.kind}"]
        lines += [f"{self.name}{{{self._text(key)}}} {_number(value)}" for key, value in values.items()]
        for key, found in histograms.items():
            lines += self._histogram_lines(self._text(key), found)
        return lines

    def _histogram_lines(self, labels: str, found: _Histogram) -> list[str]:
        lines, so_far = [], 0
        before = f"{labels}," if labels else ""
        limits = [*(f"{limit:g}" for limit in self._limits), "+Inf"]
        for limit, count in zip(limits, found.counts, strict=True):
            so_far += count
            lines.append(f'{self.name}_bucket{{{before}le="{limit}"}} {so_far}')
        return [
            *lines,
            f"{self.name}_sum{{{labels}}} {_number(found.total)}",
            f"{self.name}_count{{{labels}}} {so_far}",
        ]

    def _text(self, values: Sequence[str]) -> str:
        return ",".join(f'{name}="{_escaped(value)}"' for name, value in zip(self._labels, values, strict=True))


def _number(value: float) -> str:
    # TensorFlow Serving writes six digits, with which the sum of a busy day stands still; more are a number to all.
    return f"{value:.15g}" if value != int(value) else str(int(value))


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


class Metrics:
    """All that one server counts. Every method may be called from any thread."""

    def __init__(self) -> None:
        serving = ":tensorflow:serving:"
        self._requests = Family(f"{serving}request_count", "counter", ["model_name", "status"])
        request_labels = ["model_name", "API", "entrypoint"]
        self._request_latency = Family(f"{serving}request_latency", "histogram", request_labels, _LATENCY)
        self._runtime = Family(f"{serving}runtime_latency", "histogram", ["model_name", "API", "runtime"], _LATENCY)
        self._graph_times = Family(":tensorflow:core:graph_run_time_usecs_histogram", "histogram", [], _GRAPH)
        queue = f"{serving}batching_session:"
        self._queuing = Family(f"{queue}queuing_latency", "histogram", ["model_name"], _QUEUING)
        self._batch_size = Family(f"{queue}processed_batch_size", "histogram", ["model_name"], _BATCH)
        self._input_size = Family(f"{queue}input_batch_size", "histogram", ["model_name"], _BATCH)
        warm_up_labels = ["model_path", "status"]
        self._warm_up = Family(f"{serving}model_warmup_latency", "histogram", warm_up_labels, _LATENCY, _MOST_PATHS)
        loads = ":tensorflow:cc:saved_model:"
        self._loads = Family(f"{loads}load_attempt_count", "counter", ["model_path", "status"], most=_MOST_PATHS)
        self._load_latency = Family(f"{loads}load_latency", "counter", ["model_path"], most=_MOST_PATHS)

    def observe_request(self, model: str, api: str, entrypoint: str, status: str, seconds: float) -> None:
        """Count an answered request; latencies are those of requests that went well, as in TensorFlow Serving.

        Args:
            model: Name of the model, empty where the request named none that exists.
            api: `Predict`, `Classify`, … by gRPC; by REST what its path says: `predict`, …, or empty for a status.
            entrypoint: `GRPC` or `REST`.
            status: Name of the status code, e.g. `OK` or `INVALID_ARGUMENT`.
            seconds: From the request's arrival to its answer.
        """
        self._requests.add(model, status)
        if status == "OK":
            self._request_latency.observe(model, api, entrypoint, value=seconds * 1e6)

    def observe_runtime(self, model: str, api: str, seconds: float) -> None:
        """Count one call of a model; `api` is `Predict`, `Classify` or `Regress`."""
        microseconds = seconds * 1e6
        self._runtime.observe(model, api, _SESSION, value=microseconds)
        self._graph_times.observe(value=microseconds)

    def observe_batch(self, model: str, size: int, waited: Sequence[float], sizes: Sequence[int] = ()) -> None:
        """Count a batch that was run.

        Args:
            model: Name of the model.
            size: Samples in the batch, padding included.
            waited: Seconds that each of its requests waited in the queue.
            sizes: Samples of each of its requests.
        """
        self._batch_size.observe(model, value=size)
        for seconds in waited:
            self._queuing.observe(model, value=seconds * 1e6)
        for samples in sizes:
            self._input_size.observe(model, value=samples)

    def observe_load(self, path: str, status: str, seconds: float) -> None:
        """Count an attempt to load a version; `status` is `success` or `fail`."""
        self._loads.add(path, status)
        self._load_latency.add(path, amount=round(seconds * 1e6))

    def observe_warm_up(self, path: str, seconds: float) -> None:
        """Count a version that was warmed up."""
        self._warm_up.observe(path, "OK", value=seconds * 1e6)

    def page(self) -> str:
        """Everything in Prometheus' text format."""
        families = [*(value for value in vars(self).values() if isinstance(value, Family)), *self._graph_runs()]
        return "\n".join(line for family in families for line in family.lines()) + "\n"

    def _graph_runs(self) -> list[Family]:
        """Return the counters beside the histogram of runs, made of it when they are looked at."""
        runs = Family(":tensorflow:core:graph_runs", "counter", [])
        microseconds = Family(":tensorflow:core:graph_run_time_usecs", "counter", [])
        count, total = self._graph_times.sums()
        if count:
            runs.add(amount=count)
            microseconds.add(amount=round(total))
        return [runs, microseconds]

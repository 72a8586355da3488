"""What the server counts: the requests that it has, of which it admits so many, and what became of those that it had.

The latter under TensorFlow Serving's names; latencies are in microseconds and in the same buckets as there.
"""

from __future__ import annotations

import asyncio
import bisect
import dataclasses
import math
import sys
import threading
import time
from collections.abc import Sequence
from types import TracebackType

from experiments_manager.protocol.status import Code, ServingError
from experiments_manager.serving.models.registry import ModelRegistry

DEFAULT_PATH = "/monitoring/prometheus/metrics"


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
"""Folders of versions that are counted: a server that watches a training would have ever more."""


@dataclasses.dataclass
class Histogram:
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
        self.name, self.kind, self.labels, self.limits = name, kind, tuple(labels), list(limits)
        self._most = most
        self._values: dict[tuple[str, ...], float] = {}
        self._histograms: dict[tuple[str, ...], Histogram] = {}
        self._lock = threading.Lock()

    def add(self, *labels: str, amount: float = 1) -> None:
        """Increase a counter."""
        with self._lock:
            self._values[labels] = self._values.get(labels, 0) + amount
            if len(self._values) > self._most:
                del self._values[next(iter(self._values))]

    def observe(self, *labels: str, value: float) -> None:
        """Put a value into its bucket."""
        bucket = bisect.bisect_right(self.limits, value)
        with self._lock:
            histogram = self._histograms.get(labels)
            if histogram is None:
                histogram = self._histograms[labels] = Histogram([0] * (len(self.limits) + 1))
                if len(self._histograms) > self._most:
                    del self._histograms[next(iter(self._histograms))]
            histogram.counts[bucket] += 1
            histogram.total += value

    def histograms(self) -> dict[tuple[str, ...], Histogram]:
        """Return a copy of a histogram's numbers, by its labels' values."""
        with self._lock:
            return {key: Histogram(list(one.counts), one.total) for key, one in self._histograms.items()}

    def values(self) -> dict[tuple[str, ...], float]:
        """Return a copy of a counter's numbers, by its labels' values."""
        with self._lock:
            return dict(self._values)


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

    def families(self) -> list[Family]:
        """Return all that was counted; the counters beside the histogram of runs are made of it here."""
        runs = Family(":tensorflow:core:graph_runs", "counter", [])
        microseconds = Family(":tensorflow:core:graph_run_time_usecs", "counter", [])
        for histogram in self._graph_times.histograms().values():
            runs.add(amount=sum(histogram.counts))
            microseconds.add(amount=round(histogram.total))
        return [*(value for value in vars(self).values() if isinstance(value, Family)), runs, microseconds]


UNCOUNTED = 1 << 16
"""Bytes of each request that are not counted: little requests are answered, however many large ones are under way."""


class Admission:
    """Admits requests, and counts them and their bytes. Belongs to one event loop.

    Args:
        registry: The models; requests for others are counted under no name.
        metrics: Counts requests that were answered.
        max_in_flight: Requests that are answered at the same time, 0 for any number.
        max_bytes: Bytes of requests that are read or answered at the same time.

    Attributes:
        in_flight: Requests that are being answered.
        held: Bytes of requests that are being read or answered.
        freed: Bytes that were let go of since somebody looked, so that memory may be tidied.
    """

    def __init__(
        self, registry: ModelRegistry, metrics: Metrics, *, max_in_flight: int = 0, max_bytes: int = sys.maxsize
    ) -> None:
        self.registry, self.metrics = registry, metrics
        self.max_in_flight, self.max_bytes = max_in_flight, max_bytes
        self.in_flight = self.held = self.freed = 0

    def check_bytes(self, count: int) -> None:
        """Raise RESOURCE_EXHAUSTED where so many bytes more are too many."""
        if self.held + count > self.max_bytes:
            raise ServingError(
                Code.RESOURCE_EXHAUSTED,
                f"Requests of {self.held} bytes are being read or answered, and this server takes {self.max_bytes} at "
                "once. Try again later.",
                http_status=503,
            )


class Admitted:
    """One request, counted for as long as it is read and answered: a context manager, and the only one that counts.

    Args:
        admission: The counters.
        entrypoint: `GRPC` or `REST`.

    Attributes:
        model: Name of the model, once it is known.
        api: The method, as `Metrics.observe_request` wants it; `None` for one that metrics leave out.
    """

    __slots__ = ("_admission", "_answered", "_bytes", "_entrypoint", "_started", "api", "model")

    def __init__(self, admission: Admission, entrypoint: str, api: str | None = None) -> None:
        self._admission, self._entrypoint, self.api, self.model = admission, entrypoint, api, ""
        self._bytes, self._answered, self._started = 0, False, time.perf_counter()

    def __enter__(self) -> Admitted:
        return self

    @property
    def max_bytes(self) -> int:
        """Bytes that all requests may have together."""
        return self._admission.max_bytes

    def expect(self, size: int) -> None:
        """Raise RESOURCE_EXHAUSTED where there is no room for so many bytes, and count none."""
        if size > UNCOUNTED:
            self._admission.check_bytes(size)

    def hold(self, size: int) -> None:
        """Count the request as one of so many bytes from now on.

        Raises:
            ServingError: RESOURCE_EXHAUSTED where that is too much together with others.
        """
        more = max(0, size - UNCOUNTED) - self._bytes
        if more > 0:
            self._admission.check_bytes(more)
            self._admission.held += more
            self._bytes += more

    def begin(self) -> None:
        """Count the request as one that is being answered.

        Raises:
            ServingError: RESOURCE_EXHAUSTED where as many as may be are being answered.
        """
        admission = self._admission
        self._started = time.perf_counter()
        if admission.max_in_flight and admission.in_flight >= admission.max_in_flight:
            raise ServingError(
                Code.RESOURCE_EXHAUSTED,
                f"{admission.in_flight} requests are being answered, which is as many as this server takes at "
                "once. Try again later.",
            )
        admission.in_flight += 1
        self._answered = True

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        admission = self._admission
        admission.in_flight -= self._answered
        admission.held -= self._bytes
        admission.freed += self._bytes
        if self.api is not None:
            model = self.model if self.model in admission.registry.configs else ""  # others would pile up
            seconds = time.perf_counter() - self._started
            admission.metrics.observe_request(model, self.api, self._entrypoint, _code_of(error).name, seconds)


def _code_of(error: BaseException | None) -> Code:
    if error is None:
        return Code.OK
    if isinstance(error, ServingError):
        return error.code
    return Code.CANCELLED if isinstance(error, asyncio.CancelledError) else Code.INTERNAL

"""The page of metrics in Prometheus' text format.

It is written here and not by `prometheus_client`, which adds `_total` to the names of counters: dashboards made for
TensorFlow Serving would find nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from experiments_manager.serving.api.metrics import Family, Histogram, Metrics

CONTENT_TYPE = "text/plain"


def page(metrics: Metrics) -> str:
    """Write all metrics of which anything was counted."""
    return "\n".join(line for family in metrics.families() for line in _lines(family)) + "\n"


def _lines(family: Family) -> Iterator[str]:
    values, histograms = family.values(), family.histograms()
    if values or histograms:
        yield f"# TYPE {family.name} {family.kind}"
    for key, value in values.items():
        yield f"{family.name}{{{_labels(family, key)}}} {_number(value)}"
    for key, histogram in histograms.items():
        yield from _histogram_lines(family, _labels(family, key), histogram)


def _histogram_lines(family: Family, labels: str, histogram: Histogram) -> Iterator[str]:
    so_far = 0
    before = f"{labels}," if labels else ""
    limits = [*(f"{limit:g}" for limit in family.limits), "+Inf"]
    for limit, count in zip(limits, histogram.counts, strict=True):
        so_far += count
        yield f'{family.name}_bucket{{{before}le="{limit}"}} {so_far}'
    yield f"{family.name}_sum{{{labels}}} {_number(histogram.total)}"
    yield f"{family.name}_count{{{labels}}} {so_far}"


def _labels(family: Family, values: Sequence[str]) -> str:
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in zip(family.labels, values, strict=True))


def _number(value: float) -> str:
    # TensorFlow Serving writes six digits, with which the sum of a busy day stands still; more are a number to all.
    return f"{value:.15g}" if value != int(value) else str(int(value))


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")

"""Whether two runs came to the same: the weights of their last checkpoints, and their metrics."""

from __future__ import annotations

import dataclasses
import filecmp
from pathlib import Path
from typing import Any

from experiments_manager.runs.run import Run

_LATEST = "latest"
_VARIABLES = "variables.data-*"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of training a run again.

    Attributes:
        same: Whether the result is the same: bit for bit where both runs have their checkpoints, else by metrics.
        weights: `identical`, `different`, or `unknown` where a checkpoint is missing.
        metrics: For each metric that differs, its value then, its value now, and how far they are apart.
        epochs: Epochs then and now.
    """

    same: bool
    weights: str
    metrics: dict[str, tuple[Any, Any, float | None]]
    epochs: tuple[int, int]

    def to_json(self) -> dict[str, Any]:
        """Give it as plain JSON values."""
        return dataclasses.asdict(self)


def compare_outcome(first: Run, second: Run) -> Outcome:
    """Compare a run with the one that was trained again."""
    then, now = first.manifest, second.manifest
    metrics = _differing(then.get("metrics") or {}, now.get("metrics") or {})
    epochs = (then.get("epochs", 0), now.get("epochs", 0))
    weights = _weights(first, second)
    same = weights == "identical" or (weights == "unknown" and not metrics and epochs[0] == epochs[1])
    return Outcome(same, weights, metrics, epochs)


def _weights(first: Run, second: Run) -> str:
    checkpoints = [_last_checkpoint(run) for run in (first, second)]
    if None in checkpoints:
        return "unknown"
    files = [sorted(file.name for file in place.glob(_VARIABLES)) for place in checkpoints]
    if not all(files):
        return "unknown"
    if files[0] != files[1] or checkpoints[0].name != checkpoints[1].name:
        return "different"
    unequal = filecmp.cmpfiles(*checkpoints, files[0], shallow=False)[1:]
    return "different" if any(unequal) else "identical"


def _last_checkpoint(run: Run) -> Path | None:
    try:
        name = (run.checkpoints_dir / _LATEST).read_text(encoding="utf-8").strip()
    except OSError:
        return None
    place = run.checkpoints_dir / name
    return place if name and place.is_dir() else None


def _differing(then: dict[str, Any], now: dict[str, Any]) -> dict[str, tuple[Any, Any, float | None]]:
    names = [name for name in {**then, **now} if then.get(name) != now.get(name)]
    return {name: (then.get(name), now.get(name), _distance(then.get(name), now.get(name))) for name in names}


def _distance(one: Any, other: Any) -> float | None:
    if isinstance(one, int | float) and isinstance(other, int | float):
        return abs(one - other)
    return None

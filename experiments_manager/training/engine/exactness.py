"""Is a resume of this run exact? Whatever is not is named before the first step, and stands in `run.json`.

What decides how a run goes on is in its state, or it is listed here: data that cannot be found again, random operations
that keep their state to themselves, Python inside the graph, attributes of callbacks that cannot be written.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import keras

from experiments_manager.settings import Settings
from experiments_manager.training.engine.user_callbacks import UserCallbacks
from experiments_manager.training.feeds.feed import Feed
from experiments_manager.training.state.graph_state import Operation, operations
from experiments_manager.training.state.host_draws import uses_global_generators

_RANDOM = (
    "draws random numbers by {kind} (from `tf.random.*`, `tf.nn.dropout` or the like), whose state TensorFlow keeps to "
    "itself. Use `keras.random.*` with a `keras.random.SeedGenerator` that is an attribute of the model, or "
    "`keras.layers.Dropout`"
)
_PYTHON = "calls Python ({kind}), and what that remembers is in no checkpoint"
_STRUCTURE = "changes a table, a queue or an iterator ({kind}), which is in no checkpoint"


def inexact_reasons(
    settings: Settings, feeds: Iterable[Feed | None], steps: dict[str, Any], callbacks: UserCallbacks
) -> list[str]:
    """List why a resume inside this run would not end as if there had been none; nothing where it would.

    Args:
        settings: For places in the user's files.
        feeds: Training and validation data.
        steps: The traced functions of a training and of a validation step, by name.
        callbacks: The user's; their `state` must have been asked for.
    """
    found = [feed for feed in feeds if feed is not None]
    reasons = [reason for feed in found for reason in feed.inexact_reasons]
    for name, function in steps.items():
        reasons += _of_step(settings, name, function)
    reasons += of_callbacks(callbacks)
    reasons += _of_shared_draws(found, callbacks.user_made)
    return list(dict.fromkeys(reasons))


def exactness(reasons: Sequence[str]) -> dict[str, Any]:
    """Return what run.json says of it."""
    return {"exact": not reasons, "reasons": list(reasons)}


def of_callbacks(callbacks: UserCallbacks) -> list[str]:
    """Name the attributes of callbacks that the last checkpoint had to leave out."""
    return [f"callback attribute {name} {why}" for name, why in callbacks.lost.items()]


def _of_step(settings: Settings, name: str, function: Any) -> list[str]:
    reasons: dict[str, None] = {}
    for operation in operations(function.graph):
        text = _what_is_lost(operation)
        if text is not None:
            place = settings.place_among(operation.files)
            where = f"{place}: the {name} step" if place else f"the {name} step"
            reasons[f"{where} {text.format(kind=operation.kind)}"] = None
    return list(reasons)


def _what_is_lost(operation: Operation) -> str | None:
    if operation.is_random:
        return _RANDOM
    if operation.runs_python:
        return _PYTHON
    return _STRUCTURE if operation.changes_structures else None


def _of_shared_draws(feeds: Sequence[Feed], callbacks: Sequence[keras.callbacks.Callback]) -> list[str]:
    """Name callbacks that draw from generators which the data draw from too, read ahead by another thread."""
    drawing = [feed.split for feed in feeds if feed.draws_from_host]
    if not drawing:
        return []
    return [
        f"callback {type(callback).__name__} may draw from Python's or NumPy's global random generator, and so does "
        f"the Python of the {drawing[0]} data: give each a generator of its own (`np.random.default_rng(seed)`)"
        for callback in callbacks
        if uses_global_generators(callback)
    ]

"""Is a resume of this run exact? Whatever is not is named before the first step, and stands in `run.json`.

What decides how a run goes on is in its state, or it is listed here: data that cannot be found again, random operations
that keep their state to themselves, Python inside the graph, attributes of callbacks that cannot be written. And is the
data what the run was trained on? That is compared before anything is put back or written.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from experiments_manager.common.generators import states_of
from experiments_manager.common.jsonable import to_jsonable
from experiments_manager.settings import Settings
from experiments_manager.settings.schema import SETTINGS
from experiments_manager.training.engine.context import TrainingContext
from experiments_manager.training.engine.user_callbacks import UserCallbacks
from experiments_manager.training.errors import DataError
from experiments_manager.training.feeds.feed import Feed
from experiments_manager.training.feeds.fingerprint import described, differences, fingerprint
from experiments_manager.training.setup.datasets import feed_for
from experiments_manager.training.setup.experiment import Experiment
from experiments_manager.training.state.graph_state import Operation, operations
from experiments_manager.training.state.host_draws import uses_global_generators
from experiments_manager.training.state.reachable import generators_of
from experiments_manager.training.state.state import StateSnapshot

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


_SHAPE_DATA = {"hparams", "random_seed", *(name for name, spec in SETTINGS.items() if spec.group == "Data")}
"""Settings by which the data may rightly become other data."""
CLASS_WEIGHT = "class_weight"


class DataChangedError(DataError):
    """A run would go on with other data than it was trained on; its folder is as it was."""


def fingerprints(experiment: Experiment) -> dict[str, Any]:
    """Return what tells the data of an experiment from others, by split, and its class weights."""
    feeds = {"train": experiment.train, "validation": experiment.validation}
    found = {split: fingerprint(feed) for split, feed in feeds.items() if feed is not None}
    weights = experiment.class_weight.given if experiment.class_weight else None
    if weights:
        table = np.asarray(sorted(weights.items()), np.float64)
        found[CLASS_WEIGHT] = {"batches": None, "parts": {"weights": described(table)}}
    return {split: told for split, told in found.items() if told is not None}


def to_keep(context: TrainingContext) -> dict[str, Any]:
    """Return what a checkpoint keeps of the data."""
    settings = _shaping(context.experiment.settings)
    return {"splits": context.data, "settings": settings, "changes": list(context.data_changes)}


def check_data(context: TrainingContext, snapshot: StateSnapshot, *, accept: bool = False) -> None:
    """Compare the data with that of a checkpoint, and note in the context what makes the run inexact from here on.

    Args:
        context: Of the run that goes on.
        snapshot: Its newest checkpoint; one of an earlier release knows nothing of the data.
        accept: Whether other data is accepted.

    Raises:
        DataChangedError: The data is not the same, although nothing says why.
    """
    kept = snapshot.extras.get("data") or {}
    accept = context.membership.team.chiefs(accept)
    context.data_changes = list(kept.get("changes", ()))
    if "splits" not in kept:
        return
    different, rounded = differences(kept["splits"], context.data)
    settings, step = context.experiment.settings, snapshot.progress.global_step
    if rounded and not different:
        _note(context, f"the data differs from that before step {step} as another processor rounds: {_list(rounded)}")
    if not different:
        return
    changed = _changed_settings(settings, kept["settings"])
    if accept:
        why = "as was accepted"
    elif changed:
        why = f"with {', '.join(changed)}"
    elif _is_other_each_time(settings, [text.partition(":")[0] for text in different], context.data):
        why = "for `dataset` gives other data each time it is called: draw from its `seed`"
    else:
        raise DataChangedError(_refusal(context, step, different), settings.location("dataset"))
    _note(context, f"the data changed at step {step}, {why} ({_list(different)})")


def _note(context: TrainingContext, change: str) -> None:
    context.dispatch("on_message", f"{change[0].upper()}{change[1:]}. The resume is not exact.")
    context.data_changes = [*context.data_changes, change]


def _list(texts: Sequence[str], most: int = 6) -> str:
    more = [f"{len(texts) - most} more"] if len(texts) > most else []
    return "; ".join([*texts[:most], *more])


def _shaping(settings: Settings) -> dict[str, Any]:
    return to_jsonable({name: value for name, value in settings.values().items() if name in _SHAPE_DATA})


def _changed_settings(settings: Settings, before: Mapping[str, Any]) -> list[str]:
    """Return the settings that were changed since, as far as data may depend on them."""
    now = _shaping(settings)
    return sorted(name for name in before if before[name] != now.get(name))


def _is_other_each_time(settings: Settings, splits: Sequence[str], now: Mapping[str, Any]) -> bool:
    """Return whether the hook, called once more in this process, gives yet other data."""
    for split in dict.fromkeys(splits):
        if split == CLASS_WEIGHT or split not in now:
            continue
        before = states_of(generators_of(settings.user_modules))
        feed = feed_for(settings, split)
        again = feed and fingerprint(feed)
        if feed is not None:
            feed.close()
        if states_of(generators_of(settings.user_modules)) != before:
            continue  # of course it does, but not in a new process
        if again is not None and differences({split: again}, {split: now[split]})[0]:
            return True
    return False


def _refusal(context: TrainingContext, step: int, different: Sequence[str]) -> str:
    run = context.run.path if context.membership.cluster is None else context.membership.run
    command = shlex.join(["experiments_manager", "resume", str(run)])
    return (
        f"dataset: the data is not what the run was trained on up to step {step}. {_list(different)}. "
        "Expected the same data as before. Put files that were changed back; sort what comes in another order in each "
        f"process (a `set`, `hash()`, `os.listdir`). To go on with the data as it is, not exactly: {command} "
        "--accept-changed-data"
    )

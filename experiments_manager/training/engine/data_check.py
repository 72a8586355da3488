"""Is the data that a run goes on with what it was trained on? Compared before anything is put back or written."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments_manager.common.generators import states_of
from experiments_manager.common.jsonable import to_jsonable
from experiments_manager.settings import Settings
from experiments_manager.settings.schema import SETTINGS
from experiments_manager.training.engine.context import TrainingContext
from experiments_manager.training.errors import DataError
from experiments_manager.training.feeds.fingerprint import described, differences, fingerprint
from experiments_manager.training.setup.datasets import feed_for
from experiments_manager.training.setup.experiment import Experiment
from experiments_manager.training.state.reachable import generators_of
from experiments_manager.training.state.state import StateSnapshot

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

"""`trials.csv`: one row a trial."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from experiments_manager.common import atomic
from experiments_manager.runs.errors import explain
from experiments_manager.sweeps.state.folder import SweepFolder
from experiments_manager.sweeps.state.trials import SweepState, Trial

_FIRST = ("trial", "state")
_LAST = ("epochs", "seconds", "by", "run", "reason")


def write_table(folder: SweepFolder, objectives: Sequence[str], state: SweepState) -> None:
    """Write the table, whole or not at all.

    Args:
        folder: Of the sweep.
        objectives: Their names.
        state: What is known.

    Raises:
        RunError: It cannot be written.
    """
    names = sorted({name for trial in state.trials.values() for name in trial.overrides})
    text = io.StringIO()
    columns = [*_FIRST, *objectives, *(name for name in names if name not in objectives), *_LAST]
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    for number in sorted(state.trials):
        writer.writerow(_row(state.trials[number], objectives))
    try:
        atomic.write_text(folder.trials_csv, text.getvalue())
    except OSError as error:
        raise explain(error, "write", folder.trials_csv) from error


def _row(trial: Trial, objectives: Sequence[str]) -> dict[str, Any]:
    values = dict(zip(objectives, map(repr, trial.values or ()), strict=False))
    settings = {name: _cell(value) for name, value in trial.overrides.items()}
    own = {
        "trial": trial.number,
        "state": trial.state,
        "epochs": trial.epochs,
        "seconds": f"{trial.seconds:.2f}",
        "by": trial.by,
        "run": trial.name if trial.number >= 0 else "",
        "reason": trial.reason or "",
    }
    return {**settings, **values, **own}


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value) if isinstance(value, (list, dict, bool)) else value

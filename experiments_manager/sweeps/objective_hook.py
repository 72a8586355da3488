"""The function `objective(run)` of a sweep file, called once the run of a trial is finished."""

from __future__ import annotations

import numbers

from experiments_manager.runs import Run
from experiments_manager.settings.problems import UserCodeError, problem_at
from experiments_manager.settings.types import plain_value
from experiments_manager.sweeps.sweep_file import load_sweep_file


def call_objective(sweep_file: str, run: Run) -> float:
    """Load the sweep file and call its function.

    Args:
        sweep_file: The file.
        run: What the function is given.

    Raises:
        UserCodeError: It raised, or returned no number.
        SettingsError: The sweep file cannot be loaded.
    """
    loaded = load_sweep_file(sweep_file)
    place = loaded.problem("objective", "").place
    try:
        with loaded.local_modules.active():
            value = plain_value(loaded.plan.objective(run))
    except (Exception, SystemExit) as error:
        deepest = loaded.local_modules.deepest_place(error.__traceback__)
        place = problem_at(*deepest, "", "").place if deepest else place
        raise UserCodeError("objective", place, error) from error
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        error = TypeError(f"it returned {value!r}. Expected a number, which is minimised")
        raise UserCodeError("objective", place, error)
    return float(value)

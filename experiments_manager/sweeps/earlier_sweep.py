"""Results of an earlier sweep, as what is known when another one begins."""

from __future__ import annotations

from typing import Any

from experiments_manager.settings.problems import SettingsError
from experiments_manager.sweeps.errors import SweepError
from experiments_manager.sweeps.experiment import SweptExperiment
from experiments_manager.sweeps.state.folder import open_sweep
from experiments_manager.sweeps.state.journal import read_journal
from experiments_manager.sweeps.state.trials import FINISHED, SweepState
from experiments_manager.sweeps.sweep_file import SweepFile


def earlier_results(file: SweepFile, experiment: SweptExperiment) -> list[dict[str, Any]]:
    """Read the finished trials of the sweep that `start_from` names, as far as they lie in the space.

    Raises:
        SettingsError: There is no such sweep, it had another objective, or none of its trials lies in the space.
    """
    place = (file.file.parent / file.plan.start_from).absolute()
    try:
        state = SweepState(read_journal(open_sweep(place).journal))
    except SweepError as error:
        raise SettingsError([file.problem("start_from", str(error))]) from error
    if state.opened.get("objectives") != list(experiment.names) or state.opened.get("modes") != list(experiment.modes):
        text = (
            f"the sweep in {place} had another objective: {', '.join(state.opened.get('objectives', []))}. "
            f"Expected {', '.join(experiment.names)}. Give its best points as a list instead."
        )
        raise SettingsError([file.problem("start_from", text)])
    finished = [(trial, file.space.point_for(trial.overrides)) for trial in state.of_state(FINISHED)]
    found = [
        {"point": point, "overrides": trial.overrides, "values": trial.values, "source": f"{place.name}/{trial.name}"}
        for trial, point in finished
        if point is not None
    ]
    if not found:
        text = f"none of the {len(finished)} finished trials in {place} lies in the space. Widen it, or remove this."
        raise SettingsError([file.problem("start_from", text)])
    return [{**result, "space": file.space.digest} for result in found]

"""Making the proposals of a sweep again, from the order in which its results came."""

from __future__ import annotations

from pathlib import Path

from experiments_manager.sweeps.proposals import Proposals
from experiments_manager.sweeps.search.spaces import Point
from experiments_manager.sweeps.state.folder import open_sweep
from experiments_manager.sweeps.state.journal import read_journal
from experiments_manager.sweeps.state.trials import SweepState
from experiments_manager.sweeps.sweep_file import load_sweep_file


def replayed(sweep_dir: Path | str) -> dict[int, Point]:
    """Propose every trial again, as its moment in the journal would have it.

    Args:
        sweep_dir: The folder of a sweep.

    Returns:
        Points by number of trial; those that the user gave are as the journal has them.

    Raises:
        SweepError: There is no sweep, or its journal is damaged.
        SettingsError: A sweep file that it was run with cannot be loaded any more.
    """
    folder = open_sweep(sweep_dir)
    state, found, proposals = SweepState(), {}, None
    for event in read_journal(folder.journal):
        if event["event"] == "opened":
            file = load_sweep_file(
                folder.path / "sweep_files" / event["sweep_file"], settings_file=event["settings_file"]
            )
            proposals = Proposals(
                event["algorithm"] if file.plan.algorithm == "auto" else file.plan.algorithm,
                file.space,
                file.plan.seed,
                modes=tuple(event["modes"]),
            )
        elif event["event"] == "proposed" and event["by"] == "start_from":
            found[event["trial"]] = event["point"]
        elif event["event"] == "proposed":
            proposal = proposals.next(state, event["trial"])
            found[event["trial"]] = proposal and proposal["point"]
        state.apply(event)
    return found

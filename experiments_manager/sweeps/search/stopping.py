"""When a sweep has searched enough."""

from __future__ import annotations

from experiments_manager.sweeps.state.trials import SweepState, best_trial, losses
from experiments_manager.sweeps.sweep_plan import StopWhen


def stop_reason(rules: StopWhen, state: SweepState, modes: tuple[str, ...]) -> str | None:
    """Return why no further trial should be proposed, or `None`; time is not looked at."""
    best = best_trial(state.trials.values(), modes)
    if best is None:
        return None
    if rules.target is not None and losses(best.values[:1], modes[:1]) <= losses((rules.target,), modes[:1]):
        return f"the target {rules.target:g} is reached"
    without = len(state.completions) - 1 - state.completions.index(best.number)
    if rules.no_progress is not None and without >= rules.no_progress:
        return f"no progress in {without} trials"
    return None

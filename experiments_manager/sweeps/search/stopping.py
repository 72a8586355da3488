"""When a sweep has searched enough."""

from __future__ import annotations

from experiments_manager.sweeps.state.trials import FAILED, SweepState, best_trial, losses
from experiments_manager.sweeps.sweep_plan import StopWhen

MOST_FAILURES = 10
"""Failed trials after which a sweep ends that has no result at all: the experiment fails, and not a point."""


def stop_reason(rules: StopWhen, state: SweepState, modes: tuple[str, ...]) -> str | None:
    """Return why no further trial should be proposed, or `None`; time is not looked at."""
    best = best_trial(state.trials.values(), modes)
    if best is None:
        failed = state.of_state(FAILED)
        if len(failed) >= MOST_FAILURES and not state.completions:
            return f"the first {len(failed)} trials failed, and none had a result; the last one: {failed[-1].reason}"
        return None
    if rules.target is not None and losses(best.values[:1], modes[:1]) <= losses((rules.target,), modes[:1]):
        return f"the target {rules.target:g} is reached"
    without = len(state.completions) - 1 - state.completions.index(best.number)
    if rules.no_progress is not None and without >= rules.no_progress:
        return f"no progress in {without} trials"
    return None

"""Which trials end early, and which go on after all."""

from experiments_manager.sweeps.search.pruning import AshaPruner, MedianPruner, rungs
from experiments_manager.sweeps.state.trials import PAUSED, PRUNED, RUNNING, SweepState
from experiments_manager.sweeps.sweep_plan import AshaRules, MedianRules

MIN = ("min",)


def state_of(trials):
    """Makes the state of trials that run, which have reported `{epoch: value}` each."""
    state = SweepState()
    for number, reports in enumerate(trials):
        state.apply({"event": "proposed", "trial": number, "point": {}, "overrides": {}, "space": "", "by": "tpe"})
        for epoch, value in reports.items():
            state.apply({"event": "reported", "trial": number, "epoch": epoch, "values": [value], "go": True})
    return state


def pause(state, number, epoch, value):
    event = {"event": "reported", "trial": number, "epoch": epoch, "values": [value], "go": False, "state": PAUSED}
    state.apply(event)


def test_a_trial_worse_than_the_median_ends():
    state = state_of([{3: 1.0}, {3: 2.0}, {3: 3.0}, {}])
    pruner = MedianPruner(MedianRules(min_trials=3), MIN)
    assert pruner.verdict(state, state.trials[3], 3, [2.5]).state == PRUNED
    assert pruner.verdict(state, state.trials[3], 3, [2.0]).go
    assert MedianPruner(MedianRules(min_trials=3), ("max",)).verdict(state, state.trials[3], 3, [2.5]).go


def test_nobody_ends_before_enough_others_came_so_far_or_while_warming_up():
    state = state_of([{1: 1.0}, {1: 1.0}, {}])
    assert MedianPruner(MedianRules(min_trials=3, warmup_epochs=0), MIN).verdict(state, state.trials[2], 1, [9.0]).go
    assert MedianPruner(MedianRules(min_trials=2, warmup_epochs=1), MIN).verdict(state, state.trials[2], 1, [9.0]).go
    assert (
        not MedianPruner(MedianRules(min_trials=2, warmup_epochs=0), MIN).verdict(state, state.trials[2], 1, [9.0]).go
    )


def test_trials_that_diverged_are_worse_than_all_others():
    nan = float("nan")
    state = state_of([{1: nan}, {1: nan}, {1: nan}, {}])
    median = MedianPruner(MedianRules(min_trials=3, warmup_epochs=0), MIN)
    assert median.verdict(state, state.trials[3], 1, [9.0]).go
    assert median.verdict(state, state.trials[3], 1, [nan]).reason == "diverged by epoch 1"
    halving = AshaPruner(AshaRules(min_epochs=1, reduction=2), ("max",), 9)
    assert halving.verdict(state, state.trials[3], 1, [0.1]).go
    assert not halving.verdict(state, state.trials[3], 1, [nan]).go
    pause(state, 3, 1, nan)
    assert halving.promotable(state) is None


def test_the_rungs_lie_below_the_whole_length():
    assert rungs(AshaRules(min_epochs=1, reduction=3), 27) == [1, 3, 9]
    assert rungs(AshaRules(min_epochs=2, reduction=2), 9) == [2, 4, 8]
    assert rungs(AshaRules(min_epochs=9), 9) == []


def test_the_best_of_a_rung_goes_on_at_once_and_others_are_paused():
    state = state_of([{1: 3.0}, {1: 2.0}, {}])
    pruner = AshaPruner(AshaRules(min_epochs=1, reduction=3), MIN, 9)
    assert pruner.verdict(state, state.trials[2], 1, [1.0]).go
    assert pruner.verdict(state, state.trials[2], 1, [5.0]).state == PAUSED


def test_a_paused_trial_is_promoted_once_enough_worse_ones_have_come():
    state = state_of([{}, {}, {}])
    pruner = AshaPruner(AshaRules(min_epochs=1, reduction=3), MIN, 9)
    pause(state, 0, 1, 1.0)
    pause(state, 1, 1, 2.0)
    assert pruner.promotable(state) is None
    pause(state, 2, 1, 3.0)
    assert pruner.promotable(state).number == 0
    state.apply({"event": "promoted", "trial": 0})
    assert state.trials[0].state == RUNNING
    assert pruner.promotable(state) is None

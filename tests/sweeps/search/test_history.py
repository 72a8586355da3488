"""What an algorithm is told of results that were obtained by longer and shorter trainings."""

import pytest
from hyperopt import hp

from experiments_manager.sweeps.search.history import History
from experiments_manager.sweeps.search.spaces import Space
from experiments_manager.sweeps.state.trials import FAILED, FINISHED, PAUSED, SweepState


@pytest.fixture
def space():
    return Space({"x": hp.uniform("x", 0, 10)})


class Told:
    """A sweep, and what an algorithm is told of it."""

    def __init__(self, space, modes=("min",)):
        self.space, self.state, self.history = space, SweepState(), History(space, modes, 0)

    def propose(self, number, x):
        proposal = {"point": {"x": x}, "overrides": {"x": x}, "space": self.space.digest, "by": "tpe"}
        self.state.apply({"event": "proposed", "trial": number, **proposal})

    def finish(self, number, *values):
        self.propose(number, float(number))
        self.state.apply({"event": "ended", "trial": number, "state": FINISHED, "values": values})

    def pause(self, number, **reports):
        """Lets a trial report values by epoch, and pauses it at the last one."""
        self.propose(number, float(number))
        for name, value in reports.items():
            self.report(number, int(name[1:]), value, go=name != [*reports][-1])

    def report(self, number, epoch, value, go):
        event = {"event": "reported", "trial": number, "epoch": epoch, "values": [value], "go": go}
        self.state.apply(event if go else event | {"state": PAUSED})

    @property
    def losses(self):
        """What is told by the point, in the order of completions."""
        return {int(known.point["x"]): known.loss for known in self.history.known(self.state, 99)}

    @property
    def order(self):
        """Trials from the best to the worst as the algorithm sees them."""
        return sorted(self.losses, key=self.losses.get)


def test_losses_are_the_values_themselves_where_no_trial_was_ended_early(space):
    told = Told(space)
    told.finish(0, 0.5)
    told.finish(1, 0.25)
    assert told.losses == {0: 0.5, 1: 0.25}


@pytest.mark.parametrize(("mode", "better", "worse"), [("min", 0.1, 0.2), ("max", 0.2, 0.1)])
def test_trials_that_were_trained_for_longer_come_first_and_the_better_ones_among_them(space, mode, better, worse):
    told = Told(space, (mode,))
    told.pause(0, e1=worse)
    told.pause(1, e1=better)
    told.pause(2, e1=better, e3=worse)
    told.finish(3, worse)
    told.pause(4, e1=better, e3=better)
    assert told.order == [3, 4, 2, 1, 0]
    assert sorted(told.losses.values()) == [0, 1, 2, 3, 4]


def test_a_trial_that_was_promoted_counts_with_what_it_has_reached_meanwhile(space):
    told = Told(space)
    told.pause(0, e1=0.3)
    told.pause(1, e1=0.2)
    assert told.order == [1, 0]
    told.state.apply({"event": "promoted", "trial": 0})
    told.report(0, 3, 0.1, go=True)
    assert told.order == [0, 1]


def test_trials_without_finite_values_are_left_out(space):
    told = Told(space)
    told.pause(0, e1=float("nan"))
    told.pause(1, e1=0.2)
    told.pause(2, e1=0.1)
    told.state.apply({"event": "promoted", "trial": 2})
    told.state.apply({"event": "ended", "trial": 2, "state": FAILED})
    assert told.order == [2, 1]  # it failed later; what it had reached is known
    told.state.apply({"event": "retried", "trial": 2})
    assert told.order == [1]

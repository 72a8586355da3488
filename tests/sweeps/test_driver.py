"""The loop of a sweep, with trials that are played."""

import contextlib

import pytest

from experiments_manager.sweeps.driver import MOST_BREAKS, MOST_FAILURES, Driver, Limits
from experiments_manager.sweeps.search.pruning import GO, NoPruner, Verdict
from experiments_manager.sweeps.state.journal import Journal
from experiments_manager.sweeps.state.trials import PAUSED, SweepState
from experiments_manager.sweeps.sweep_plan import StopWhen
from experiments_manager.sweeps.trials.trial_pool import DIED, TrialPool


class Played(TrialPool):
    """Jobs whose messages the test gives, some at each poll."""

    def __init__(self, *played, left=None, parallel=1):
        self.played, self.left, self.parallel = list(played), left or {}, parallel
        self.started, self.answers, self.going = [], [], []

    @property
    def running(self):
        return list(self.going)

    @property
    def free(self):
        return self.parallel - len(self.going)

    def reattach(self, tasks):
        taken = {number: self.left[number] for number in tasks if number in self.left}
        self.going += taken
        return taken

    def start(self, trial, task):
        assert trial not in self.going, "it has a job"
        self.started.append(trial)
        self.going.append(trial)
        return {"job": str(100 + len(self.started)), "folder": f"trial_{trial:05d}/{len(self.started)}"}

    def answer(self, trial, *, go):
        self.answers.append((trial, go))

    def poll(self, seconds):
        if not self.played:
            raise Killed
        found = self.played.pop(0)
        for trial, message in found:
            if message["kind"] in ("ended", DIED):
                self.going.remove(trial)
        return found

    def ask_to_stop(self):
        raise AssertionError("nobody asks it to")

    def close(self):
        pass


class Killed(BaseException):
    """What becomes of the driver when nothing is left to play."""


class Proposed:
    def next(self, state, number):
        return {"point": {}, "overrides": {"rate": number}, "space": "", "by": "random"}


@pytest.fixture
def run(tmp_path):
    """Runs a sweep, which goes on with what earlier ones left in the journal; gives all its events."""

    def run(pool, trials=1, pruner=None):
        with contextlib.closing(Journal(tmp_path / "journal.jsonl")) as journal:
            limits = Limits(trials, StopWhen(), ("min",))
            state = SweepState(journal.events)
            driver = Driver(journal, state, pool, Proposed(), pruner or NoPruner(), limits, lambda trial: {})
            driver.record("opened")
            with contextlib.suppress(Killed):
                driver.run(lambda: False)
        with contextlib.closing(Journal(tmp_path / "journal.jsonl")) as journal:
            return [event for event in journal.events if event["event"] != "opened"]

    return run


def kinds(events):
    return [event["event"] for event in events]


def asked(epoch, value):
    return {"kind": "asked", "epoch": epoch, "values": [value], "curve": [value], "seconds": 1.0}


def finished(value):
    return {"kind": "ended", "state": "finished", "values": [value], "curve": [value], "epochs": 4, "seconds": 1.0}


STOPPED = {"kind": "ended", "state": "stopped", "seconds": 1.0}


class Scripted(NoPruner):
    """Pauses all trials, or none, and promotes those that are paused."""

    def __init__(self, *, go):
        self.go = go

    def verdict(self, state, trial, epoch, values):
        return GO if self.go else Verdict(False, PAUSED, "others are better")

    def promotable(self, state):
        return next(iter(state.of_state(PAUSED)), None)


def test_the_number_of_a_job_is_written_down_before_anything_follows_from_it(run):
    events = run(Played())
    assert kinds(events) == ["proposed", "submitted"]
    assert (events[1]["job"], events[1]["folder"]) == ("101", "trial_00000/1")


def test_a_trial_that_was_taken_up_is_not_started_and_a_number_that_was_unknown_is_written_down(run):
    run(Played())
    pool = Played([(0, finished(0.5))], left={0: {"job": "7", "folder": "trial_00000/1"}})
    events = run(pool)
    assert pool.started == []
    assert kinds(events) == ["proposed", "submitted", "submitted", "ended"]
    assert events[2]["job"] == "7"


def test_a_question_that_was_decided_before_a_kill_gets_the_same_answer_and_is_no_other_event(run):
    before = Played([(0, asked(2, 0.5))])
    assert kinds(run(before, pruner=Scripted(go=True))) == ["proposed", "submitted", "reported"]
    pool = Played([(0, asked(2, 0.5))], [(0, finished(0.4))], left={0: {}})
    assert kinds(run(pool, pruner=Scripted(go=False))) == ["proposed", "submitted", "reported", "ended"]
    assert before.answers == pool.answers == [(0, True)]


def test_a_trial_that_was_paused_is_promoted_when_its_job_has_left(run):
    pool = Played([(0, asked(2, 0.5))], [], [(0, STOPPED)], [(0, finished(0.4))], parallel=2)
    assert kinds(run(pool, pruner=Scripted(go=False)))[2:] == ["reported", "promoted", "submitted", "ended"]
    assert pool.started == [0, 0]
    assert pool.answers == [(0, False)]


KILLED = {"kind": DIED, "reason": "its process was ended by SIGKILL", "outside": True}
INTERRUPTED = {"kind": "ended", "state": "interrupted", "seconds": 1.0}


def trained(epoch):
    return {"kind": "epoch", "epoch": epoch, "value": 0.5}


@pytest.mark.parametrize("end", [KILLED, INTERRUPTED])
def test_a_trial_that_is_broken_off_again_and_again_fails_also_where_the_driver_is_replaced_meanwhile(run, end):
    half = MOST_BREAKS // 2
    events = run(Played(*[[(0, end)]] * half))
    assert kinds(events).count("interrupted") == half
    pool = Played(*[[(0, end)]] * (MOST_BREAKS - half))
    events = run(pool)
    assert kinds(events).count("interrupted") == MOST_BREAKS
    assert pool.started == [0] * (MOST_BREAKS - half)
    assert (events[-1]["event"], events[-1]["state"]) == ("ended", "failed")
    assert f"{MOST_BREAKS} times without a further epoch in between" in events[-1]["reason"]


def test_an_epoch_in_between_begins_the_count_anew(run):
    played = [message for epoch in range(1, MOST_BREAKS + 3) for message in ([(0, trained(epoch))], [(0, KILLED)])]
    events = run(Played(*played, [(0, finished(0.5))]))
    assert kinds(events).count("interrupted") == MOST_BREAKS + 2
    assert (events[-1]["event"], events[-1]["state"]) == ("ended", "finished")


def test_a_trial_that_raised_has_the_epochs_that_it_trained(run):
    raised = {"kind": "ended", "state": "failed", "reason": "KeyboardInterrupt", "seconds": 1.0}
    events = run(Played([(0, trained(1)), (0, trained(2)), (0, raised)]))
    assert (events[-1]["state"], events[-1]["epochs"]) == ("failed", 2)


def test_a_process_that_crashes_on_its_way_out_changes_nothing_of_its_trial(run):
    crash = {"kind": DIED, "reason": "its process was ended by SIGSEGV", "outside": False}
    pool = Played([(0, asked(2, 0.5))], [(0, crash)], [(0, finished(0.4))], parallel=2)
    events = run(pool, pruner=Scripted(go=False))
    assert kinds(events)[2:] == ["reported", "interrupted", "promoted", "submitted", "ended"]
    assert events[3]["counts"] is False


def state_of(values):
    """Makes the state of trials that ended with these values; `None` stands for a failure."""
    state = SweepState()
    for number, value in enumerate(values):
        state.apply({"event": "proposed", "trial": number, "point": {}, "overrides": {}, "space": "", "by": "tpe"})
        how = {"state": "failed", "reason": "no model"} if value is None else {"state": "finished", "values": [value]}
        state.apply({"event": "ended", "trial": number, **how})
    return state


@pytest.mark.parametrize(
    ("rules", "values", "mode", "reason"),
    [
        ({"target": 0.5}, [0.9, 0.6], "min", None),
        ({"target": 0.5}, [0.9, 0.5], "min", "the target 0.5 is reached"),
        ({"target": 0.5}, [0.2, 0.6], "max", "the target 0.5 is reached"),
        ({"no_progress": 2}, [0.9, 0.5, 0.6], "min", None),
        ({"no_progress": 2}, [0.9, 0.5, 0.6, 0.7], "min", "no progress in 2 trials"),
        ({"no_progress": 2}, [0.5, 0.6, 0.7], "max", None),
        ({}, [], "min", None),
        ({}, [None] * (MOST_FAILURES - 1), "min", None),
        ({}, [0.5] + [None] * MOST_FAILURES, "min", None),
    ],
)
def test_whether_a_sweep_has_searched_enough_follows_from_the_results_so_far(rules, values, mode, reason):
    assert Limits(100, StopWhen(**rules), (mode,)).stop_reason(state_of(values)) == reason


def test_an_experiment_that_fails_whatever_the_point_ends_the_sweep_with_its_reason():
    reason = Limits(100, StopWhen(), ("min",)).stop_reason(state_of([None] * MOST_FAILURES))
    assert reason == "the first 10 trials failed, and none had a result; the last one: no model"

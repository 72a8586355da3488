"""The loop of a sweep: propose, start, listen, decide, and write down each event before anything follows from it.

    while there is something to do
        while a process is free: a trial that was interrupted, one to promote, or a new proposal
        for each message of a trial: note it in the journal, answer, and look whether the sweep has searched enough

Which trial comes next follows from the journal alone. So with one trial at a time the same seed gives the same sweep,
killed or not; with several it follows from the order in which they ended, which the journal holds.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from experiments_manager.sweeps.proposals import Proposals
from experiments_manager.sweeps.search.pruning import Pruner
from experiments_manager.sweeps.state.journal import Journal
from experiments_manager.sweeps.state.trials import FAILED, FINISHED, RUNNING, SweepState, Trial, best_trial, losses
from experiments_manager.sweeps.sweep_plan import StopWhen
from experiments_manager.sweeps.trials.channel import Message
from experiments_manager.sweeps.trials.trial_pool import DIED, TrialPool
from experiments_manager.sweeps.trials.trial_watcher import ObjectiveError

MOST_FAILURES = 10
"""Failed trials after which a sweep ends that has no result at all: the experiment fails, and not a point."""
MOST_BREAKS = 10
"""Times that a trial whose process was broken off is resumed without a further epoch in between; the journal counts."""
_POLL_SECONDS = 0.5
_GRACE = 60.0
"""Seconds in which trials write their checkpoints when the sweep is asked to stop."""


class Observer:
    """Base of who watches a sweep; override what you need."""

    def on_event(self, state: SweepState, event: Mapping[str, Any]) -> None:
        """Called when something was written to the journal."""

    def on_epoch(self, trial: int, epoch: int, epochs: int, value: float | None) -> None:
        """Called when a trial has begun (with epochs trained before), or has trained an epoch."""

    def on_queue(self, trial: int, reason: str) -> None:
        """Called when the job of a trial waits in the queue of a cluster, and for what."""

    def on_wait(self, state: SweepState) -> None:
        """Called several times a second."""


@dataclasses.dataclass
class Limits:
    """How far a sweep goes."""

    max_trials: int
    stop_when: StopWhen
    modes: tuple[str, ...]

    def stop_reason(self, state: SweepState) -> str | None:
        """Return why no further trial should be proposed, or `None`; time and number of trials are not looked at."""
        rules, best = self.stop_when, best_trial(state.trials.values(), self.modes)
        if best is None:
            failed = state.of_state(FAILED)
            if len(failed) < MOST_FAILURES or state.completions:
                return None
            return f"the first {len(failed)} trials failed, and none had a result; the last one: {failed[-1].reason}"
        first = self.modes[:1]
        if rules.target is not None and losses(best.values[:1], first) <= losses((rules.target,), first):
            return f"the target {rules.target:g} is reached"
        without = len(state.completions) - 1 - state.completions.index(best.number)
        if rules.no_progress is not None and without >= rules.no_progress:
            return f"no progress in {without} trials"
        return None


@dataclasses.dataclass
class _Progress:
    """What is known of a trial that runs, beside the journal."""

    epoch: int = 0
    epochs: int = 0


class Driver:
    """Runs trials until a sweep is done.

    Args:
        journal: Where every event is written.
        state: What the journal says so far.
        pool: Who runs trials.
        proposals: Who proposes them.
        pruner: Who ends them early.
        limits: How far to go.
        task: Gives what the process of a trial is told.
        observers: Who watch.
    """

    def __init__(
        self,
        journal: Journal,
        state: SweepState,
        pool: TrialPool,
        proposals: Proposals,
        pruner: Pruner,
        limits: Limits,
        task: Callable[[Trial], Message],
        observers: Sequence[Observer] = (),
    ) -> None:
        self._journal, self._state, self._pool = journal, state, pool
        self._proposals, self._pruner, self._limits = proposals, pruner, limits
        self._task, self._observers = task, observers
        self._progress: dict[int, _Progress] = {}
        self._began = time.monotonic()

    def run(self, should_stop: Callable[[], bool]) -> str:
        """Run until there is nothing left to do.

        Args:
            should_stop: A true answer lets all trials write a checkpoint, and ends the sweep as `interrupted`.

        Returns:
            Why it ended: `interrupted`, or a reason in words.

        Raises:
            SweepError: No further trial can be proposed or started, or the objective does not exist.
        """
        self._reattach()
        while True:
            if should_stop():
                return self._stop("interrupted")
            if self._time_is_over():
                return self._stop(f"the {self._limits.stop_when.hours:g} hours are over")
            reason = self._start_trials()
            if not self._pool.running:
                return reason or self._reason() or f"{self._limits.max_trials} trials were proposed"
            for number, message in self._pool.poll(_POLL_SECONDS):
                self._handle(number, message)
            for observer in self._observers:
                observer.on_wait(self._state)

    def record(self, event: str, **fields: Any) -> None:
        """Append an event to the journal, then apply it to the state."""
        written = self._journal.append({"event": event, **fields, "at": round(time.monotonic() - self._began, 3)})
        self._state.apply(written)
        for observer in self._observers:
            observer.on_event(self._state, written)

    def _reattach(self) -> None:
        tasks = {trial.number: self._task(trial) for trial in self._state.of_state(RUNNING)}
        for number, submitted in self._pool.reattach(tasks).items():
            self._progress.setdefault(number, _Progress())
            if submitted:
                self.record("submitted", trial=number, **submitted)

    def _start_trials(self) -> str | None:
        """Start what can be started now; return why nothing more is proposed, where that is so."""
        while self._pool.free:
            trial = self._interrupted() or self._promoted()
            if trial is None:
                reason = self._reason()
                if reason is not None:
                    return reason
                trial = self._proposed()
                if trial is None:
                    return "every point of the grid was tried"
            self._progress.setdefault(trial.number, _Progress())
            submitted = self._pool.start(trial.number, self._task(trial))
            if submitted:
                self.record("submitted", trial=trial.number, **submitted)
        return None

    def _interrupted(self) -> Trial | None:
        running = self._pool.running
        return next((trial for trial in self._state.of_state(RUNNING) if trial.number not in running), None)

    def _promoted(self) -> Trial | None:
        if self._reason(of_proposals=False) is not None:
            return None
        trial = self._pruner.promotable(self._state)
        if trial is not None and trial.number in self._pool.running:
            return None  # it is still on its way out after the verdict, and can begin again after that
        if trial is not None:
            self.record("promoted", trial=trial.number, epoch=max(trial.reports))
        return trial

    def _proposed(self) -> Trial | None:
        number = self._state.proposed
        proposal = self._proposals.next(self._state, number)
        if proposal is None:
            return None
        self.record("proposed", trial=number, **proposal)
        return self._state.trials[number]

    def _reason(self, *, of_proposals: bool = True) -> str | None:
        """Return why nothing more is started."""
        reason = self._limits.stop_reason(self._state)
        if reason is None and of_proposals and self._state.proposed >= self._limits.max_trials:
            return f"{self._state.proposed} trials were proposed"
        return reason

    def _time_is_over(self) -> bool:
        hours = self._limits.stop_when.hours
        return hours is not None and self._state.before + time.monotonic() - self._began > 3600 * hours

    def _handle(self, number: int, message: Message) -> None:
        """Act on what a trial tells."""
        trial, progress = self._state.trials[number], self._progress[number]
        kind = message["kind"]
        if kind in ("started", "epoch"):
            progress.epoch = max(progress.epoch, message["epoch"])
            progress.epochs = message.get("epochs", progress.epochs)
            for observer in self._observers:
                observer.on_epoch(number, message["epoch"], progress.epochs, message.get("value"))
        elif kind == "queued":
            for observer in self._observers:
                observer.on_queue(number, message["reason"])
        elif kind == "asked":
            self._decide(trial, message)
        elif kind == "ended":
            self._end(trial, message)
        elif kind == DIED:
            self._end_broken(trial, message["reason"], resumable=message["outside"])

    def _decide(self, trial: Trial, message: Message) -> None:
        if message["epoch"] in trial.reports:  # noted by a driver that was killed before its answer got through
            self._pool.answer(trial.number, go=trial.state == RUNNING)
            return
        values = [float(value) for value in message["values"]]
        verdict = self._pruner.verdict(self._state, trial, message["epoch"], values)
        ending = {"state": verdict.state, "reason": verdict.reason, "curve": message["curve"]}
        ending |= {"seconds": message["seconds"]}
        self.record(
            "reported",
            trial=trial.number,
            epoch=message["epoch"],
            values=values,
            go=verdict.go,
            **({} if verdict.go else ending),
        )
        self._pool.answer(trial.number, go=verdict.go)

    def _end(self, trial: Trial, message: Message) -> None:
        if message["state"] == "interrupted":  # nobody here has asked it to
            self._end_broken(trial, message.get("reason", "it was interrupted"), resumable=True)
            return
        if message["state"] not in (FINISHED, FAILED):
            return  # `stopped` by a verdict, which is noted already
        if message.get("refused"):
            raise ObjectiveError(message["reason"])
        fields = {name: message[name] for name in ("values", "reason", "curve", "epochs", "seconds") if name in message}
        fields.setdefault("epochs", self._progress[trial.number].epoch)
        self.record("ended", trial=trial.number, state=message["state"], **fields)

    def _end_broken(self, trial: Trial, reason: str, *, resumable: bool) -> None:
        """Note that a process ended before its trial did; the trial is resumed as a run, or has failed.

        Args:
            trial: The trial.
            reason: How it ended.
            resumable: Whether it is no fault of the trial, as far as can be told.
        """
        epoch = self._progress[trial.number].epoch
        if trial.state != RUNNING:  # it was on its way out after a verdict
            self.record("interrupted", trial=trial.number, reason=reason, epoch=epoch, counts=False)
            return
        if resumable:
            self.record("interrupted", trial=trial.number, reason=reason, epoch=epoch, counts=True)
            if trial.breaks < MOST_BREAKS:
                return  # it is `running` without a process, so it comes next
            reason = f"{reason}, {trial.breaks} times without a further epoch in between"
        self.record("ended", trial=trial.number, state=FAILED, reason=reason, epochs=epoch)

    def _stop(self, reason: str) -> str:
        """Let all trials write their checkpoints; they are still `running` in the journal, and go on with a resume."""
        self._pool.ask_to_stop()
        end = time.monotonic() + _GRACE
        while self._pool.running and time.monotonic() < end:
            for number, message in self._pool.poll(_POLL_SECONDS):
                self._handle_while_stopping(number, message)
        return reason

    def _handle_while_stopping(self, number: int, message: Message) -> None:
        """Take note of a trial that came to its end all the same; one that asks is asked again after the resume."""
        trial = self._state.trials[number]
        if message["kind"] == "ended" and message["state"] != "interrupted":
            self._end(trial, message)
        elif message["kind"] in ("ended", DIED):
            reason = message.get("reason", "the sweep was asked to stop")
            self.record("interrupted", trial=number, reason=reason, epoch=self._progress[number].epoch, counts=False)

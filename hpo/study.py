"""The study: folds events into trials and decides what comes next. Pure: no clock, no files, no ray, mlflow or torch.

Every change is an event. The study decides on events, hands them to `record` (a journal's append), and only then applies
them, so nothing takes effect that was not remembered.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from hpo import asha
from hpo.events import Asked, Created, Ended, Event, Finished, Measured, Resumed, Retried
from hpo.space import Params
from hpo.stopping import NoStopper, Progress, Stopper, after, why_over
from hpo.trial import Decision, Direction, Measurement, State, Trial, trial_seed


class Sampler(Protocol):
    """Where the next trial's parameters come from: a function of the history and the study's seed.

    One that `remembers` depends on what it suggested, too, and on when: to go on it must be asked all of it again.
    """

    remembers: bool

    def suggest(self, number: int, trials: Sequence[Trial]) -> Params | None:
        """Parameters for trial `number`; None when the sampler has no further point. Asked twice, it answers the same."""


class NoFurther:
    """The sampler of a study that is only read: it has no further point."""

    remembers = False

    def suggest(self, number: int, trials: Sequence[Trial]) -> None:  # noqa: ARG002
        return None


@dataclass(frozen=True, slots=True)
class Rules:
    """When trials end and how many there are.

    `reduction_factor` None switches pruning off; `retries` is how often a trial whose worker died is tried again.
    """

    direction: Direction
    max_epochs: int
    max_trials: int
    seed: int = 0
    grace_epochs: int = 1
    reduction_factor: int | None = 3
    stopper: Stopper = field(default_factory=NoStopper)
    retries: int = 3

    @property
    def rungs(self) -> tuple[int, ...]:
        """The epochs at which a trial is compared with others."""
        if self.reduction_factor is None:
            return ()
        return asha.rungs(self.grace_epochs, self.reduction_factor, self.max_epochs)


def remember_nothing(events: Sequence[Event]) -> None:
    """The `record` of a study that needs no memory, as in a simulation."""


class Study:
    """Trials and the decisions about them."""

    def __init__(self, rules: Rules, sampler: Sampler, record: Callable[[Sequence[Event]], None] = remember_nothing) -> None:
        self.rules = rules
        self.trials: list[Trial] = []
        self.ended: Ended | None = None
        self._progress: list[Progress] = []  # of each trial
        self._leader: Trial | None = None
        self._sampler = sampler
        self._record = record
        self._arrivals: dict[int, dict[int, asha.Arrival]] = {rung: {} for rung in rules.rungs}

    def ask(self) -> Trial | None:
        """A new RUNNING trial, or None when the budget is used up or the sampler has no further point."""
        number = len(self.trials)
        if number >= self.rules.max_trials:
            return None
        params = self._sampler.suggest(number, self.trials)
        if params is None:
            return None
        self._commit([Asked(number, dict(params), trial_seed(self.rules.seed, number))])
        return self.trials[number]

    def report(self, number: int, measurements: Iterable[Measurement]) -> Decision:
        """Take a trial's measurements, in order, and say whether it goes on.

        Epochs that are known already (a retried trial repeats some) change nothing; what lies behind the epoch at
        which the trial ends is dropped.
        """
        trial = self.trials[number]
        if trial.state.finished:
            return Decision.STOP
        events: list[Event] = []
        so_far = self._progress[number]
        for m in measurements:
            if m.epoch <= so_far.epoch:
                continue
            if m.epoch != so_far.epoch + 1:
                raise ValueError(f"trial {number}: epoch {m.epoch} reported after epoch {so_far.epoch}; epochs come one by one")
            end = self.end_after(number, m, so_far)
            so_far = self._after(so_far, m)
            events.append(Measured(number, m.epoch, m.value, m.metrics, m.seconds))
            if end:
                events.append(end)
                break
        if events:
            self._commit(events)
        return Decision.STOP if trial.state.finished else Decision.CONTINUE

    def complete(self, number: int, rule: str, reason: str) -> None:
        """The trainer ended by itself; without a single measurement that is a failure."""
        if not self.trials[number].measurements:
            self.fail(number, "trainer", "the trainer ended before its first epoch: it must yield metrics after every epoch")
        else:
            self._finish(number, State.COMPLETE, rule, reason)

    def fail(self, number: int, rule: str, reason: str) -> None:
        """The trial is FAILED, with its reason; the study goes on."""
        self._finish(number, State.FAILED, rule, reason)

    def prune(self, number: int, rule: str, reason: str) -> None:
        """The trial is cut short from outside, as when the study's time is up; without a measurement it is FAILED."""
        self._finish(number, State.PRUNED if self.trials[number].measurements else State.FAILED, rule, reason)

    def retry(self, number: int, reason: str, *, counted: bool = True) -> bool:
        """A worker died. Whether the trial is tried again; after `retries` that counted it is FAILED."""
        trial = self.trials[number]
        if trial.state.finished:
            return False
        if counted and trial.deaths >= self.rules.retries:
            times = f"{trial.deaths + 1} times, the last time of" if trial.deaths else "of"
            self.fail(number, "worker", f"its worker died {times}: {reason}")
            return False
        self._commit([Retried(number, trial.attempts + 1, reason, counted)])
        return True

    def resume(self, event: Resumed) -> None:
        """Another process goes on with the study, perhaps with another budget."""
        self._commit([event])

    def end(self, reason: str) -> None:
        """The loop is over; the best trial is chosen."""
        best = self.best()
        self._commit([Ended(reason, None if best is None else best.number)])

    def best(self) -> Trial | None:
        """The trial with the best measurement of all that did not fail, the earliest of equals."""
        return self._leader

    def loss(self, trial: Trial) -> float:
        """A trial's best value as a loss (lower is better); infinity before its first measurement."""
        return self._progress[trial.number].best

    def apply(self, event: Event) -> None:
        """Fold one event; also how a journal is replayed."""
        match event:
            case Created():
                pass
            case Asked(number, params, seed):
                if number != len(self.trials):
                    raise ValueError(f"trial {number} asked for after {len(self.trials)} trials")
                self.trials.append(Trial(number, params, seed))
                self._progress.append(Progress())
            case Measured(number, epoch, value, metrics, seconds):
                trial = self.trials[number]
                measurement = Measurement(epoch, value, metrics, seconds)
                self._progress[number] = self._after(self._progress[number], measurement)
                trial.measurements.append(measurement)
                self._leader = min(filter(None, (self._leader, trial)), key=self._rank)
                if epoch in self._arrivals:
                    self._arrivals[epoch][number] = asha.Arrival(self.rules.direction.loss(value), went_on=True)
            case Retried(number, attempt, counted=counted):
                self.trials[number].attempts = attempt
                self.trials[number].deaths += counted
            case Finished(number, state, rule, reason):
                trial = self.trials[number]
                trial.state, trial.reason = state, reason
                if trial is self._leader and state is State.FAILED:
                    sound = [t for t in self.trials if t.measurements and t.state is not State.FAILED]
                    self._leader = min(sound, key=self._rank, default=None)
                self._note_end(trial, rule)
            case Resumed(trials=trials):
                self.ended = None
                if trials is not None:
                    self.rules = replace(self.rules, max_trials=trials)
            case Ended():
                self.ended = event

    def _rank(self, trial: Trial) -> tuple[float, int]:
        return self.loss(trial), trial.number

    def _note_end(self, trial: Trial, rule: str) -> None:
        if rule == "asha":
            arrival = self._arrivals[trial.epoch][trial.number]
            self._arrivals[trial.epoch][trial.number] = asha.Arrival(arrival.loss, went_on=False)
        elif rule == "metric":  # diverged: a worst entry at the rung that it would have reached next
            rung = next((rung for rung in self._arrivals if rung > trial.epoch), None)
            if rung is not None:
                self._arrivals[rung][trial.number] = asha.Arrival(math.nan, went_on=False)

    def end_after(self, number: int, measured: Measurement, so_far: Progress | None = None) -> Finished | None:
        """The end of a trial whose latest epoch, not applied yet, is `measured`; None if it goes on.

        `so_far` is its progress up to the epoch before (None: as applied).
        """
        rules, epoch, loss = self.rules, measured.epoch, self.rules.direction.loss(measured.value)
        verdict = self.verdict(epoch, loss)
        if verdict is not None and verdict.decision is Decision.STOP:
            return self._pruned(number, epoch, loss, verdict)
        if epoch >= rules.max_epochs:
            return Finished(number, State.COMPLETE, "max_epochs", f"trained all {epoch} epochs")
        progress = self._after(so_far or self._progress[number], measured)
        if (why := why_over(rules.stopper, progress)) is None:
            return None
        best = f"its value is that of epoch {progress.best_epoch}, {rules.direction.loss(progress.best):.6g}"
        return Finished(number, State.COMPLETE, rules.stopper.name, f"{why}; {best}")

    def _after(self, so_far: Progress, measured: Measurement) -> Progress:
        return after(so_far, measured, self.rules.direction, self.rules.stopper)

    def verdict(self, epoch: int, loss: float) -> asha.Verdict | None:
        """How a trial that arrives at `epoch` with `loss` now compares with the others there; None where nothing is compared."""
        if epoch not in self._arrivals or self.rules.reduction_factor is None:
            return None
        return asha.judge(list(self._arrivals[epoch].values()), loss, self.rules.reduction_factor)

    def _pruned(self, number: int, epoch: int, loss: float, verdict: asha.Verdict) -> Finished:
        value, cutoff = self.rules.direction.loss(loss), self.rules.direction.loss(verdict.cutoff)
        reason = (
            f"rank {verdict.rank} of {verdict.arrivals} at epoch {epoch}: {value:.6g}, "
            f"while the best {verdict.quota} go on, down to {cutoff:.6g}"
        )
        counts = {"rank": verdict.rank, "arrivals": verdict.arrivals, "quota": verdict.quota}
        detail = {"rung": epoch, "value": value, **counts, "cutoff": cutoff}
        return Finished(number, State.PRUNED, "asha", reason, detail)

    def _finish(self, number: int, state: State, rule: str, reason: str) -> None:
        if not self.trials[number].state.finished:
            self._commit([Finished(number, state, rule, reason)])

    def _commit(self, events: Sequence[Event]) -> None:
        self._record(events)
        for event in events:
            self.apply(event)


def replay(rules: Rules, sampler: Sampler, events: Iterable[Event], record: Callable[[Sequence[Event]], None] = remember_nothing) -> Study:
    """The study that a journal's events describe, ready to go on."""
    study = Study(rules, sampler, record)
    for event in events:
        if isinstance(event, Asked) and sampler.remembers:
            sampler.suggest(event.trial, study.trials)
        study.apply(event)
    return study

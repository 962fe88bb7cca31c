"""What happened to a study: folds its events into trials and into how they stand at the rungs. Pure: decides nothing."""

from __future__ import annotations

import math
from dataclasses import replace

from hpo import asha
from hpo.events import Asked, Audited, Created, Ended, Event, Finished, Measured, Paused, Promoted, Resumed, Retried
from hpo.rules import Rules
from hpo.standings import Group, Rung, Standings
from hpo.stopping import Progress, after
from hpo.trial import Course, Measurement, State, Trial


class History:
    """The trials of a study, as its events so far have made them."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.trials: list[Trial] = []
        self.ended: Ended | None = None
        self.epochs = 0  # measured, of all trials together
        self.promotions = 0
        self.finals = 0  # promotions to the end
        self._progress: list[Progress] = []  # of each trial
        self._leader: Trial | None = None
        self._standings = Standings(rules.rungs)

    def best(self) -> Trial | None:
        """The trial with the best measurement of all that did not fail, the earliest of equals."""
        return self._leader

    def loss(self, trial: Trial) -> float:
        """A trial's best value as a loss (lower is better); infinity before its first measurement."""
        return self._progress[trial.number].best

    @property
    def standings(self) -> Standings:
        """How the trials stand at the rungs; to be read, never changed."""
        return self._standings

    def rungs(self, trial: Trial) -> tuple[int, ...]:
        """The epochs at which the trial is compared with others."""
        return self._standings.epochs(self._group(trial)) if trial.course is Course.COMPETES else ()

    def verdict(self, number: int, epoch: int, loss: float) -> asha.Verdict | None:
        """How a trial that arrives at `epoch` with `loss` now compares with the others there; None where nothing is compared."""
        rung = self._standings.rung(self._group(self.trials[number]), epoch)
        if rung is None or self.rules.reduction_factor is None:
            return None
        return asha.judge(rung.arrivals, loss, self.rules.reduction_factor)

    def apply(self, event: Event) -> None:
        """Fold one event; also how a journal is replayed."""
        match event:
            case Created():
                pass
            case Asked(number, params, seed, ladder, replicates):
                if number != len(self.trials):
                    raise ValueError(f"trial {number} asked for after {len(self.trials)} trials")
                course = Course.COMPETES if replicates is None else Course.FINALS
                self.trials.append(Trial(number, params, seed, ladder=ladder, course=course, replicates=replicates))
                self._progress.append(Progress())
            case Measured(number, epoch, value, metrics, seconds):
                self._measure(self.trials[number], Measurement(epoch, value, metrics, seconds))
            case Paused(number):
                trial = self.trials[number]
                trial.state = State.PAUSED
                self._standings.wait(number, self._rung_of(trial, trial.epoch))
            case Promoted(number, course=course):
                trial = self.trials[number]
                trial.state, trial.course, trial.attempts = State.RUNNING, course, trial.attempts + 1
                self._standings.go_on(number)
                self.promotions += 1
                self.finals += course is Course.FINISH
            case Audited(number, epoch):
                trial = self.trials[number]
                trial.course = Course.AUDIT
                self._rung_of(trial, epoch).hold(number)
            case Retried(number, attempt, counted=counted):
                self.trials[number].attempts = attempt
                self.trials[number].deaths += counted
            case Finished(number, state, rule, reason):
                self._end_trial(self.trials[number], state, rule, reason)
            case Resumed(trials=trials, epochs=epochs):
                self.ended = None
                most, budget = self.rules.max_trials, self.rules.epoch_budget
                self.rules = replace(self.rules, max_trials=trials or most, epoch_budget=epochs or budget)
            case Ended():
                self.ended = event

    def _rank(self, trial: Trial) -> tuple[float, int]:
        return self.loss(trial), trial.number

    def _measure(self, trial: Trial, measurement: Measurement) -> None:
        number = trial.number
        self.epochs += 1
        self._progress[number] = self._after(self._progress[number], measurement)
        trial.measurements.append(measurement)
        trial.arrived.append(self.epochs)
        self._leader = min(filter(None, (self._leader, trial)), key=self._rank)
        if trial.course is not Course.AUDIT and (rung := self._standings.rung(self._group(trial), measurement.epoch)):
            rung.arrive(number, self.rules.direction.loss(measurement.value))
            if trial.course is Course.FINISH:
                rung.passed.add(number)

    def _end_trial(self, trial: Trial, state: State, rule: str, reason: str) -> None:
        trial.state, trial.reason, trial.ended_at = state, reason, self.epochs
        if trial.course is Course.FINISH and (state is State.FAILED or rule in ("budget", "time")):
            self.finals -= 1  # it left no finished model: another one is due, now or when the study is resumed
        if trial is self._leader and state is State.FAILED:
            sound = [t for t in self.trials if t.measurements and t.state is not State.FAILED]
            self._leader = min(sound, key=self._rank, default=None)
        self._standings.leave(trial.number)
        if trial.course is not Course.AUDIT:
            self._note_end(trial, rule)

    def _note_end(self, trial: Trial, rule: str) -> None:
        """What a trial's end means for the rungs: where it was stopped, and those that it will not come to."""
        group, number = self._group(trial), trial.number
        if rule == "asha":
            self._rung_of(trial, trial.epoch).hold(number)
        elif rule == "metric":  # diverged: a worst entry at the rung that it would have reached next
            for rung in list(self._standings.above(group, trial.epoch))[:1]:
                rung.arrive(number, math.nan, goes_on=False)
        elif trial.state is State.COMPLETE:  # it ended itself: done as it is, it competes by its best value wherever it would have come
            here = self._standings.rung(group, trial.epoch)
            if here and number in here.losses and number not in here.passed:  # one that had gone on has its place
                here.over.add(number)
            for rung in self._standings.above(group, trial.epoch):
                rung.arrive(number, self.loss(trial))
                rung.over.add(number)

    def _group(self, trial: Trial) -> Group:
        return trial.ladder, self.rules.bracket(trial.seed)

    def _rung_of(self, trial: Trial, epoch: int) -> Rung:
        rung = self._standings.rung(self._group(trial), epoch)
        if rung is None or trial.number not in rung.losses:
            raise ValueError(f"trial {trial.number} has not come to a rung at epoch {epoch}")
        return rung

    def _after(self, so_far: Progress, measured: Measurement) -> Progress:
        return after(so_far, measured, self.rules.direction, self.rules.stopper)

"""What happened to a study: folds its events into trials and into how they stand at the rungs. Pure: decides nothing."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

from hpo import asha
from hpo.events import (
    Asked,
    Audited,
    Chosen,
    Created,
    Ended,
    Event,
    Finished,
    Measured,
    Nominated,
    OfStudy,
    Paused,
    Promoted,
    Resumed,
    Retried,
    Tested,
    Unsealed,
)
from hpo.finals import Contender, contenders
from hpo.judging import Judgement, judge
from hpo.rules import Rules
from hpo.standings import Group, Rung, Standings
from hpo.stopping import Progress, after
from hpo.trial import FINALS_FROM, Course, Measurement, State, Trial


class History:
    """The trials of a study, as its events so far have made them: those of the search, and those of the finals apart from them."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.trials: list[Trial] = []
        self.finals: list[Trial] = []
        self.ended: Ended | None = None
        self.nominated: Nominated | None = None  # since when the finals are on, or over
        self.chosen: Chosen | None = None
        self.unsealed: list[Unsealed] = []
        self.test_results: list[Tested] = []
        self.count: Counter[State] = Counter()  # of the search's trials, how many are in each state
        self.epochs = 0  # measured, of all trials of the search together
        self.promotions = 0
        self.finishers = 0  # promotions to the end
        self._progress: dict[int, Progress] = {}  # of each trial
        self._leader: Trial | None = None
        self._standings = Standings(rules.rungs)

    def best(self) -> Trial | None:
        """The trial with the best measurement of all that did not fail, the earliest of equals."""
        return self._leader

    def trial(self, number: int) -> Trial:
        """The trial of that number, of the search or of the finals; LookupError if there is none."""
        return self.finals[number - FINALS_FROM] if number >= FINALS_FROM else self.trials[number]

    @property
    def contenders(self) -> list[Contender]:
        """Who is in the finals, in the order of nomination; nobody before."""
        if self.nominated is None:
            return []
        return contenders(self.trials, self.finals, self.nominated.trials, self.nominated.defaults, self.rules.direction)

    @property
    def judged(self) -> Judgement | None:
        """What the finals say by now; None while they say nothing."""
        return judge(self.contenders, self.rules.direction, self.rules.final_seeds)

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
            case Asked():
                self._add(event)
            case Measured(number, epoch, value, metrics, seconds):
                self._measure(self.trial(number), Measurement(epoch, value, metrics, seconds))
            case Paused(number):
                trial = self.trials[number]
                self._turn(trial, State.PAUSED)
                self._standings.wait(number, self._rung_of(trial, trial.epoch), self.loss(trial))
            case Promoted(number, course=course):
                trial = self.trials[number]
                self._turn(trial, State.RUNNING)
                trial.course, trial.attempts = course, trial.attempts + 1
                self._standings.go_on(number)
                self.promotions += 1
                self.finishers += course is Course.FINISH
            case Audited(number, epoch):
                trial = self.trials[number]
                trial.course = Course.AUDIT
                self._rung_of(trial, epoch).hold(number)
            case Retried(number, attempt, counted=counted):
                trial = self.trial(number)
                trial.attempts, trial.deaths = attempt, trial.deaths + counted
            case Finished(number, state, rule, reason):
                self._end_trial(self.trial(number), state, rule, reason)
            case _:
                self._apply_to_all(event)

    def _apply_to_all(self, event: OfStudy) -> None:
        match event:
            case Created():
                pass
            case Resumed():
                self._go_on(event)
            case Nominated():
                self.nominated = event
            case Chosen():
                self.chosen = event
            case Unsealed():
                self.unsealed.append(event)
            case Tested():
                self.test_results.append(event)
            case Ended():
                self.ended = event

    def _add(self, event: Asked) -> None:
        in_finals = event.replicates is not None
        known, first = (self.finals, FINALS_FROM) if in_finals else (self.trials, 0)
        if event.trial != first + len(known):
            raise ValueError(f"trial {event.trial} asked for after {len(known)} {'runs of the finals' if in_finals else 'trials'}")
        course = Course.FINALS if in_finals else Course.COMPETES
        known.append(Trial(event.trial, event.params, event.seed, ladder=event.ladder, course=course, replicates=event.replicates))
        self._progress[event.trial] = Progress()
        self.count[State.RUNNING] += not in_finals

    def _turn(self, trial: Trial, state: State) -> None:
        if not trial.in_finals:
            self.count[trial.state] -= 1
            self.count[state] += 1
        trial.state = state

    def _go_on(self, event: Resumed) -> None:
        """The study goes on where it was, or with its search if that has a new budget."""
        self.ended = None
        most, budget = self.rules.max_trials, self.rules.epoch_budget
        self.rules = replace(self.rules, max_trials=event.trials or most, epoch_budget=event.epochs or budget)
        if event.trials or event.epochs or event.time_s:
            self.nominated = self.chosen = None

    def _rank(self, trial: Trial) -> tuple[float, int]:
        return self.loss(trial), trial.number

    def _measure(self, trial: Trial, measurement: Measurement) -> None:
        number = trial.number
        self._progress[number] = self._after(self._progress[number], measurement)
        trial.measurements.append(measurement)
        if trial.in_finals:
            return
        self.epochs += 1
        trial.arrived.append(self.epochs)
        self._leader = min(filter(None, (self._leader, trial)), key=self._rank)
        if trial.course is not Course.AUDIT and (rung := self._standings.rung(self._group(trial), measurement.epoch)):
            rung.arrive(number, self.rules.direction.loss(measurement.value))
            if trial.course is Course.FINISH:
                rung.passed.add(number)

    def _end_trial(self, trial: Trial, state: State, rule: str, reason: str) -> None:
        self._turn(trial, state)
        trial.reason, trial.ended_at = reason, self.epochs
        if trial.in_finals:
            return
        if trial.course is Course.FINISH and (state is State.FAILED or rule in ("budget", "time")):
            self.finishers -= 1  # it left no finished model: another one is due, now or when the study is resumed
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
                here.end(number)
            for rung in self._standings.above(group, trial.epoch):
                rung.arrive(number, self.loss(trial))
                rung.end(number)

    def _group(self, trial: Trial) -> Group:
        return trial.ladder, self.rules.bracket(trial.seed)

    def _rung_of(self, trial: Trial, epoch: int) -> Rung:
        rung = self._standings.rung(self._group(trial), epoch)
        if rung is None or trial.number not in rung.losses:
            raise ValueError(f"trial {trial.number} has not come to a rung at epoch {epoch}")
        return rung

    def _after(self, so_far: Progress, measured: Measurement) -> Progress:
        return after(so_far, measured, self.rules.direction, self.rules.stopper)

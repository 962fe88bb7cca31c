"""The study: decides what comes next, from its history. Pure: no clock, no files, no ray, mlflow or torch.

Every change is an event. The study decides on events, hands them to `record` (a journal's append), and only then applies
them, so nothing takes effect that was not remembered.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from hpo import asha
from hpo.events import Asked, Audited, Ended, Event, Finished, Measured, Paused, Promoted, Resumed, Retried
from hpo.rules import BestFirst, Preparing, Promoter, Rules, Sampler
from hpo.space import Value
from hpo.standings import Rung
from hpo.stopping import Progress, why_over
from hpo.study_with_finals import StudyWithFinals, remember_nothing
from hpo.trial import Course, Decision, Measurement, State, Trial, name_of, trial_seed

FIRST_FINISHER, FINISHERS_EVERY = 2, 4  # in full trainings: earlier ones cost small budgets more than they tell


class Study(StudyWithFinals):
    """Trials and the decisions about them."""

    def __init__(self, rules: Rules, sampler: Sampler, record: Callable[[Sequence[Event]], None] = remember_nothing) -> None:
        super().__init__(rules, record)
        self._sampler = sampler
        self._promoter = sampler if isinstance(sampler, Promoter) else BestFirst()

    def next(self) -> Trial | None:
        """What a free worker does: a paused trial that may go on, or a new one, RUNNING by then; None while there is neither.

        Once the search is over it is a run of the finals.
        """
        if self.nominated is not None:
            return self._next_of_finals()
        if self.is_spent:
            return None
        if (promotion := self.promotion()) is None and (asked := self.ask()) is not None:
            return asked
        if promotion is None and (promotion := self.last_promotion()) is None:
            return None
        self._commit([promotion])
        return self.trials[promotion.trial]

    def prepare(self) -> None:
        """Nothing is to be decided now: the sampler may do what work of the next suggestion does not depend on what comes before it."""
        if isinstance(self._sampler, Preparing) and self.nominated is None:
            self._sampler.prepare(self.trials)

    def ask(self) -> Trial | None:
        """A new RUNNING trial, or None when the budget is used up or the sampler has no further point."""
        number = len(self.trials)
        if number >= self.rules.max_trials or self.is_spent:
            return None
        if (asked := self.asked(number)) is None:
            return None
        self._commit([asked])
        return self.trials[number]

    def asked(self, number: int) -> Asked | None:
        """The sampler's point for the next trial, `number`; None when it has no further one."""
        params = self._sampler.suggest(number, self.trials)
        if params is None:
            return None
        return Asked(number, dict(params), trial_seed(self.rules.seed, number), self._promoter.ladder(number, self.trials))

    def promotion(self) -> Promoted | None:
        """The paused trial that is to go on now, if there is one.

        Whenever the epochs of four full trainings have been spent, and first after two, the best that waits is trained to its
        end: users want a finished model. Otherwise the highest rung with a place free promotes.
        """
        rules, waiting = self.rules, self._standings.waiting
        if not waiting or rules.reduction_factor is None:
            return None
        if self.epochs >= rules.max_epochs * (FIRST_FINISHER + FINISHERS_EVERY * self.finishers):
            return self._finisher()
        if (rung := self._standings.free(rules.reduction_factor)) is None:
            return None
        return Promoted(self._promoter.choose(rung.waiting, self.trials, self.promotions), rung.epoch)

    def last_promotion(self) -> Promoted | None:
        """For when there is nothing else to do: the best that waits, if no trial was trained to its end, or is about to be.

        One that was audited does not count: it was trained on because it was not among the best.
        """
        waiting, sought = self._standings.waiting, (trial for trial in self.trials if trial.course is not Course.AUDIT)
        if not waiting or any(t.state is State.COMPLETE or (t.course is Course.FINISH and not t.state.finished) for t in sought):
            return None
        return self._finisher()

    def _finisher(self) -> Promoted:
        best = self._standings.best
        return Promoted(best, self._standings.waiting[best].epoch, Course.FINISH)

    @property
    def is_spent(self) -> bool:
        """Whether as many epochs were trained as the budget allows."""
        return self.rules.epoch_budget is not None and self.epochs >= self.rules.epoch_budget

    def report(self, number: int, measurements: Iterable[Measurement]) -> Decision:
        """Take a trial's measurements, in order, and say whether it goes on.

        Epochs that are known already (a retried trial repeats some) change nothing; what lies behind the epoch at
        which the trial ends or waits is dropped.
        """
        trial = self.trial(number)
        events: list[Event] = []
        so_far, course = self._progress[number], trial.course
        for m in measurements if trial.state is State.RUNNING else ():
            if m.epoch <= so_far.epoch:
                continue
            if m.epoch != so_far.epoch + 1:
                raise ValueError(f"{name_of(number)}: epoch {m.epoch} reported after epoch {so_far.epoch}; epochs come one by one")
            then = self.consequence(number, m, so_far, course)
            so_far = self._after(so_far, m)
            events.append(Measured(number, m.epoch, m.value, m.metrics, m.seconds))
            if then:
                events.append(then)
            if isinstance(then, Audited):
                course = Course.AUDIT
            elif then:
                break
        if events:
            self._commit(events)
        if trial.state is State.PAUSED:
            return Decision.PAUSE
        return Decision.STOP if trial.state.finished else Decision.CONTINUE

    def complete(self, number: int, rule: str, reason: str) -> None:
        """The trainer ended by itself; without a single measurement that is a failure."""
        if not self.trial(number).measurements:
            self.fail(number, "trainer", "the trainer ended before its first epoch: it must yield metrics after every epoch")
        else:
            self._finish(number, State.COMPLETE, rule, reason)

    def fail(self, number: int, rule: str, reason: str) -> None:
        """The trial is FAILED, with its reason; the study goes on."""
        self._finish(number, State.FAILED, rule, reason)

    def prune(self, number: int, rule: str, reason: str) -> None:
        """The trial is cut short from outside, as when its time is up."""
        self._finish(number, State.PRUNED, rule, reason)

    def retry(self, number: int, reason: str, *, counted: bool = True) -> bool:
        """A worker died. Whether the trial is tried again; after `retries` that counted it is FAILED."""
        trial = self.trial(number)
        if trial.state is not State.RUNNING:
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

    def discard(self, reason: str) -> list[Trial]:
        """The search is over by `reason` (budget, time): what runs or waits is PRUNED; these trials."""
        left = [trial for trial in (*self.trials, *self.finals) if not trial.state.finished]
        if left:
            self._commit([self._cut_short(trial, reason) for trial in left])  # in one write: hundreds may wait
        return left

    def cut_short(self, number: int, reason: str) -> None:
        """The search is over by `reason`: a trial that runs is PRUNED."""
        self._commit([self._cut_short(self.trial(number), reason)])

    def _cut_short(self, trial: Trial, rule: str) -> Finished:
        why = {"time": "the study's time was spent", "budget": "the study's epochs were spent"}.get(rule, f"the study ended: {rule}")
        if trial.state is State.PAUSED:
            rule, why = "paused", self._still_waiting(self._standings.waiting[trial.number], trial.number)
        return Finished(trial.number, State.PRUNED, rule, why)

    def _still_waiting(self, rung: Rung, number: int) -> str:
        rank = f"rank {rung.rank(number)} of {len(rung.losses)}"
        return f"waited at epoch {rung.epoch} when the study ended: {rank}, of which {len(rung.passed)} went on"

    def end(self, reason: str) -> None:
        """The loop is over; its model is chosen."""
        model = self.model()
        self._commit([Ended(reason, None if model is None else model.number)])

    def consequence(
        self, number: int, measured: Measurement, so_far: Progress | None = None, course: Course | None = None
    ) -> Finished | Paused | Audited | None:
        """What follows for a trial whose latest epoch, not applied yet, is `measured`; None if it just goes on.

        `so_far` is its progress up to the epoch before, `course` its course there (None: as applied).
        """
        rules, trial, epoch = self.rules, self.trial(number), measured.epoch
        loss = rules.direction.loss(measured.value)
        competes = (course or trial.course) is Course.COMPETES
        verdict = self.verdict(number, epoch, loss) if competes else None
        audited = verdict is not None and verdict.decision is Decision.STOP and rules.audits(trial.seed, epoch)
        if verdict is not None and verdict.decision is Decision.STOP and not rules.promotes and not audited:
            return self._pruned(number, epoch, loss, verdict)
        if epoch >= rules.max_epochs:
            return Finished(number, State.COMPLETE, "max_epochs", f"trained all {epoch} epochs")
        progress = self._after(so_far or self._progress[number], measured)
        if why := why_over(rules.stopper, progress):
            best = f"its value is that of epoch {progress.best_epoch}, {rules.direction.loss(progress.best):.6g}"
            return Finished(number, State.COMPLETE, rules.stopper.name, f"{why}; {best}")
        if verdict is None:
            return self._out_of_race(trial)
        if audited:
            return Audited(number, epoch, self._detail(epoch, loss, verdict))
        return Paused(number, epoch, self._detail(epoch, loss, verdict)) if rules.promotes else None

    def _detail(self, epoch: int, loss: float, verdict: asha.Verdict) -> dict[str, Value]:
        direction = self.rules.direction
        counts = {"rank": verdict.rank, "arrivals": verdict.arrivals, "quota": verdict.quota}
        cutoff = {"cutoff": direction.loss(verdict.cutoff)} if math.isfinite(verdict.cutoff) else {}  # so many diverged that there is none
        return {"rung": epoch, "value": direction.loss(loss), **counts, **cutoff}

    def _pruned(self, number: int, epoch: int, loss: float, verdict: asha.Verdict) -> Finished:
        value, cutoff = self.rules.direction.loss(loss), self.rules.direction.loss(verdict.cutoff)
        reason = (
            f"rank {verdict.rank} of {verdict.arrivals} at epoch {epoch}: {value:.6g}, "
            f"while the best {verdict.quota} go on, down to {cutoff:.6g}"
        )
        return Finished(number, State.PRUNED, "asha", reason, self._detail(epoch, loss, verdict))

    def _finish(self, number: int, state: State, rule: str, reason: str) -> None:
        if not self.trial(number).state.finished:
            self._commit([Finished(number, state, rule, reason)])


def replay(rules: Rules, sampler: Sampler, events: Iterable[Event], record: Callable[[Sequence[Event]], None] = remember_nothing) -> Study:
    """The study that a journal's events describe, ready to go on."""
    study = Study(rules, sampler, record)
    for event in events:
        if isinstance(event, Asked) and sampler.remembers:
            sampler.suggest(event.trial, study.trials)
        study.apply(event)
    return study

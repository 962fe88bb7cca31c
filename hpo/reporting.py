"""What a study's pruning did, rung by rung and ladder by ladder, what it saved and what it cost. Reads, decides nothing."""

from __future__ import annotations

from dataclasses import dataclass

from hpo.advice import advice
from hpo.audit import Audit, Outside, audit, outside
from hpo.events import Finished, Promoted
from hpo.results import StoredStudy
from hpo.specified import rules_of
from hpo.standings import Rung
from hpo.trial import State, Trial

CUT_SHORT = ("asha", "paused", "time", "budget", "timeout")  # rules that cut a trial short; behind all others it had no further epoch


@dataclass(frozen=True, slots=True)
class RungReport:
    """One rung of one competition: trials of one `ladder` (empty: there is one for all) and one bracket, `skipped` rungs above the lowest.

    Of `arrivals` (those that ended before by themselves count, too) `went_on` did, of the `quota` that may; `waiting` wait
    now, and `audited` were trained to their end although they were not among the best.
    """

    ladder: str
    skipped: int
    epoch: int
    arrivals: int
    quota: int
    went_on: int
    waiting: int
    audited: int


@dataclass(frozen=True, slots=True)
class LadderReport:
    """The trials that compete with each other; `best` is the best value of one that did not fail."""

    ladder: str
    trials: int
    promotions: int
    complete: int
    epochs: int
    best: float | None


@dataclass(frozen=True, slots=True)
class Report:
    """A study's pruning. `epochs_unpruned` is what its trials would have taken had none been cut short: what it saved is the difference."""

    study: str
    state: str
    trials: dict[State, int]
    promotions: int
    epochs: int
    epochs_unpruned: int
    rungs: list[RungReport]
    ladders: list[LadderReport]
    audit: Audit
    advice: str


def report(study: StoredStudy) -> Report:
    """What pruning did in `study`, as of the moment when it was opened."""
    events = [record.event for record in study.records]
    found = audit(rules_of(study.spec), events)
    history, left_out = study.study, outside(events)
    cut = {e.trial for e in events if isinstance(e, Finished) and e.rule in CUT_SHORT}
    return Report(
        study=study.name,
        state=study.state,
        trials=study.counts,
        promotions=history.promotions,
        epochs=history.epochs,
        epochs_unpruned=sum(
            history.rules.max_epochs if trial.number in cut or not trial.state.finished else trial.epoch for trial in study.trials
        ),
        rungs=[_rung(study, rung, left_out) for rung in history.standings.all()],
        ladders=[_ladder(study, name) for name in sorted({trial.ladder for trial in study.trials})],
        audit=found,
        advice=advice(history.rules, found, len(study.trials)),
    )


def _rung(study: StoredStudy, rung: Rung, left_out: list[Outside]) -> RungReport:
    ladder, skipped = rung.group
    rules, arrivals = study.study.rules, len(rung.losses)
    quota = arrivals // (rules.reduction_factor or 1)
    audited = sum(stop.audited and stop.epoch == rung.epoch and stop.trial in rung.losses for stop in left_out)
    return RungReport(
        ladder=ladder,
        skipped=skipped,
        epoch=rung.epoch,
        arrivals=arrivals,
        quota=quota if rules.promotes else max(1, quota),
        went_on=rung.arrivals.went_on,
        waiting=len(rung.waiting),
        audited=audited,
    )


def _ladder(study: StoredStudy, name: str) -> LadderReport:
    direction, history = study.study.rules.direction, study.study
    trials = [trial for trial in study.trials if trial.ladder == name]
    sound: list[Trial] = [trial for trial in trials if trial.measurements and trial.state is not State.FAILED]
    numbers = {trial.number for trial in trials}
    return LadderReport(
        ladder=name,
        trials=len(trials),
        promotions=sum(isinstance(r.event, Promoted) and r.event.trial in numbers for r in study.records),
        complete=sum(trial.state is State.COMPLETE for trial in trials),
        epochs=sum(trial.epoch for trial in trials),
        best=direction.loss(min(map(history.loss, sound))) if sound else None,
    )

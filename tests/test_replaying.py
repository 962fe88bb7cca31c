"""A journal's decisions can be made again, and one that was changed is found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpo.engine.assignment import Report
from hpo.events import Asked, Audited, Ended, Event, Finished, Measured, Paused, Promoted, Resumed, from_json, to_json
from hpo.journal import FILE_NAME, Journal
from hpo.journal_format import Record
from hpo.replaying import Replayed, replay_decisions
from hpo.rules import Rules
from hpo.sampling import make_sampler
from hpo.sampling.simple import RandomSampler
from hpo.sections import SamplerChoice
from hpo.session import Session
from hpo.space import Float
from hpo.specified import rules_of, sampler_of
from hpo.stopping import GeneralisationLoss, Patience, ProgressQuotient, Rises, Stopper
from hpo.study import Study
from hpo.trial import Course, Decision, Direction, Measurement, State
from tests import simulated_study
from tests.simulations import any_spec, journaled_and_replayed, simulated, spec

SPACE = {"x": Float(0.0, 1.0)}
RULES = Rules(Direction.MAXIMIZE, max_epochs=9, max_trials=12, stopper=Patience(epochs=3), retries=1)
AT = datetime(2026, 11, 20, tzinfo=UTC)


def measurement(epoch: int, value: float) -> Measurement:
    return Measurement(epoch, value, {"value": value, "val_loss": value, "train_loss": 1 / epoch}, 0.1)


def records(events: list[Event]) -> list[Record]:
    return [Record(seq, AT, from_json(to_json(event))) for seq, event in enumerate(events, start=1)]


def searched(sampler: Any = "random", rules: Rules = RULES) -> list[Event]:
    """The events of a study in which trials end in every way."""
    events: list[Event] = []
    study = Study(rules, make_sampler(SamplerChoice(sampler), SPACE, (), rules), events.extend)
    while (trial := study.ask()) is not None:
        if trial.number == 4:
            study.fail(4, "error", "boom")
        if trial.number == 5:
            study.resume(Resumed("node-1", 1, {}, trials=14))
        epoch = 0
        while not trial.state.finished:
            epoch += 1
            study.report(trial.number, [measurement(epoch, trial.params["x"] + min(epoch, 4) / 10)])
    study.end("budget")
    return events


def again(events: list[Event], sampler: Any = "random", rules: Rules = RULES) -> Replayed:
    return replay_decisions(rules, make_sampler(SamplerChoice(sampler), SPACE, (), rules), records(events))


class Preparing(Session):
    """A session that uses every moment between a result and what follows from it."""

    def take(self, number: int, report: Report) -> Decision:
        decision = super().take(number, report)
        self.prepare()
        return decision


@pytest.mark.parametrize("sampler", ["random", "ladders", "tpe", "cmaes"])
def test_a_study_that_was_prepared_is_the_one_that_was_not_and_is_replayed(
    sampler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    what = simulated_study.spec(f"sampler.name={sampler}", "pruner.rule=promote", "budget.trials=30")
    plain = simulated_study.simulated(tmp_path, "plain", what, slots=3)
    monkeypatch.setattr(simulated_study, "Session", Preparing)
    prepared = simulated_study.simulated(tmp_path, "prepared", what, slots=3)
    assert [record.event for record in prepared.records[1:]] == [record.event for record in plain.records[1:]]
    assert replay_decisions(rules_of(what), sampler_of(what), prepared.records).divergence is None


def test_a_session_prepares_once_for_what_happened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared: list[int] = []
    monkeypatch.setattr(Study, "prepare", lambda study: prepared.append(len(study.trials)))
    with Journal.create(tmp_path / FILE_NAME) as journal:
        session = Session(simulated_study.spec(), simulated_study.TRAINER, tmp_path, journal)
        for call in (session.prepare, session.prepare, session.next, session.prepare, session.prepare):
            call()
    assert prepared == [0, 1]


@pytest.mark.parametrize("sampler", ["random", "qmc", "tpe", "gp", "cmaes"])
def test_every_decision_comes_out_the_same_again(sampler: str) -> None:
    events = searched(sampler)
    found = again(events, sampler)
    assert found.divergence is None
    assert found.suggestions == 14
    assert found.measurements == sum(isinstance(event, Measured) for event in events)
    assert found.ends == 13  # one failed: no decision of the study's
    assert {event.rule for event in events if isinstance(event, Finished)} == {"asha", "patience", "error"}


STOPPERS: list[Stopper] = [
    Patience(epochs=3, metric="val_loss"),
    GeneralisationLoss(threshold=20),
    ProgressQuotient(threshold=0.1, strip=2),
    Rises(strips=1, strip=2),
]


@pytest.mark.parametrize("stopper", STOPPERS, ids=lambda stopper: stopper.name)
def test_every_stopper_decides_the_same_again(stopper: Stopper) -> None:
    rules = replace(RULES, stopper=stopper, reduction_factor=None)
    events = searched(rules=rules)
    found = again(events, rules=rules)
    assert found.divergence is None
    assert {stopper.name, "error"} <= {event.rule for event in events if isinstance(event, Finished)}
    assert again(events, rules=replace(rules, stopper=Patience(epochs=99))).divergence is not None


def test_an_end_in_the_words_of_an_earlier_version_is_the_same_end() -> None:
    events = [
        replace(e, reason=f"no better value in 3 epochs, at epoch {i}") if isinstance(e, Finished) else e for i, e in enumerate(searched())
    ]
    assert again(events).divergence is None


def other_params(event: Asked) -> Asked:
    return replace(event, params={"x": 0.123})


def other_seed(event: Asked) -> Asked:
    return replace(event, seed=event.seed + 1)


def other_state(event: Finished) -> Finished:
    return replace(event, state=State.FAILED)


def other_rule(event: Finished) -> Finished:
    return replace(event, rule="gl")


def other_best(event: Ended) -> Ended:
    return replace(event, best=(event.best or 0) + 1)


@pytest.mark.parametrize(
    ("kind", "change"),
    [(Asked, other_params), (Asked, other_seed), (Finished, other_state), (Finished, other_rule), (Finished, None), (Ended, other_best)],
)
def test_the_first_decision_that_differs_is_named(kind: type[Event], change: Callable[..., Event] | None) -> None:
    events = searched()
    where = next(i for i, event in enumerate(events) if isinstance(event, kind) and i > 5)
    changed = [*events[:where], *([change(events[where])] if change else []), *events[where + 1 :]]
    found = again(changed).divergence
    assert found is not None
    assert found.seq == where + 1
    assert found.journaled != found.recomputed


def test_a_value_that_was_changed_shows_in_what_followed_from_it() -> None:
    events = searched()
    where = next(i for i, event in enumerate(events) if isinstance(event, Finished) and event.rule == "asha") - 1
    event = events[where]
    assert isinstance(event, Measured)
    found = again([*events[:where], replace(event, value=99.0), *events[where + 1 :]]).divergence
    assert found is not None
    assert (found.seq, found.trial, found.recomputed) == (where + 2, event.trial, "it goes on")


@given(st.data())
def test_whatever_happens_to_a_study_replays(data: st.DataObject) -> None:
    events: list[Event] = []
    study = Study(RULES, RandomSampler(SPACE, 0), events.extend)
    for _ in range(data.draw(st.integers(1, 40))):
        running = [t for t in study.trials if not t.state.finished]
        if not running or data.draw(st.booleans()):
            study.ask()
            continue
        trial = data.draw(st.sampled_from(running))
        match data.draw(st.sampled_from(["report", "report", "report", "fail", "retry", "preempted", "resume", "prune"])):
            case "report":
                values = data.draw(st.lists(st.sampled_from([0.1, 0.5, 0.5, 0.9]), min_size=1, max_size=4))
                study.report(trial.number, [measurement(trial.epoch + i, value) for i, value in enumerate(values, start=1)])
            case "fail":
                study.fail(trial.number, data.draw(st.sampled_from(["metric", "error"])), "why")
            case "retry":
                study.retry(trial.number, "died")
            case "preempted":
                study.retry(trial.number, "its node went", counted=False)
            case "resume":
                study.resume(Resumed("node-1", 1, {}))
            case "prune":
                study.prune(trial.number, "timeout", "late")
    assert replay_decisions(RULES, RandomSampler(SPACE, 0), records(events)).divergence is None


@pytest.mark.parametrize("number", range(14))
def test_a_simulated_study_of_any_kind_replays(number: int, tmp_path: Path) -> None:
    what, workers = any_spec(number, most_trials=25)
    if what.sampler.name != "gp":  # among the fifty of test_replay_slow
        assert journaled_and_replayed(what, workers, tmp_path / "study").divergence is None


def other_trial(event: Promoted) -> Promoted:
    return replace(event, trial=event.trial + 1)


def other_course(event: Promoted) -> Promoted:
    return replace(event, course=Course.FINISH if event.course is Course.COMPETES else Course.COMPETES)


def other_rank(event: Paused | Audited) -> Paused | Audited:
    return replace(event, detail={**event.detail, "rank": 99})


@pytest.mark.parametrize(
    ("kind", "change"),
    [(Promoted, other_trial), (Promoted, other_course), (Promoted, None), (Paused, other_rank), (Paused, None), (Audited, other_rank)],
)
def test_a_promotion_pause_or_audit_that_differs_is_named(kind: type[Event], change: Callable[..., Event] | None) -> None:
    what = spec(pruner={"name": "asha", "rule": "promote", "audit": 0.2})
    events = simulated(what).events
    where = next(i for i, event in enumerate(events) if isinstance(event, kind) and i > 20)
    changed = [*events[:where], *([change(events[where])] if change else []), *events[where + 1 :]]
    found = replay_decisions(rules_of(what), sampler_of(what), records(changed)).divergence
    assert found is not None
    assert found.seq == where + 1 if change else found.seq > where  # of one that is missing, what follows from it
    assert found.journaled != found.recomputed

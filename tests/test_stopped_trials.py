"""Trials that their own history ends: in the study, in a worker, on both engines, after a break, and again in a replay."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpo import checkpoints
from hpo.capacity import Capacity
from hpo.engine import local
from hpo.engine.assignment import Assignment
from hpo.engine.worker import TrialRun
from hpo.events import Created, Finished
from hpo.explaining import explain
from hpo.journal import FILE_NAME, Journal
from hpo.journal_format import Record, read
from hpo.plan import plan
from hpo.replaying import replay_decisions
from hpo.results import StoredStudy
from hpo.rules import NoFurther, Rules
from hpo.session import Session
from hpo.spec import Spec, spec_from_dict
from hpo.specified import rules_of, sampler_of
from hpo.stopping import GeneralisationLoss, Patience, ProgressQuotient, Rises, Stopper
from hpo.study import Study
from hpo.trainer import RunningTrial
from hpo.trial import Decision, Direction, Measurement, State, Trial
from tests.test_simulate import Ran, ran
from tests.test_worker import FOREVER, assignment, epochs

HERE = "tests.test_stopped_trials"
CHOICES: dict[str, Mapping[str, object]] = {
    "patience": {"name": "patience", "epochs": 4, "min_improvement": 0.001, "metric": "val_loss"},
    "gl": {"name": "gl", "threshold": 9},
    "pq": {"name": "pq", "threshold": 0.5, "strip": 4},
    "up": {"name": "up", "strips": 2, "strip": 2},
}


def metrics_of(x: float, epoch: int) -> dict[str, float]:
    """Overfits: the loss is lowest at epoch 4, the accuracy highest at 6."""
    return {
        "accuracy": x / 10 + 0.8 - abs(epoch - 6) / 100,
        "val_loss": 0.5 + abs(epoch - 4) * (0.01 + x / 100),
        "train_loss": 1 / (1 + epoch),
    }


def overfitting(trial: RunningTrial, *, x: float) -> Iterator[dict[str, float]]:
    """A trainer of `metrics_of`; goes on from where it was saved."""
    state = trial.restored() or {"epoch": 0}
    for epoch in range(int(state["epoch"]) + 1, trial.max_epochs + 1):
        trial.save(epoch=epoch)
        yield metrics_of(x, epoch)


def curve(at: Assignment, epoch: int) -> Measurement:
    x = at.arguments["x"]
    assert isinstance(x, float)
    metrics = metrics_of(x, epoch)
    return Measurement(epoch, metrics["accuracy"], metrics, 1 + x)


def spec(stopper: Mapping[str, object], pruner: str = "none", trials: int = 6) -> Spec:
    return spec_from_dict(
        {
            "name": "stopped",
            "trainer": {"name": f"{HERE}:overfitting", "settings": {"max_epochs": 40}},
            "objective": {"metric": "accuracy", "direction": "maximize"},
            "space": {"x": {"type": "float", "low": 0.0, "high": 0.9}},
            "sampler": {"name": "random"},
            "pruner": {"name": pruner},
            "stopper": dict(stopper),
            "budget": {"trials": trials},
            "checkpoints": {"keep": 9},
        }
    )


def ends(records: list[Record]) -> list[Finished]:
    return [record.event for record in records if isinstance(record.event, Finished)]


def same_again(what: Spec, records: list[Record]) -> bool:
    sampler = sampler_of(what)
    return replay_decisions(rules_of(what), sampler, records).divergence is None


@pytest.mark.parametrize("name", CHOICES)
def test_on_the_virtual_clock_a_stopped_trial_has_the_value_of_its_best_epoch(name: str) -> None:
    what = spec(CHOICES[name])
    found = ran(what, curve, 2)
    assert [end.rule for end in ends(found.records)] == [name] * 6
    assert all(6 < trial.epoch < 40 and trial.state is State.COMPLETE for trial in found.trials)
    assert all(trial.best(Direction.MAXIMIZE).epoch == 6 for trial in found.trials)  # type: ignore[union-attr]
    assert all("; its value is that of epoch 6, 0.8" in end.reason for end in ends(found.records))
    assert same_again(what, found.records)


@pytest.mark.parametrize("name", CHOICES)
def test_a_worker_ends_a_trial_where_the_study_does(name: str, tmp_path: Path) -> None:
    what = spec(CHOICES[name], trials=2)
    folder = tmp_path / "stopped"
    with Journal.create(folder / FILE_NAME) as journal:
        journal.append([Created("stopped", what.to_dict(), {})])
        session = Session(what, f"{HERE}:overfitting", folder, journal)
        session.end(local.run(session))
    study = StoredStudy.open(folder)
    assert [end.rule for end in ends(study.records)] == [name] * 2
    assert [trial.epoch for trial in study.trials] == [trial.epoch for trial in ran(what, curve, 1).trials]
    for trial in study.trials:
        best = folder / "trials" / f"{trial.number:05}" / "best"
        assert checkpoints.label(best)["epoch"] == 6
        assert checkpoints.load(best)["epoch"] == 6
    assert study.best is not None
    assert study.best.epoch == 6
    assert explain(study, 0).sentence.startswith(f"complete after {study.trials[0].epoch} epochs: {ends(study.records)[0].reason}")
    assert same_again(study.spec, study.records)


@settings(max_examples=15, deadline=None)
@given(name=st.sampled_from(sorted(CHOICES)), cut=st.floats(0, 1), pruner=st.sampled_from(["none", "asha"]))
def test_a_study_goes_on_from_any_byte_to_the_same_ends(name: str, cut: float, pruner: str) -> None:
    what = spec(CHOICES[name], pruner)
    whole = run_of(name, pruner)
    first = whole.content.index(b"\n") + 1
    content = whole.content[: first + round(cut * (len(whole.content) - first))]
    again = ran(what, curve, 2, content)
    assert [(t.state, t.epoch, t.reason) for t in again.trials] == [(t.state, t.epoch, t.reason) for t in whole.trials]
    assert same_again(what, again.records)


@cache
def run_of(name: str, pruner: str) -> Ran:
    return ran(spec(CHOICES[name], pruner), curve, 2)


def test_pruning_and_stopping_go_together() -> None:
    found = run_of("gl", "asha")
    assert {end.rule for end in ends(found.records)} == {"asha", "gl"}
    assert all(trial.epoch < 27 for trial in found.trials)  # the last rung, which no trial waits for


RULES: list[Stopper] = [
    Patience(epochs=2, metric="val_loss"),
    GeneralisationLoss(threshold=10),
    ProgressQuotient(threshold=0.2, strip=2),
    Rises(strips=1, strip=2),
]


def given_curve(trial: RunningTrial, *, curve: str) -> Iterator[dict[str, float]]:
    """Yields the numbers of `curve` as its loss; goes on from where it was saved."""
    state = trial.restored() or {"epoch": 0}
    numbers = [float(number) for number in curve.split()]
    for epoch in range(int(state["epoch"]) + 1, len(numbers) + 1):
        trial.save(epoch=epoch)
        yield {"value": 1.0, "val_loss": numbers[epoch - 1], "train_loss": 1 / epoch}


@settings(max_examples=40, deadline=None)
@given(
    stopper=st.sampled_from(RULES),
    losses=st.lists(st.sampled_from(["0", "0.5", "0.6", "1", "nan", "inf"]), min_size=1, max_size=12),
    died_after=st.integers(1, 12),
)
def test_worker_study_and_a_second_attempt_come_to_the_same_end(
    stopper: Stopper, losses: list[str], died_after: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("trial")
    begun = assignment(folder, f"{HERE}:given_curve", 99, arguments={"curve": " ".join(losses)}, stopper=stopper, checkpoint_every_s=0.0)
    whole = TrialRun(dataclasses.replace(begun, folder=folder / "whole")).advance(FOREVER)
    study = Study(Rules(Direction.MAXIMIZE, 99, 1, reduction_factor=None, stopper=stopper), Once())
    study.ask()
    study.report(0, [Measurement(n, 1.0, {"val_loss": float(v), "train_loss": 1 / n}, 0.1) for n, v in enumerate(losses, start=1)])
    assert study.trials[0].epoch == len(whole.measurements)
    assert whole.ended == (study.trials[0].state is State.RUNNING)
    if died_after < len(whole.measurements):
        TrialRun(dataclasses.replace(begun, rungs=(died_after,))).advance(FOREVER)
        second = TrialRun(dataclasses.replace(begun, attempt=2)).advance(FOREVER)
        assert epochs(second) == epochs(whole)


class Once(NoFurther):
    """Has one point."""

    def suggest(self, number: int, trials: object) -> dict[str, float]:  # type: ignore[override]  # noqa: ARG002
        return {}


@pytest.mark.parametrize(
    ("stopper", "losses", "reason"),
    [
        (
            Patience(metric="val_los"),
            "1 1",
            "epoch 1 reported no val_los (which the stopper watches); it reported value, val_loss, train_loss",
        ),
        (
            ProgressQuotient(training_metric="t"),
            "1",
            "epoch 1 reported no t (which the stopper watches); it reported value, val_loss, train_loss",
        ),
        (GeneralisationLoss(), "1 -0.5", "val_loss was -0.5 at epoch 2; the stopper needs a loss of 0 or more"),
    ],
)
def test_a_trainer_that_yields_nothing_to_watch_fails_its_trial(stopper: Stopper, losses: str, reason: str, tmp_path: Path) -> None:
    report = TrialRun(assignment(tmp_path, f"{HERE}:given_curve", arguments={"curve": losses}, stopper=stopper)).advance(FOREVER)
    assert report.failure is not None
    assert (report.failure.rule, report.failure.reason) == ("metric", reason)


def test_a_journal_of_an_earlier_version_is_read_and_replayed(tmp_path: Path) -> None:
    """Its spec says {name: patience, epochs: 3} and nothing else, and its ends have other words."""
    what = spec({"name": "patience", "epochs": 3})
    plain = what.to_dict() | {"stopper": {"name": "patience", "epochs": 3}}
    found = ran(what, curve, 2)
    path = tmp_path / "old" / FILE_NAME
    with Journal.create(path) as journal:
        for record in found.records:
            event = record.event
            if isinstance(event, Created):
                event = dataclasses.replace(event, spec=plain)
            if isinstance(event, Finished):
                event = dataclasses.replace(event, reason="no better value in 3 epochs, at epoch 9")
            journal.append([event])
    study = StoredStudy.open(path.parent)
    assert [(trial.state, trial.epoch) for trial in study.trials] == [(State.COMPLETE, 9)] * 6
    assert study.spec == what
    assert same_again(study.spec, read(path))


def test_three_thousand_epochs_cost_as_much_each_as_three() -> None:
    """Counted, not timed: what is folded for an epoch does not grow with the epochs before it."""
    rules = Rules(Direction.MINIMIZE, 10**6, 1, reduction_factor=None, stopper=GeneralisationLoss(threshold=1e9))
    study = Study(rules, Once())
    trial = study.ask()
    assert isinstance(trial, Trial)
    trial.measurements = Unread()
    for epoch in range(1, 3001):
        assert study.report(0, [Measurement(epoch, 1 / epoch, {"val_loss": 1.0}, 0.1)]) is Decision.CONTINUE
    assert len(trial.measurements) == 3000
    assert study.loss(trial) == 1 / 3000


class Unread(list[Measurement]):
    """Measurements that may be added to, but not gone through."""

    def __iter__(self) -> Iterator[Measurement]:
        raise AssertionError("an epoch costs as much as there were epochs before it")


@pytest.mark.parametrize(
    ("stopper", "words"),
    [
        ({"name": "none"}, "never"),
        ({"name": "patience"}, "5 epochs without a better value"),
        (CHOICES["patience"], "4 epochs without a lower val_loss (by more than 0.001)"),
        ({"name": "patience", "metric": "f1"}, "5 epochs without a lower f1"),  # nobody says which way it is better
        ({"name": "patience", "metric": "f1", "direction": "maximize"}, "5 epochs without a higher f1"),
        (CHOICES["gl"], "val_loss more than 9 % above its lowest (GL)"),
        (CHOICES["pq"], "GL above 0.5 times the training progress in 4 epochs, from val_loss/train_loss (PQ)"),
        (CHOICES["up"], "val_loss higher than 2 epochs before, 2 times in a row (UP)"),
        ({"name": "up", "strips": 1, "strip": 3}, "val_loss higher than 3 epochs before (UP)"),
    ],
)
def test_a_plan_says_when_trials_stop_early(stopper: Mapping[str, object], words: str) -> None:
    assert plan(spec(stopper), [Capacity(2, 0)]).stopper == words

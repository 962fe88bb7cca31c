"""The finals in a session: time limits, budgets, what was cut off, and what is said of it. In this process, without Ray or MLflow."""

from __future__ import annotations

import io
import json
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any, ClassVar

import pytest
from rich.console import Console

from hpo import events as told
from hpo import rebuilding
from hpo.capacity import Capacity
from hpo.engine import tester
from hpo.engine.assignment import Failure, Report
from hpo.engine.simulate import simulate
from hpo.events import Asked, Chosen, Created, Event, Finished, Measured, Nominated, Resumed, Unsealed
from hpo.home import HomeError
from hpo.journal import FILE_NAME, Journal
from hpo.launching import launch_spec
from hpo.plan import plan
from hpo.results import StoredStudy
from hpo.resuming import resume_study
from hpo.running import conclude
from hpo.session import Session
from hpo.show_choice import why_optimistic
from hpo.spec import Spec
from hpo.trial import FINALS_FROM, Decision, Direction, Measurement, State, trial_seed
from hpo.verifying import _lacking, verify
from hpo.verifying_choice import openings, winning_run
from tests.simulations import spec
from tests.test_resuming import PLAIN, NoShipping
from tests.test_resuming import spec as trained

FINALS: dict[str, object] = {"top": 2, "seeds": 2}
WITH_FINALS = ("budget.trials=14", "finals={top: 2, seeds: 2}")


@pytest.fixture(autouse=True)
def _without_mlflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpo.running.Shipping", NoShipping)


class Run:
    """A session driven by hand: each epoch comes to `value(parameters, seed, epoch)`, or fails the trial where that is no number."""

    def __init__(self, folder: Path, what: Spec, seconds: float = 1.0, *, breaks: bool = False) -> None:
        self.journal = Journal.create(folder / FILE_NAME)
        self.journal.append([Created(folder.name, what.to_dict(), {})])
        self.session = Session(what, "tests.small_trainers:quadratic", folder, self.journal)
        self._seconds, self._breaks = seconds, breaks

    def train(self, most: int = 10**6) -> None:
        """So many epochs, as far as trials are given out."""
        while most > 0 and (given := self.session.next()) is not None:
            for epoch in range(1, given.max_epochs + 1):
                most -= 1
                if self._take(given.number, epoch, float(given.arguments["x"])) is not Decision.CONTINUE or not most:
                    break

    def _take(self, number: int, epoch: int, x: float) -> Decision:
        if self._breaks and number >= FINALS_FROM:
            return self.session.take(number, Report((), failure=Failure("error", "boom")))
        value = x - 1 / epoch + (trial_seed(0, number) % 7) / 100
        return self.session.take(number, Report((Measurement(epoch, value, {"value": value}, self._seconds),)))

    def end(self, reason: str = "budget") -> StoredStudy:
        if reason == "budget":
            conclude(self.session, None)
        self.session.end(reason)
        self.journal.close()
        return StoredStudy.open(self.session.folder)


def search(**more: Any) -> Spec:
    return spec("random", 3, {"trials": 20, **more.pop("budget", {})}, finals=FINALS, pruner={"name": "none"}, **more)


def test_what_a_run_of_the_finals_came_to_in_its_time_is_its_value(tmp_path: Path) -> None:
    """Otherwise the first finalist would be begun again and again, until no epochs are left."""
    run = Run(tmp_path / "s", search(limits={"trial_timeout": "2s"}))
    run.train()
    study = run.end().study
    assert {trial.state for trial in study.trials} == {State.PRUNED}
    assert study.nominated is not None
    assert max(Counter(final.replicates for final in study.finals).values()) <= study.nominated.seeds
    assert {final.state for final in study.finals} == {State.COMPLETE}
    assert study.chosen is not None


def test_a_search_that_its_time_ended_is_so_even_if_no_finals_are_possible(tmp_path: Path) -> None:
    run = Run(tmp_path / "s", search(budget={"time": "1000s"}))
    run.train(6)
    run.session.endings.started -= 800  # 1000 / 1.3 are the search's
    run.train()
    stored = run.end()
    assert stored.study.nominated is None
    assert stored.state == "time"
    assert "10 epochs would do" in why_optimistic(stored)
    assert [check.name for check in verify(stored.folder, ask_mlflow=False) if not check.ok] == []


def test_without_finals_for_want_of_time_that_is_said(tmp_path: Path) -> None:
    run = Run(tmp_path / "s", search(budget={"time": "1000s"}))
    run.train(30)
    run.session.endings.started -= 1001
    assert not run.session.begin_finals("time")
    assert why_optimistic(run.end("time")).endswith("no finals: no time was left for them")


def test_if_every_finalist_fails_the_searchs_best_stays_and_it_is_said_why(tmp_path: Path) -> None:
    run = Run(tmp_path / "s", search(), breaks=True)
    run.train()
    stored = run.end()
    assert stored.study.chosen is None
    assert stored.study.unsealed == []
    assert stored.best is not None
    assert stored.best.run == str(stored.study.best().number)  # type: ignore[union-attr]
    assert why_optimistic(stored).endswith("the finals chose nobody: final-0 is failed: boom")
    assert [check.name for check in verify(stored.folder, ask_mlflow=False) if not check.ok] == []


def test_the_test_split_stays_sealed_where_no_finals_chose(tmp_path: Path) -> None:
    study = launch_spec(trained(), home=tmp_path, local=True)
    small = launch_spec(trained(PLAIN, "quadratic", "finals={top: 2}", "budget.trials=2"), home=tmp_path, local=True)
    assert (study.study.unsealed, small.study.unsealed) == ([], [])
    again = resume_study(small.folder, open_test_again=True, local=True)
    assert [opened.forced for opened in again.study.unsealed] == [True]
    assert "test split" not in {check.name for check in verify(study.folder, ask_mlflow=False)}
    looked = resume_study(study.folder, open_test_again=True, local=True)
    assert "test split" in {check.name for check in verify(looked.folder, ask_mlflow=False)}


def test_another_look_leaves_a_study_ended_as_it_was(tmp_path: Path) -> None:
    run = Run(tmp_path / "s", search(budget={"time": "1000s"}))
    run.train(60)
    run.session.endings.started -= 1001
    assert run.end("time").state == "time"
    with Journal.open(tmp_path / "s" / FILE_NAME) as journal:
        session = Session(search(), "tests.small_trainers:quadratic", tmp_path / "s", journal)
        session.resume(Resumed("host", 1, {}))
        session.end("budget")
    assert StoredStudy.open(tmp_path / "s").state == "time"


def test_more_epochs_without_more_trials_are_refused_with_finals_too(tmp_path: Path) -> None:
    study = launch_spec(trained(PLAIN, "quadratic", *WITH_FINALS), home=tmp_path, local=True)
    assert study.study.finals
    with pytest.raises(HomeError, match="--epochs 999: all of its 14 trials have ended; give --trials, too"):
        resume_study(study.folder, epochs=999, local=True)


def test_what_a_resume_goes_on_with_counts_the_finals(tmp_path: Path) -> None:
    what = trained(PLAIN, "quadratic", *WITH_FINALS)
    folder = tmp_path / "plain"
    with Journal.create(folder / FILE_NAME) as journal:
        journal.append([Created("plain", what.to_dict(), {})])
        session = Session(what, "tests.small_trainers:quadratic", folder, journal)
        while (given := session.next()) is not None and given.number < FINALS_FROM:
            for epoch in range(1, given.max_epochs + 1):
                session.take(given.number, Report((Measurement(epoch, float(given.arguments["x"]), {}, 1.0),)))
        session.end("interrupted")
    console = Console(file=StringIO(), width=200)
    assert resume_study(folder, local=True, console=console).study.chosen is not None
    assert "14 trials ended, 0 go on from their checkpoints, 1 begin again" in console.file.getvalue()  # type: ignore[attr-defined]


def test_the_plan_wants_no_more_runs_than_there_are_configurations() -> None:
    there = [Capacity(2, 0)]
    assert plan(spec("random", 3, {"trials": 2}, finals={"top": 10, "seeds": 2}), there).finals_runs == (2 + 1) * 2
    assert plan(spec("random", 3, {"trials": 50}, finals={"top": 10, "seeds": 2}), there).finals_runs == (10 + 1) * 2


def test_simulated_finals_that_the_time_cuts_off_end_the_study_so() -> None:
    what = spec("random", 9, {"trials": 20, "time": "190s"}, finals=FINALS, pruner={"name": "none"})
    study = simulate(replace(what), lambda params, seed: [float(params["x"]) + seed % 7 / 100] * 9, 1, 0)
    assert study.nominated is not None
    assert study.ended is not None
    assert study.ended.reason == "time"


NEWER = [Nominated("budget", [7], 1, 9), Asked(FINALS_FROM + 1, {}, 0, replicates=7)]


def fresh(run: int, value: float) -> list[Event]:
    return [Measured(run, 1, value, {}, 1.0), Finished(run, State.COMPLETE, "max_epochs", "")]


def test_the_winner_by_the_lines_is_one_of_those_that_were_nominated_last() -> None:
    first = [Nominated("budget", [3], 1, 9), Asked(FINALS_FROM, {}, 0, replicates=3), *fresh(FINALS_FROM, 0.9)]
    assert winning_run(first, Direction.MAXIMIZE) == FINALS_FROM
    assert winning_run([*first, *NEWER, *fresh(FINALS_FROM + 1, 0.8)], Direction.MAXIMIZE) == FINALS_FROM + 1


SCORES = {"accuracy": [0.9, 0.8, 1.0]}
FIRST, LATER = FINALS_FROM, FINALS_FROM + 1
REOPENED = Resumed("host", 1, {}, trials=9)


@pytest.mark.parametrize(
    ("events", "counted", "mistake"),
    [
        ([], "sealed", ""),
        ([Chosen(3, FIRST), Unsealed(FIRST), told.Tested(FIRST, 9, SCORES)], "opened once", ""),
        ([Chosen(3, FIRST), Unsealed(FIRST), Unsealed(FIRST), told.Tested(FIRST, 9, SCORES)], "opened 2 times", ""),  # cut off, and again
        ([Chosen(3, FIRST), Unsealed(FIRST), told.Tested(FIRST)], "opened once, 1 of them without a result", ""),
        ([Unsealed(FIRST)], "opened once", "it was opened for final-0, which no finals had chosen"),
        ([Unsealed(5, forced=True)], "opened once, 1 of them by force", ""),
        ([Chosen(3, FIRST), REOPENED, Unsealed(FIRST)], "opened once", "which no finals had chosen"),
        (
            [Chosen(3, FIRST), Unsealed(FIRST), told.Tested(FIRST, 9, SCORES), Unsealed(FIRST)],
            "opened 2 times",
            "it was opened for final-0 after final-0, and nobody forced that",
        ),
        ([Chosen(3, FIRST), Unsealed(FIRST), REOPENED, Chosen(7, LATER), Unsealed(LATER)], "opened 2 times", "for final-1 after final-0"),
        (
            [Chosen(3, FIRST), Unsealed(FIRST), told.Tested(FIRST), REOPENED, Chosen(7, LATER), Unsealed(LATER)],
            "opened 2 times, 1 of them without a result",
            "",
        ),
        (
            [Chosen(3, FIRST), Unsealed(FIRST), told.Tested(FIRST, 9, SCORES), Unsealed(FIRST, forced=True), told.Tested(FIRST, 9, SCORES)],
            "opened 2 times, 1 of them by force",
            "",
        ),
        ([Chosen(3, FIRST), told.Tested(FIRST, 9, SCORES)], "sealed", "final-0 was tested, and nothing says that it was opened"),
    ],
)
def test_the_openings_that_a_journal_tells_of_are_checked(events: list[Event], counted: str, mistake: str) -> None:
    found, mistakes = openings(events)
    assert found == counted
    assert [mistake in told for told in mistakes] == [True] * bool(mistake)


def test_a_number_far_behind_the_others_is_looked_at_without_counting_up_to_it() -> None:
    assert _lacking({0, 1, 10**9 - 1})[:2] == [2, 3]
    assert _lacking({0, 1, FINALS_FROM, FINALS_FROM + 10**12})[:1] == [FINALS_FROM + 1]
    assert _lacking({0, 1, FINALS_FROM, FINALS_FROM + 1}) == []
    assert _lacking({1}) == [0]


class ScoresOfATest:
    """What a user's `test_scores` may do."""

    answers: ClassVar[dict[str, Any]] = {
        "good": {"accuracy": [1.0, 0.0, 1.0, 1.0]},
        "nothing": None,
        "uneven": {"a": [1.0, 2.0], "b": [1.0]},
        "nan": {"a": [math.nan]},
        "empty": {},
        "named oddly": {("a", "b"): [0.0, 1.0]},
        "text": {"a": ["x"]},
        "huge": {"a": [1e308, 1e308, 0.5]},
        "one": {"a": [0.5]},
    }

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def __call__(self, network: object, *, x: float) -> Any:  # noqa: ARG002  # takes some of the arguments only
        return self.answers[self._kind]


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("good", '"examples": 4, "scores": {"accuracy": [0.75, 0.3'),
        ("one", '"scores": {"a": [0.5]}'),  # of one example nothing is known but its value
        ("named oddly", """"('a', 'b')": [0.5"""),
        ("nothing", "the test failed: AttributeError"),
        ("uneven", "test_scores gave 1 and 2 values; each metric needs one of each example"),
        ("nan", "test_scores gave values that are not finite: a"),
        ("empty", "test_scores gave no values"),
        ("text", "the test failed: ValueError"),
        ("huge", "the test failed: OverflowError"),
    ],
)
def test_whatever_a_trainers_test_scores_give_there_is_an_answer(
    kind: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rebuilding, "offered", lambda *_: ScoresOfATest(kind))
    monkeypatch.setattr(rebuilding, "network", lambda *_: (None, None))
    monkeypatch.setattr(tester, "die_with_parent", lambda: None)
    monkeypatch.setattr("sys.path", list(__import__("sys").path))
    answer = tmp_path / "answer.json"
    request = {"entry": "mine:train", "arguments": {"x": 1, "other": 2}, "checkpoint": "c", "folders": ["/"], "answer": str(answer)}
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(request)))
    tester.main()
    assert words in answer.read_text()


def restricted(*, width: int) -> None:
    """As a trainer's `build` that takes few of the arguments."""


def without_build(trial: object) -> Iterator[dict[str, float]]:
    yield {"value": 0.0}


def with_build(trial: object) -> Iterator[dict[str, float]]:
    yield {"value": 0.0}


with_build.build = restricted  # type: ignore[attr-defined]


def test_a_network_is_built_by_the_trainers_own_function_or_its_modules_from_what_that_takes() -> None:
    arguments = {"width": 3, "depth": 1}
    assert rebuilding.builder(f"{__name__}:without_build", arguments) is None
    found = rebuilding.builder(f"{__name__}:with_build", arguments)
    assert found == rebuilding.Builder(f"{__name__}:with_build.build", {"width": 3})
    assert rebuilding.builder("trainers.mlp:train", arguments) == rebuilding.Builder("trainers.mlp:build", arguments)

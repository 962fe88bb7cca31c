"""Tournaments: whole rounds, paired seeds, equal budgets; what was cut short goes on; mistakes are named before anything starts."""

from __future__ import annotations

import math
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from hpo.contest import SHARES, Contest, of_tournament
from hpo.contest_of_studies import NotComparable, of_studies
from hpo.contest_words import as_plain, sentences, tables
from hpo.home import HomeError
from hpo.preparing import completed, trainer_of
from hpo.problem import SpecError
from hpo.results import StoredStudy
from hpo.sections import Asha
from hpo.spec_difference import differences
from hpo.tournament import Tournament, essence, tournament
from hpo.tournament_rounds import Played, play
from hpo.trajectories import Trajectory, band, middle, trajectory
from hpo.trial import Direction, Measurement, State, Trial, trial_seed
from tests.tournaments import Simulator, task, use


@pytest.fixture
def simulator(monkeypatch: pytest.MonkeyPatch) -> Simulator:
    return use(Simulator(), monkeypatch)


def names(plan: Tournament) -> list[str]:
    return [entry.spec.name for entry in plan.entries]


def test_rounds_are_whole_and_seeds_are_paired(tmp_path: Path) -> None:
    plan = tournament(task(tmp_path), "random, tpe+none,ladders", 3)
    labels = ["random", "tpe-none", "ladders"]
    assert names(plan) == [f"task-{label}-r{repeat}" for repeat in (1, 2, 3) for label in labels]
    assert [entry.spec.seed for entry in plan.entries] == [trial_seed(7, repeat) for repeat in (1, 2, 3) for _ in labels]


def test_more_repeats_add_rounds_and_change_none(tmp_path: Path) -> None:
    few, many = (tournament(task(tmp_path), "random,tpe", repeats) for repeats in (2, 4))
    assert many.entries[: len(few.entries)] == few.entries


def test_arms_differ_in_how_they_search_and_in_nothing_else(tmp_path: Path) -> None:
    """Equal epochs above all; trials are no bound, and no clock ends a slow search."""
    plan = tournament(task(tmp_path, budget={"trials": 3, "epochs": 90, "time": "1m"}), "sweep,grid,random,qmc,tpe,ladders", 1)
    assert {(entry.spec.budget.epochs, entry.spec.budget.time_s) for entry in plan.entries} == {(90, None)}
    assert all(entry.spec.budget.trials >= 90 for entry in plan.entries)
    for first, second in combinations(plan.entries, 2):
        changed = {line.split(".")[0].split("[")[0].split(":")[0] for line in differences(essence(first.spec), essence(second.spec))}
        assert changed <= {"sampler", "pruner", "start", "budget"}
    assert any("budget.time is dropped" in note for note in plan.notes)


@pytest.mark.parametrize(
    ("budget", "asked", "epochs", "why"),
    [
        ({"trials": 20, "epochs": 90}, None, 90, "the file's budget.epochs"),
        ({"trials": 20, "epochs": 90}, 50, 50, "--epochs"),
        ({"trials": 20}, 50, 50, "--epochs"),
        ({"trials": 20}, None, 180, "what the file's own search is expected to take, 20 trials by random"),
    ],
)
def test_the_budget_says_where_it_comes_from(tmp_path: Path, budget: dict[str, int], asked: int | None, epochs: int, why: str) -> None:
    plan = tournament(task(tmp_path, budget=budget, pruner={"name": "none"}), "random,tpe", 1, epochs=asked)
    assert (plan.epochs, plan.reason) == (epochs, why)


@pytest.mark.parametrize(
    ("pruner", "arm", "rule", "factor"),
    [
        (None, "tpe", "stop", 3),
        (None, "ladders", "promote", 4),
        (None, "tpe+promote", "promote", 4),
        (None, "tpe+none", None, None),
        ({"name": "asha", "rule": "stop", "reduction_factor": 2}, "ladders", "promote", 2),
        ({"name": "asha", "rule": "promote"}, "random", "promote", 4),
        ({"name": "asha", "rule": "promote"}, "random+stop", "stop", 3),
        ({"name": "none"}, "ladders", None, None),
        ({"name": "none"}, "ladders+promote", "promote", 4),
        ({"name": "none"}, "random+stop", "stop", 3),
    ],
)
def test_an_arm_prunes_as_it_says_or_as_the_file_does_where_that_suits(
    tmp_path: Path, pruner: dict[str, Any] | None, arm: str, rule: str | None, factor: int | None
) -> None:
    plan = tournament(task(tmp_path, **({"pruner": pruner} if pruner else {})), f"{arm},qmc", 1)
    found = plan.entries[0].spec.pruner
    assert (found.rule, found.reduction_factor) == (rule, factor) if isinstance(found, Asha) else rule is None


def test_a_grid_is_visited_in_an_order_of_its_own_seed_however_large_it_is(tmp_path: Path) -> None:
    plan = tournament(task(tmp_path, start=[{"x": 0.5, "rate": 0.1, "width": 8}]), "grid,random", 2, epochs=9)
    grid, random = plan.entries[0].spec, plan.entries[1].spec
    assert (grid.sampler.shuffle, grid.budget.epochs, grid.budget.trials, grid.start) == (True, 9, 30, ())
    assert len(random.start) == 1
    assert any("the grid leaves the points of `start` out" in note for note in plan.notes)


def test_the_test_split_stays_sealed_and_the_users_model_in_its_place(tmp_path: Path) -> None:
    plan = tournament(task(tmp_path, tracking={"experiment": "mine", "registered_model": "best"}), "random,tpe", 1)
    for entry in plan.entries:
        assert entry.spec.finals is not None
        assert not entry.spec.finals.test
        assert (entry.spec.tracking.experiment, entry.spec.tracking.registered_model) == ("mine", "best-compare")
    without = tournament(task(tmp_path, finals="none"), "random,tpe", 1)
    assert {entry.spec.finals for entry in without.entries} == {None}


@pytest.mark.parametrize(
    ("samplers", "options", "said"),
    [
        ("tpee,random", {}, ["no sampler is called 'tpee'; did you mean `tpe`?"]),
        ("tpe+foo,random", {}, ["'tpe+foo': behind the + stands what happens at a rung: none, stop, promote"]),
        ("tpe,random,tpe", {}, ["tpe stands twice"]),
        ("ladders,auto", {}, ["ladders stands twice"]),
        ("tpe", {}, ["a tournament needs two"]),
        ("", {}, ["a tournament needs two"]),
        ("tpe,tpe+stop", {}, ["--samplers tpe+stop: is the same search as tpe"]),
        ("ladders+stop,tpe", {}, ["--samplers ladders+stop: pruner.rule: the ladders sampler compares"]),
        ("tpe,random", {"repeats": 0}, ["--repeats 0: at least 1 is needed"]),
        ("tpe,random", {"epochs": 8}, ["--epochs 8: 8 epochs (--epochs) train not one trial to its end; at least 9 are needed"]),
        ("tpe,random", {"name": "no/slash"}, ["--name no/slash: name: "]),
        ("tpe,random", {"name": "n" * 60}, ["--samplers random: name: ", "a name is at most 64"]),
        ("tpe,grid", {"overrides": ["space.x.grid=null"]}, ["--samplers grid: space.x: a float has no points of its own"]),
        ("tpee,random", {"overrides": ["sed=1"], "repeats": -1}, ["sed: unknown key", "'tpee'", "--repeats -1"]),
    ],
)
def test_every_mistake_is_named_at_once(tmp_path: Path, samplers: str, options: dict[str, Any], said: list[str]) -> None:
    with pytest.raises(SpecError) as raised:
        tournament(task(tmp_path), samplers, **({"repeats": 2} | options))
    for words in said:
        assert words in str(raised.value)


def test_a_tournament_that_was_cut_short_goes_on_where_it_was(tmp_path: Path, simulator: Simulator) -> None:
    plan = tournament(task(tmp_path), "random,tpe", 2)
    simulator.signals["task-random-r2"] = 15
    first = play(plan, home=tmp_path)
    assert (first.signal, [study.name for study in first.studies]) == (15, names(plan)[:3])
    before = (tmp_path / "task-tpe-r1" / "journal.jsonl").read_bytes()
    again = play(plan, home=tmp_path)
    assert (again.signal, [study.name for study in again.studies]) == (None, names(plan))
    assert (simulator.launched, simulator.resumed) == (names(plan), ["task-random-r2"])
    assert (tmp_path / "task-tpe-r1" / "journal.jsonl").read_bytes() == before
    assert {study.state for study in again.studies} == {"budget"}


def test_a_tournament_that_is_over_runs_nothing_and_further_rounds_alone(tmp_path: Path, simulator: Simulator) -> None:
    play(tournament(task(tmp_path), "random,tpe", 1), home=tmp_path)
    told: list[str] = []
    played = play(tournament(task(tmp_path), "random,tpe", 2), home=tmp_path, tell=told.append)
    assert simulator.launched == ["task-random-r1", "task-tpe-r1", "task-random-r2", "task-tpe-r2"]
    assert len(played.studies) == 4
    assert [line for line in told if "r1" in line] == []


def test_a_study_of_that_name_that_is_another_search_is_in_the_way(tmp_path: Path, simulator: Simulator) -> None:
    play(tournament(task(tmp_path), "random,tpe", 1), home=tmp_path)
    with pytest.raises(HomeError) as raised:
        play(tournament(task(tmp_path), "random,tpe", 2, epochs=45), home=tmp_path)
    for words in ("study task-random-r1 exists already and is another search", "budget.epochs: 90 there, 45 here", "task-tpe-r1", "--name"):
        assert words in str(raised.value)
    assert simulator.launched == ["task-random-r1", "task-tpe-r1"]  # nothing of the second round was begun


def test_where_mlflow_is_makes_no_other_search(tmp_path: Path, simulator: Simulator) -> None:
    play(tournament(task(tmp_path), "random,tpe", 1), home=tmp_path)
    play(tournament(task(tmp_path, tracking={"experiment": "elsewhere"}), "random,tpe", 1), home=tmp_path)
    assert len(simulator.launched) == 2


def contest(tmp_path: Path, samplers: str, repeats: int, **changes: Any) -> tuple[Contest, Tournament, Played]:
    plan = tournament(task(tmp_path, finals="none", **changes), samplers, repeats)
    played = play(plan, home=tmp_path)
    return of_tournament(plan, played.studies), plan, played


def test_the_table_says_what_each_arm_had_when_and_what_it_cost(tmp_path: Path, simulator: Simulator) -> None:
    found, plan, played = contest(tmp_path, "sweep,grid,random,tpe", 3)
    assert [arm.label for arm in found.arms] == ["sweep", "grid", "random", "tpe"]
    studies = {(entry.arm.label, entry.repeat): study for entry, study in zip(plan.entries, played.studies, strict=True)}
    for arm in found.arms:
        for repeat, run in enumerate(arm.runs, start=1):
            study = studies[arm.label, repeat]
            assert run is not None
            assert (run.study, run.epochs, run.trials) == (study.name, study.epochs, len(study.trials))
            assert run.device_s == sum(m.seconds for trial in study.trials for m in trial.measurements)
            arrived = [(at, m.value) for trial in study.trials for at, m in zip(trial.arrived, trial.measurements, strict=True)]
            for share in SHARES:
                assert run.path.at(share * 90) == max(value for at, value in arrived if at <= share * 90)
        medians = [sorted(run.path.at(share * 90) or 0 for run in arm.present)[1] for share in SHARES]
        assert [best.median for best in arm.best if best] == medians
    sweep, grid, random, tpe = found.arms
    assert sweep.points is not None
    assert (sweep.visited, sweep.epochs and sweep.epochs.high < 90) == (1.0, True)  # it has fewer points than the budget pays
    assert (grid.points, grid.visited) == (30, sum(run.trials for run in grid.present) / 90)
    assert (random.points, tpe.visited) == (None, None)
    assert found.on_replicated is None
    assert sweep.reached is not None
    assert sweep.reached.count == 3  # an arm comes to its own last value


def test_a_study_that_found_nothing_is_left_out_and_breaks_nothing(tmp_path: Path, simulator: Simulator) -> None:
    plan = tournament(task(tmp_path, finals="none"), "random,tpe,qmc", 2)
    play(plan, home=tmp_path)
    for name in ("task-tpe-r1", "task-tpe-r2", "task-qmc-r1"):
        journal = tmp_path / name / "journal.jsonl"
        journal.write_bytes(journal.read_bytes().splitlines(keepends=True)[0])
    found = of_tournament(plan, [StoredStudy.open(tmp_path / name) for name in names(plan)])
    assert found.on_values.left_out == ("tpe",)
    assert (found.on_values.arms, found.on_values.repeats) == (("random", "qmc"), 1)
    assert any("without any value" in line and "task-qmc-r1" in line for line in found.remarks)
    assert any("not over" in line for line in found.remarks)
    assert "no value at all: tpe" in sentences(found)
    assert tables(found)[0].rows[1][1] == "none"
    assert as_plain(found)["arms"][1]["best"] == {"0.25": None, "0.5": None, "1": None}


def test_studies_that_exist_are_grouped_by_search_and_paired_by_seed(tmp_path: Path, simulator: Simulator) -> None:
    _, _, played = contest(tmp_path, "random,tpe", 3)
    found = of_studies("old", list(reversed(played.studies)))
    assert [arm.label for arm in found.arms] == ["tpe", "random"]
    for first, second in zip(*(arm.present for arm in found.arms), strict=True):
        assert first.seed == second.seed
    assert (found.epochs, found.rounds, found.on_values.repeats) == (90, 3, 3)


def test_studies_without_common_seeds_are_paired_in_order_and_that_is_said(tmp_path: Path, simulator: Simulator) -> None:
    _, _, played = contest(tmp_path, "random,tpe", 2)
    found = of_studies("old", [played.studies[i] for i in (0, 1, 2)])
    assert [len(arm.present) for arm in found.arms] == [2, 1]
    assert found.on_values.repeats == 1
    assert any("paired in the order" in line for line in found.remarks)


def test_a_grid_that_is_done_does_not_shorten_the_comparison(tmp_path: Path, simulator: Simulator) -> None:
    _, _, played = contest(tmp_path, "sweep,random", 1)
    assert of_studies("old", played.studies).epochs == 90


def test_other_settings_are_allowed_and_said_other_objectives_are_refused(tmp_path: Path, simulator: Simulator) -> None:
    def one(name: str, **changes: Any) -> StoredStudy:
        plan = tournament(task(tmp_path, finals="none", **changes), "random,tpe", 1, name=name)
        return play(plan, home=tmp_path).studies[0]

    short, long = one("short"), one("long", trainer={"name": "simulated", "settings": {"max_epochs": 18}})
    found = of_studies("old", [short, long])
    assert "long-random-r1 is trained otherwise than short-random-r1: trainer.settings.max_epochs: 9 there, 18 here" in found.remarks
    with pytest.raises(NotComparable, match="only studies of one objective"):
        of_studies("old", [short, one("loss", objective={"metric": "value", "direction": "minimize"})])
    with pytest.raises(NotComparable, match="one arm, not two"):
        of_studies("old", [short, one("again", seed=8)])
    with pytest.raises(NotComparable, match="named twice"):
        of_studies("old", [short, short])


@given(st.data())
def test_a_trajectory_is_the_best_value_so_far(data: st.DataObject) -> None:
    direction = data.draw(st.sampled_from(Direction))
    trials = [Trial(number, {}, number, state=data.draw(st.sampled_from([State.COMPLETE, State.FAILED]))) for number in range(4)]
    for at in range(1, data.draw(st.integers(0, 20)) + 1):
        trial = data.draw(st.sampled_from(trials))
        trial.measurements.append(Measurement(len(trial.measurements) + 1, float(data.draw(st.integers(0, 9))), {}, 1.0))
        trial.arrived.append(at)
    found = trajectory(trials, direction)
    sound = [(at, m.value) for t in trials if t.state is State.COMPLETE for at, m in zip(t.arrived, t.measurements, strict=True)]
    for epoch in range(22):
        losses = [direction.loss(value) for at, value in sound if at <= epoch]
        assert found.at(epoch) == (direction.loss(min(losses)) if losses else None)
    for value in range(10):
        whens = [at for at, other in sound if direction.loss(other) <= direction.loss(value)]
        assert found.reached(value) == min(whens, default=None)


@pytest.mark.parametrize(
    ("count", "low", "high"), [(1, 0, 0), (2, 0, 1), (5, 0, 4), (6, 0, 5), (8, 0, 7), (9, 1, 7), (12, 2, 9), (20, 5, 14)]
)
def test_the_interval_of_a_median_holds_it_with_95_percent_or_is_the_whole_range(count: int, low: int, high: int) -> None:
    found = middle([float(i) for i in range(count)])
    assert found is not None
    assert (found.low, found.high, found.of) == (low, high, count)
    if count >= 6:
        cuts = [1 - 2 * stats.binom.cdf(cut - 1, count, 0.5) for cut in (low + 1, low + 2)]
        assert cuts[0] >= 0.95 > cuts[1]


def test_a_value_that_half_never_came_to_has_no_median_epoch() -> None:
    for values, expected in (
        ([1.0, 2.0, math.inf], 2.0),
        ([1.0, math.inf, math.inf], math.inf),
        ([1.0, 3.0, math.inf, math.inf], math.inf),
    ):
        found = middle(values)
        assert found is not None
        assert found.median == expected
    assert middle([]) is None


def test_a_band_begins_where_all_have_a_value_and_keeps_every_step() -> None:
    up = [Trajectory((1, 5), (0.1, 0.9), Direction.MAXIMIZE), Trajectory((3,), (0.5,), Direction.MAXIMIZE)]
    found = band([*up, Trajectory((), (), Direction.MAXIMIZE)], 10)
    at = dict(zip(found.epochs, found.middles, strict=True))
    assert (found.epochs[0], found.epochs[-1]) == (3, 10)
    assert (at[3].median, at[5].median, at[10].low, at[10].high) == (0.3, 0.7, 0.5, 0.9)
    assert band([], 10).epochs == ()


def test_what_is_launched_is_what_is_compared_with_later(tmp_path: Path) -> None:
    """The spec in a study's first line, trainer's defaults filled in, is that of the entry again."""
    for entry in tournament(task(tmp_path), "sweep,grid,tpe", 1).entries:
        once = completed(entry.spec, trainer_of(entry.spec))
        assert completed(once, trainer_of(once)) == once

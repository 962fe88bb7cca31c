"""Recorded curves and what is replayed on them: laws of tables and regrets, the shipped tables, recording, scores."""

from __future__ import annotations

import json
import math
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import curves, record_curves
from benchmarks.curves import Scale, Table
from benchmarks.record_curves import Protocol, Training
from benchmarks.search_quality import page, progress, scores
from benchmarks.search_quality.__main__ import DOCUMENT, main
from benchmarks.search_quality.emulated import Emulation, NoRule, RayAsha
from benchmarks.search_quality.progress import Epoch, Progress
from benchmarks.search_quality.running import Job, Outcome, place
from hpo.space import Float, Int
from hpo.spec import load_spec
from hpo.trainer import MetricError, Metrics, RunningTrial
from hpo.trial import Direction

SPACE = {"rate": Float(1e-4, 1e-1, log=True), "share": Float(0.0, 0.8), "width": Int(8, 128, log=True)}
SHIPPED = {"fashion": (400, 27, 4), "imdb": (200, 15, 5)}


def table(values: Any, direction: Direction = Direction.MAXIMIZE, repeats: Any = None) -> Table:
    """A task of one parameter, its configurations evenly spaced."""
    made = np.array(values, dtype=np.float64)
    unit = np.linspace(0, 1, len(made))[:, None]
    return Table("task", {"x": Float(0.0, 1.0)}, unit, made, direction, repeats or {})


@pytest.mark.parametrize(("name", "expected"), SHIPPED.items())
def test_the_shipped_tables_hold_what_they_promise(name: str, expected: tuple[int, int, int]) -> None:
    file = curves.OWN / f"{name}.npz"
    (found,) = curves.load(file)
    rows, epochs, knobs = expected
    assert len(found.curves) >= rows
    assert (found.max_epochs, len(found.space)) == (epochs, knobs)
    assert len(found.repeats) >= 50
    assert all(len(runs) == 1 for runs in found.repeats.values())
    assert file.stat().st_size < 500_000
    assert np.nanmin(found.curves) >= 0
    assert np.nanmax(found.curves) <= 1
    assert found.seconds is not None
    assert (found.seconds > 0).all()
    assert 0 < Scale.of(found).best - Scale.of(found).median < 1


@pytest.mark.parametrize("name", SHIPPED)
def test_the_shipped_tables_are_of_the_spaces_they_name(name: str) -> None:
    (found,) = curves.load(curves.OWN / f"{name}.npz")
    wanted = load_spec(record_curves.PROTOCOLS[name].spec).space
    assert curves.plain_space(found.space) == curves.plain_space(wanted)


@pytest.mark.parametrize("name", SHIPPED)
def test_the_nearest_of_a_row_is_itself(name: str) -> None:
    (found,) = curves.load(curves.OWN / f"{name}.npz")
    rows = range(0, len(found.curves), 7)
    assert [found.nearest(found.params(row)) for row in rows] == list(rows)


@given(st.tuples(*[st.floats(0, 1)] * 3))
def test_a_point_of_the_cube_comes_back(unit: tuple[float, float, float]) -> None:
    made = Table("task", SPACE, np.array([unit]), np.zeros((1, 1)))
    back = curves.unit_point(SPACE, made.params(0))
    assert back[:2] == pytest.approx(unit[:2], abs=1e-9)
    assert back[2] == pytest.approx(unit[2], abs=math.log(8.5 / 8) / math.log(16))  # a whole number is at most half of one away


finite = st.floats(-1e6, 1e6).map(lambda value: round(value, 3))
anything = st.one_of(finite, st.sampled_from([math.nan, math.inf, 1e34, -1e34]))


@given(st.lists(st.lists(anything, min_size=3, max_size=3), min_size=3, max_size=9), st.sampled_from(Direction))
def test_regret_is_0_at_the_best_1_at_the_median_and_falls_between(rows: list[list[float]], direction: Direction) -> None:
    made = table(rows, direction)
    if not math.isfinite(made.median) or made.best == made.median:
        with pytest.raises(ValueError, match="no regret"):
            Scale.of(made)
        return
    scale = Scale.of(made)
    assert scale.regret(made.best) == 0
    assert scale.regret(made.median) == 1
    assert scale.regret(math.nan) == 1
    values = sorted((v for v in made.curves.ravel() if math.isfinite(v)), key=direction.loss)
    regrets = [scale.regret(v) for v in values]
    assert regrets == sorted(regrets)
    assert 0 <= regrets[0] <= regrets[-1] <= 1


def test_a_failed_epoch_is_the_worst_value_of_its_table() -> None:
    made = table([[0.1, math.nan], [0.9, math.nan], [0.2, 0.3], [0.2, 0.5], [0.2, 0.6]])
    assert (made.best, made.median) == (0.9, 0.3)
    assert math.isnan(made.curve({"x": 0.01})[1])


def test_the_seed_draws_among_the_trainings_of_a_row() -> None:
    made = table([[1.0], [2.0]], repeats={1: [np.array([3.0])]})
    assert [made.curve({"x": 0.9}, seed)[0] for seed in range(4)] == [2.0, 3.0, 2.0, 3.0]
    assert [made.curve({"x": 0.1}, seed)[0] for seed in range(2)] == [1.0, 1.0]
    assert made.best == 3.0


def test_a_table_of_others_says_its_ranges_or_they_are_guessed(tmp_path: Path) -> None:
    hp = np.array([[1e-4, 3, 0.2], [1e-1, 40, 0.9]])
    values = np.array([[[1.0, 2.0], [3.0, math.nan]], [[1e34, 5.0], [6.0, 7.0]]])
    names = np.array(["rate", "units", "share"])
    np.savez(tmp_path / "a.npz", hp=hp, hp_names=names, values=values, direction=np.array("minimize"), tasks=np.array(["a", "b"]))
    first, second = curves.load(tmp_path / "a.npz")
    assert first.space == {"rate": Float(1e-4, 1e-1, log=True), "units": Int(3, 40), "share": Float(0.2, 0.9)}
    assert (first.task, second.task, first.direction) == ("a", "b", Direction.MINIMIZE)
    assert second.curve({"rate": 2e-4, "units": 4, "share": 0.3}) == [1e34, 5.0]
    ranges = {"hp_low": [1e-5, 1, 0], "hp_high": [1, 50, 1], "hp_log": [True, True, False], "hp_int": [False, True, False]}
    np.savez(tmp_path / "b.npz", hp=hp, hp_names=names, values=values, **{key: np.array(column) for key, column in ranges.items()})
    said = curves.load(tmp_path / "b.npz")[0].space
    assert said == {"rate": Float(1e-5, 1.0, log=True), "units": Int(1, 50, log=True), "share": Float(0.0, 1.0)}


def test_a_file_that_is_no_table_is_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "c.npz", a=np.zeros(3))
    with pytest.raises(ValueError, match=r"c\.npz: found a; a table of curves has hp"):
        curves.load(tmp_path / "c.npz")


PROTOCOL = Protocol(spec="search_spaces/digits.yaml", train_size=100, val_size=100, configurations=3, repeated=2)


def trainer(trial: RunningTrial, *, learning_rate: float, **_: Any) -> Generator[Metrics, None, None]:
    """Diverges after its second epoch where the rate is high."""
    trained.append(trial.seed)
    for epoch in range(1, trial.max_epochs + 1):
        if learning_rate > 0.003 and epoch == 3:
            raise MetricError("diverged")
        yield {"val_accuracy": epoch / 100, "val_loss": 1 / epoch}


trained: list[int] = []


def test_a_recording_goes_on_where_it_was_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_curves, "trainer_of", lambda _: trainer)
    trained.clear()
    spec, file = load_spec(PROTOCOL.spec), tmp_path / "digits.jsonl"
    some = record_curves.record(spec, PROTOCOL, file)
    next(some), next(some)
    some.close()
    with file.open("a") as torn:
        torn.write('{"configuration": 2, "se')
    found = list(record_curves.record(spec, PROTOCOL, file))
    assert [(r.configuration, r.seed) for r in found] == [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1)]
    assert trained == [Training(r.configuration, r.seed).trial_seed for r in found]  # each once
    assert list(record_curves.record(spec, PROTOCOL, file)) == found
    assert len(trained) == 5

    np.savez(tmp_path / "digits.npz", **record_curves.columns(found, spec, PROTOCOL))
    (made,) = curves.load(tmp_path / "digits.npz")
    for r in found[:3]:
        assert made.nearest(r.params) == r.configuration
        ends = 2 if r.params["learning_rate"] > 0.003 else 27  # type: ignore[operator]
        assert made.curves[r.configuration, :ends].tolist() == [epoch / 100 for epoch in range(1, ends + 1)]
        assert np.isnan(made.curves[r.configuration, ends:]).all()
    assert {len(r.val_accuracy) for r in found} == {2, 27}
    assert sorted(made.repeats) == [0, 1]


def test_a_recording_of_another_space_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_curves, "trainer_of", lambda _: trainer)
    file = tmp_path / "digits.jsonl"
    list(record_curves.record(load_spec(PROTOCOL.spec), PROTOCOL, file))
    changed = load_spec(PROTOCOL.spec, overrides=["space.dropout.high=0.5"])
    with pytest.raises(ValueError, match=r"digits\.jsonl: configuration 0 is .*; remove the file"):
        list(record_curves.record(changed, PROTOCOL, file))


def test_the_real_trainer_is_recorded(tmp_path: Path) -> None:
    spec = load_spec(PROTOCOL.spec, overrides=["trainer.settings.max_epochs=1"])
    found = list(record_curves.record(spec, replace(PROTOCOL, configurations=1, repeated=1), tmp_path / "d.jsonl"))
    assert [len(r.val_accuracy) for r in found] == [1, 1]
    assert all(r.seconds > 0 for r in found)
    assert found[0].val_loss != found[1].val_loss  # another seed


def test_more_configurations_begin_with_the_same_ones() -> None:
    spec = load_spec(PROTOCOL.spec)
    assert record_curves.configurations(spec, 40)[:9] == record_curves.configurations(spec, 9)


EPOCHS = [Epoch(1, 0, 1, 0.3), Epoch(2, 0, 2, math.nan), Epoch(1, 1, 1, 0.5), Epoch(2, 1, 2, 0.4), Epoch(3, 2, 1, 1e34 * -1)]


def test_progress_counts_every_epoch_in_order_of_its_end() -> None:
    found = Progress.of(reversed(EPOCHS), Direction.MAXIMIZE, 2)
    assert found.seen == ((1, 0.3), (2, 0.5))
    assert found.full == ((4, 0.4),)
    assert (found.epochs, found.trials) == (5, 3)
    assert math.isnan(progress.value_at(found.full, 3))
    assert progress.value_at(found.full, 4) == 0.4
    assert progress.epochs_to(found.seen, Direction.MAXIMIZE, 0.4) == 2
    assert progress.epochs_to(found.seen, Direction.MAXIMIZE, 0.6) == math.inf
    assert Progress.from_plain(json.loads(json.dumps({"seen": found.seen, "full": found.full, "epochs": 5, "trials": 3}))) == found


@pytest.mark.parametrize(
    ("before", "reward", "stops"),
    [
        ([], 0.1, False),  # nobody to lose against
        ([0.9], 0.8, True),
        ([0.9], 0.9, False),  # not below the quantile
        ([0.0, 0.1, 0.2, 0.3, 0.4], 0.3, False),  # the quantile itself
        ([0.0, 0.1, 0.2, 0.3, 0.4], 0.29, True),
    ],
)
def test_rays_rule_stops_what_is_below_the_quantile_of_those_before(before: list[float], reward: float, stops: bool) -> None:
    optuna = pytest.importorskip("optuna")
    study = optuna.create_study(direction="maximize")
    rule = RayAsha(Direction.MAXIMIZE, 27)
    for value in before:
        rule.stops(study.ask(), 4, value)
    trial = study.ask()
    assert rule.stops(trial, 4, reward) is stops
    assert study.trials[trial.number].intermediate_values == ({} if stops else {4: reward})  # the report that stops never arrives
    assert not rule.stops(study.ask(), 5, -1.0)  # no rung


def test_the_emulation_trains_as_many_at_a_time_as_there_are_workers_and_fails_what_is_not_finite() -> None:
    optuna = pytest.importorskip("optuna")
    made = table([[0.1, 0.2, 0.3], [0.2, math.nan, 0.4]])
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=1))
    done = Emulation(made, study, NoRule(), workers=3, pending=1).run(60)
    assert len(done) == 60
    by_time: dict[float, int] = {}
    for epoch in done:
        by_time[epoch.at] = by_time.get(epoch.at, 0) + 1
    assert set(by_time.values()) == {3}
    for trial in study.get_trials(states=[optuna.trial.TrialState.COMPLETE]):
        assert trial.value == 0.3
    failed = [trial for trial in study.trials if trial.state.name == "FAIL"]
    assert failed
    assert all(trial.params["x"] > 0.5 for trial in failed)


def _scores(regrets: Any) -> Any:
    return np.array(regrets)[:, :, None, None]  # [arm, task, seed, budget]


def test_ranks_and_the_worst_task() -> None:
    found = _scores([[0.1, 0.2, 0.3], [0.2, 0.1, 0.3], [0.4, 0.4, 0.6]])
    assert scores.mean_ranks(found)[:, 0].tolist() == pytest.approx([1.5, 1.5, 3])
    ratio, where = scores.worst_ratio(found, 0, 1)
    assert (ratio.tolist(), where) == ([2.0], [1])


def test_no_difference_is_no_evidence_and_a_constant_one_is() -> None:
    tasks = np.linspace(0.1, 0.4, 12)
    found = _scores([tasks, tasks, tasks + 0.1 + tasks**2])
    holm = scores.wilcoxon_holm(found, 0, 0)
    assert math.isnan(holm[0])
    assert holm[1] == 1
    assert holm[2] == pytest.approx(2 * 2 / 2**12)  # exact two-sided p of 12 wins, times two comparisons
    assert scores.friedman(found, 0) < 0.001
    assert scores.nemenyi(found, 0)[0].tolist() == pytest.approx([1, 1, scores.nemenyi(found, 0)[2, 0]])
    assert scores.nemenyi(found, 0)[0, 2] < 0.01


def test_equal_ranks_are_neither_better_nor_worse() -> None:
    regrets = np.repeat(_scores([[0.1, 0.2], [0.1, 0.2], [0.3, 0.3]]), len(scores.BUDGETS), axis=-1)
    found = scores.Scores(("ours", "random", "gp"), ("a", "b"), regrets, regrets, regrets[..., 0])
    rows = page.tests(found, {"random": "random", "gp": "GP"}).splitlines()[2:]
    assert [row.split(" | ")[1].split(",")[0] for row in rows] == ["level", "better"]


@pytest.mark.parametrize("words", [["--seeds", "0"], ["--workers", "4", "0"], ["--workers", "x"], ["--processes", "-1"]])
def test_the_command_wants_at_least_one_of_each(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["search_quality", *words])
    with pytest.raises(SystemExit):
        main()
    assert "a whole number of at least 1 is needed" in capsys.readouterr().err


def test_a_table_that_cannot_be_scored_is_refused_before_anything_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "flat.npz"
    np.savez(file, hp=np.array([[0.0], [1.0]]), hp_names=np.array(["x"]), values=np.ones((1, 2, 3)))
    monkeypatch.setattr("sys.argv", ["search_quality", "--curves", str(file), "--out", str(tmp_path / "out")])
    with pytest.raises(ValueError, match="no regret can be measured on this table"):
        main()
    assert not (tmp_path / "out").exists()


def test_a_number_of_workers_for_which_no_arm_is_left_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "small.npz"
    np.savez(file, hp=np.array([[0.0], [0.5], [1.0]]), hp_names=np.array(["x"]), values=np.array([[[0.1], [0.2], [0.3]]]))
    ran: list[Job] = []

    def run(jobs: list[Job], *_: object) -> dict[Job, Outcome]:
        ran.extend(jobs)
        return {job: Outcome(Progress(((1, 0.2),), (), 1, 1), 0.1) for job in jobs}

    monkeypatch.setattr("benchmarks.search_quality.__main__.run", run)
    words = ["--curves", str(file), "--seeds", "1", "--workers", "4", "16", "--arms", "gp"]
    monkeypatch.setattr("sys.argv", ["search_quality", *words])
    main()
    assert [(job.arm, job.workers) for job in ran] == [("gp", 4)]


def test_a_changed_table_has_other_outcomes(tmp_path: Path) -> None:
    files = []
    for value in (0.5, 0.6):
        file = tmp_path / f"{value}" / "t.npz"
        file.parent.mkdir()
        np.savez(file, hp=np.array([[0.0], [1.0]]), hp_names=np.array(["x"]), values=np.array([[[value], [0.9]]]))
        files.append(place(Job(str(file), 0, "random", 4, 0), tmp_path))
    assert files[0].name == files[1].name
    assert files[0] != files[1]


def test_the_document_has_a_place_for_every_table() -> None:
    text = (Path(__file__).parent.parent / DOCUMENT).read_text(encoding="utf-8")
    wanted = ["arms", *(f"{what}-{workers}" for what in ("regret", "ratio", "full", "rank", "test", "speed") for workers in (4, 16, 64))]
    assert [name for name in wanted if f"<!-- {name} -->" not in text] == []
    assert text.count("<!-- end -->") == len(wanted)

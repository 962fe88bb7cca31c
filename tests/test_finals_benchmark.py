"""What the finals are worth on recorded curves: the figures promised, and that no truth is made of runs that a study saw."""

from __future__ import annotations

import math
import statistics
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import curves, finals, record_curves
from benchmarks.curves import Table
from benchmarks.finals_simulated import (
    NONE,
    STOP,
    TABLES,
    Interval,
    Recorded,
    Setting,
    gained,
    outcomes,
    overstated,
    overstated_without,
    simulated,
)
from hpo.finals import SHARE
from hpo.space import Float
from hpo.trial import State

SHIPPED = ("digits", "fashion")
RUNS = 7


def shipped(name: str) -> Table:
    (found,) = curves.load(TABLES / f"{name}.npz")
    return found


def made_up(rows: int, epochs: int, runs: int, seed: int = 0) -> Table:
    """A task whose every value is another one, so that a curve tells whose it is."""
    every = np.random.default_rng(seed).random((runs, rows, epochs))
    repeats = {row: [every[run, row] for run in range(1, runs)] for row in range(rows)}
    return Table("made-up", {"x": Float(0.0, 1.0)}, np.linspace(0, 1, rows)[:, None], every[0], repeats=repeats)


@pytest.mark.parametrize("name", SHIPPED)
def test_at_100_trials_the_finals_overstate_by_at_most_0_7_points_and_choose_no_worse(name: str) -> None:
    found = outcomes(shipped(name), Setting(top=5, seeds=2, trials=100), 40)
    assert all(o.runs >= 5 for o in found)
    without, (after, error) = overstated_without(found)[0], overstated(found)
    assert after <= 0.7
    assert after + 4 * error < without
    better, error = gained(found)
    assert better > -2 * error


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 1000),
    setting=st.sampled_from([Setting(5, 2, 30), Setting(3, 2, 20, pruner=STOP), Setting(2, 3, epochs=120, pruner=STOP), Setting(3, 2, 12)]),
)
def test_the_truth_is_made_of_runs_that_the_study_never_saw(seed: int, setting: Setting) -> None:
    task = made_up(rows=40, epochs=9, runs=5, seed=seed)
    study, runs = simulated(task, setting, seed)
    whose = {float(value): (row, run) for row in range(40) for run, curve in enumerate(_runs(task, row)) for value in curve}
    assert len(whose) == 40 * 5 * 9
    given_out = [(trial, {whose[m.value] for m in trial.measurements}) for trial in (*study.trials, *study.finals) if trial.measurements]
    assert len(given_out) > len(study.finals) > 0
    seen: set[tuple[int, int]] = set()
    for trial, of in given_out:
        ((row, run),) = of  # one run of one row, from its first epoch to its last
        assert row == trial.params["row"]
        assert (row, run) not in seen
        seen.add((row, run))
    for row in {row for row, _ in seen}:
        unseen = [run for run in range(5) if (row, run) not in seen]
        value, size = runs.truth(row)
        assert set(unseen) >= set(runs.unseen(row))
        assert size == len(runs.unseen(row)) > 0
        assert value == pytest.approx(statistics.fmean(max(_runs(task, row)[run]) for run in runs.unseen(row)))


def _runs(task: Table, row: int) -> list[curves.Array]:
    return [task.curves[row], *task.repeats[row]]


def test_a_study_that_has_seen_every_run_is_given_no_further_one() -> None:
    runs = Recorded(made_up(rows=1, epochs=1, runs=2), 0)
    first, second = runs.curve({"row": 0}, 0), runs.curve({"row": 0}, 1)
    assert first != second
    with pytest.raises(LookupError, match="has 2 runs"):
        runs.curve({"row": 0}, 2)


def test_a_run_that_diverged_counts_as_far_as_it_came() -> None:
    task = made_up(rows=1, epochs=3, runs=3)
    task.repeats[0][0][:] = math.nan
    task.repeats[0][1][1:] = math.nan
    task.curves[0, 2] = math.nan
    value, size = Recorded(task, 0).truth(0)
    assert size == 2
    assert value == pytest.approx((max(task.curves[0, :2]) + task.repeats[0][1][0]) / 2)


@pytest.mark.parametrize(
    ("interval", "covers", "covers_a_mean"),
    [
        (Interval(1.0, 0.9, 2, 4), True, True),
        (Interval(1.0, 1.2, 2, 4), False, True),
        (Interval(1.0, 1.3, 2, 4), False, False),
        (Interval(1.0, 1.3, 2, 2), False, True),
    ],
)
def test_an_interval_is_checked_against_a_truth_that_is_a_mean_itself(interval: Interval, covers: bool, covers_a_mean: bool) -> None:
    assert (interval.covers, interval.covers_a_mean) == (covers, covers_a_mean)


@pytest.mark.parametrize("max_epochs", [9, 16, 27])
def test_under_the_share_fit_as_many_runs_as_the_small_searches_say(max_epochs: int) -> None:
    task = made_up(rows=200, epochs=max_epochs, runs=5)
    every = finals.settings_of_few(max_epochs)
    assert len(every) == 9
    for (fits, *_), setting in every.items():
        study, _ = simulated(task, setting, 0)
        assert study.nominated is not None
        assert study.nominated.epochs // max_epochs == int(fits)
        assert sum(run.state is State.COMPLETE for run in study.finals) <= int(fits)
        assert sum(run.epoch for run in study.finals) <= SHARE * study.epochs


@pytest.mark.parametrize("name", SHIPPED)
def test_the_shipped_tables_have_every_configuration_with_all_its_seeds(name: str) -> None:
    found, protocol = shipped(name), record_curves.PROTOCOLS[f"seeds/{name}"]
    assert found.curves.shape == (protocol.configurations, protocol.max_epochs)
    assert protocol.repeats + 1 == RUNS
    assert {len(found.repeats[row]) for row in range(protocol.configurations)} == {protocol.repeats}
    assert curves.plain_space(found.space) == curves.plain_space(protocol.load().space)
    assert (TABLES / f"{name}.npz").stat().st_size < 500_000
    assert all(not np.array_equal(found.curves[row], found.repeats[row][0]) for row in range(0, 320, 40))


def test_further_seeds_are_recorded_one_after_the_other_and_no_two_trainings_share_one() -> None:
    protocol = record_curves.Protocol(spec="s", train_size=1, val_size=1, configurations=3, repeated=2, repeats=2)
    every = record_curves.trainings(protocol)
    assert [(one.configuration, one.seed) for one in every] == [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (0, 2), (1, 2)]
    assert len({one.trial_seed for one in every}) == len(every)


def test_the_document_has_a_row_for_every_setting() -> None:
    text = finals.DOCUMENT.read_text(encoding="utf-8")
    for name in SHIPPED:
        of_task = (line.split("|") for line in text.splitlines() if line.startswith(f"| {name} |"))
        rows = [[cell.strip() for cell in cells[2:5]] for cells in of_task if "±" in cells[5]]
        wanted = [*finals.settings_of_finals(), *finals.settings_of_few(shipped(name).max_epochs)]
        assert rows == [list(key) for key in wanted]


def test_a_document_without_a_place_for_a_table_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(finals, "DOCUMENT", tmp_path / "d.md")
    finals.DOCUMENT.write_text("<!-- few -->\nold\n<!-- end -->\n<!-- other -->\nkept\n<!-- end -->\n")
    finals.write({"few": r"| \1 new |"})
    assert finals.DOCUMENT.read_text() == "<!-- few -->\n| \\1 new |\n<!-- end -->\n<!-- other -->\nkept\n<!-- end -->\n"
    with pytest.raises(ValueError, match="no place for many"):
        finals.write({"many": ""})


def test_pruned_and_unpruned_searches_are_told_apart() -> None:
    task = made_up(rows=30, epochs=9, runs=5)
    full, _ = simulated(task, Setting(3, 2, 30, pruner=NONE), 0)
    pruned, _ = simulated(task, Setting(3, 2, 30, pruner=STOP), 0)
    assert full.epochs == 30 * 9 > pruned.epochs
    assert [trial.params for trial in full.trials] == [trial.params for trial in pruned.trials]

"""One trial, driven epoch by epoch."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest

from hpo import checkpoints
from hpo.engine.assignment import Assignment, Report
from hpo.engine.worker import TrialRun
from hpo.trial import Direction

FOREVER = 1e9


def assignment(folder: Path, entry: str, max_epochs: int = 9, **changes: object) -> Assignment:
    plain = Assignment(
        number=0,
        seed=1,
        entry=f"tests.small_trainers:{entry}",
        arguments={"x": 0.5},
        folder=folder / "00000",
        metric="value",
        direction=Direction.MAXIMIZE,
        max_epochs=max_epochs,
    )
    return dataclasses.replace(plain, **changes)


def epochs(report: Report) -> list[int]:
    return [m.epoch for m in report.measurements]


def test_a_worker_hands_back_at_every_rung_and_at_the_end(tmp_path: Path) -> None:
    run = TrialRun(assignment(tmp_path, "quadratic", rungs=(1, 3)))
    assert [epochs(run.advance(FOREVER)) for _ in range(3)] == [[1], [2, 3], [4, 5, 6, 7, 8, 9]]


def test_a_worker_hands_back_when_its_slice_is_over_but_never_without_an_epoch(tmp_path: Path) -> None:
    run = TrialRun(assignment(tmp_path, "quadratic"))
    assert [epochs(run.advance(0.0)) for _ in range(3)] == [[1], [2], [3]]


def test_a_worker_hands_back_when_its_patience_is_over(tmp_path: Path) -> None:
    run = TrialRun(assignment(tmp_path, "mixed", max_epochs=50, patience=2, direction=Direction.MINIMIZE))
    assert epochs(run.advance(FOREVER)) == [1, 2, 3]  # the value only rises


@pytest.mark.parametrize(
    ("kind", "rule", "reason"),
    [
        ("text", "metric", "value was str '0.9' at epoch 2; metrics are numbers"),
        ("bool", "metric", "value was bool True at epoch 2; metrics are numbers"),
        ("nothing", "metric", "epoch 2 yielded NoneType; yield a mapping of metric names to numbers"),
        ("missing", "metric", "epoch 2 reported no value (the objective); it reported loss"),
        ("infinite", "metric", "value was inf at epoch 2"),
        ("array", "metric", "value was ndarray array([0., 0.]) at epoch 2; metrics are numbers"),
        ("huge", "metric", "value was a number too large to hold at epoch 2"),
        ("exit", "error", "SystemExit: 3 at small_trainers.py:"),
        ("reserved", "error", "trial.save: the name 'hpo' is taken; choose another"),
    ],
)
def test_nonsense_fails_the_trial_with_its_reason_and_keeps_what_was_measured(tmp_path: Path, kind: str, rule: str, reason: str) -> None:
    report = TrialRun(assignment(tmp_path, "misbehaving", arguments={"x": 0.5, "kind": kind})).advance(FOREVER)
    assert epochs(report) == [1]
    assert report.failure is not None
    assert report.failure.rule == rule
    assert report.failure.reason.startswith(reason)


def test_an_exception_names_its_place_and_leaves_its_traceback(tmp_path: Path) -> None:
    report = TrialRun(assignment(tmp_path, "mixed", arguments={"x": 0.5, "kind": "raising"})).advance(FOREVER)
    log = tmp_path / "00000" / "error.log"
    assert report.failure.reason.startswith("RuntimeError: boom at small_trainers.py:")
    assert report.failure.reason.endswith(f"(see {log})")
    assert 'raise RuntimeError("boom")' in log.read_text()


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (
            "tests.small_trainers:missing",
            "no trainer at tests.small_trainers:missing: module 'tests.small_trainers' has no attribute 'missing'",
        ),
        ("tests.no_such_module:train", "no trainer at tests.no_such_module:train: No module named 'tests.no_such_module'"),
        ("tests.small_trainers:no_generator", "is no generator function: it must yield metrics after every epoch"),
    ],
)
def test_a_trainer_that_is_none_fails_the_trial(tmp_path: Path, entry: str, reason: str) -> None:
    report = TrialRun(dataclasses.replace(assignment(tmp_path, "x"), entry=entry)).advance(FOREVER)
    assert reason in report.failure.reason


def test_a_reason_is_one_line_that_a_terminal_survives(tmp_path: Path) -> None:
    report = TrialRun(assignment(tmp_path, "verbose")).advance(FOREVER)
    assert report.failure.reason.startswith("ValueError: first second [31mred " + "x" * 10)
    assert len(report.failure.reason) < 450
    assert report.failure.reason.isprintable()


@pytest.mark.parametrize("entry", ["unspeakable", "beyond"])
def test_whatever_is_raised_fails_the_trial_alone(tmp_path: Path, entry: str) -> None:
    assert TrialRun(assignment(tmp_path, entry)).advance(FOREVER).failure.rule == "error"


def test_a_scalar_array_is_a_number_and_an_extra_metric_may_be_nan(tmp_path: Path) -> None:
    report = TrialRun(assignment(tmp_path, "scalar")).advance(0.0)
    assert report.measurements[0].value == 0.5
    assert report.measurements[0].metrics["array"] == 2.0
    assert math.isnan(report.measurements[0].metrics["extra"])


def test_a_trainer_may_end_early(tmp_path: Path) -> None:
    run = TrialRun(assignment(tmp_path, "scalar"))
    report = run.advance(FOREVER)
    assert (epochs(report), report.ended, report.failure) == ([1], True, None)


def test_what_a_trainer_prints_goes_to_its_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    TrialRun(assignment(tmp_path, "mixed", max_epochs=2)).advance(FOREVER)
    assert (tmp_path / "00000" / "output.log").read_text() == "epoch 1\nepoch 2\n"
    assert capsys.readouterr().out == ""
    TrialRun(assignment(tmp_path, "mixed", max_epochs=1), capture=False).advance(FOREVER)
    assert capsys.readouterr().out == "epoch 1\n"


def test_a_trainer_that_neither_saves_nor_prints_leaves_no_folder(tmp_path: Path) -> None:
    TrialRun(assignment(tmp_path, "scalar")).advance(FOREVER)
    assert list(tmp_path.iterdir()) == []


def test_the_best_epoch_is_on_disk_when_the_study_hears_of_it(tmp_path: Path) -> None:
    run = TrialRun(assignment(tmp_path, "quadratic", rungs=(1, 3)))
    for epoch in (1, 3):
        run.advance(FOREVER)
        saved = checkpoints.load(tmp_path / "00000" / "best")
        assert (saved["epoch"], saved["hpo"]["epoch"]) == (epoch, epoch)
        assert saved["weights"].tolist() == [0.5 * epoch] * 3


def test_a_trial_that_cannot_be_among_the_best_writes_nothing(tmp_path: Path) -> None:
    TrialRun(assignment(tmp_path, "quadratic", keep_below=-0.95)).advance(FOREVER)
    assert list(tmp_path.iterdir()) == []


def test_a_restored_trial_reports_every_epoch_once_and_trains_none_twice(tmp_path: Path) -> None:
    first = TrialRun(assignment(tmp_path, "quadratic", checkpoint_every_s=0.0, rungs=(4,)))
    before = first.advance(FOREVER)
    second = TrialRun(assignment(tmp_path, "quadratic", checkpoint_every_s=0.0, rungs=(4,)))
    after = second.advance(FOREVER)
    assert epochs(before) == [1, 2, 3, 4]
    assert epochs(after) == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert after.measurements[:4] == before.measurements  # as they were, not trained again
    assert [m.metrics["epoch"] for m in after.measurements] == list(range(1, 10))

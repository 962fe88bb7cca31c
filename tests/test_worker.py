"""One trial, driven epoch by epoch."""

from __future__ import annotations

import dataclasses
import errno
import itertools
import math
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hpo import checkpoints, trial_files
from hpo.engine.assignment import Assignment, Report
from hpo.engine.worker import TrialRun
from hpo.stopping import Patience
from hpo.trainer import RunningTrial
from hpo.trial import Direction
from tests.small_trainers import quadratic

FOREVER = 1e9
HERE = "tests.test_worker"


def assignment(folder: Path, entry: str, max_epochs: int = 9, **changes: object) -> Assignment:
    plain = Assignment(
        number=0,
        seed=1,
        entry=entry if ":" in entry else f"tests.small_trainers:{entry}",
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
    run = TrialRun(assignment(tmp_path, "mixed", max_epochs=50, stopper=Patience(epochs=2), direction=Direction.MINIMIZE))
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
        ("no data", "error", "x.csv:9: nothing there; fill the gap or drop the row"),
        ("reserved", "error", "trial.save: the name 'hpo' is taken; choose another"),
    ],
)
def test_nonsense_fails_the_trial_with_its_reason_and_keeps_what_was_measured(tmp_path: Path, kind: str, rule: str, reason: str) -> None:
    report = TrialRun(assignment(tmp_path, "misbehaving", arguments={"x": 0.5, "kind": kind})).advance(FOREVER)
    assert epochs(report) == [1]
    assert report.failure is not None
    assert report.failure.rule == rule
    assert report.failure.reason.startswith(reason)
    assert kind != "no data" or report.failure.reason == reason  # a message for people: no class, no line of ours


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
        saved = checkpoints.load(tmp_path / "00000" / "best-1.1")
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


def test_a_trainer_that_asks_again_for_its_state_changes_nothing(tmp_path: Path) -> None:
    TrialRun(assignment(tmp_path, f"{HERE}:forgetful", checkpoint_every_s=0.0, rungs=(2,))).advance(FOREVER)
    assert epochs(TrialRun(assignment(tmp_path, f"{HERE}:forgetful", attempt=2)).advance(FOREVER)) == [1, 2, 3, 4, 5, 6, 7, 8, 9]


def forgetful(trial: RunningTrial, *, x: float) -> Iterator[dict[str, float]]:
    """Asks for its state before every epoch, and keeps to the first answer."""
    first = (trial.restored() or {"epoch": 0})["epoch"]
    for epoch in range(first + 1, trial.max_epochs + 1):
        trial.restored()
        trial.save(epoch=epoch)
        yield {"value": x}


def peaked(trial: RunningTrial, *, peak: int) -> Iterator[dict[str, float]]:
    """Its best epoch is `peak`."""
    for epoch in range((trial.restored() or {"epoch": 0})["epoch"] + 1, trial.max_epochs + 1):
        trial.save(epoch=epoch)
        yield {"value": -float(abs(epoch - peak))}


def saved_loss(checkpoint: Path) -> float:
    return Direction.MAXIMIZE.loss(checkpoints.label(checkpoint)["value"])


@pytest.mark.parametrize("every_s", [0.0, FOREVER])
@pytest.mark.parametrize(("died_after", "peak"), list(itertools.product((1, 3, 5), range(1, 8))))
def test_the_best_of_all_attempts_is_the_trials(died_after: int, peak: int, every_s: float, tmp_path: Path) -> None:
    """With the attempts' checkpoints and without: the second goes on, or begins again, and the best epoch's state is kept."""
    plan = assignment(tmp_path, f"{HERE}:peaked", 7, arguments={"peak": peak}, checkpoint_every_s=every_s, rungs=(died_after,))
    TrialRun(plan).advance(FOREVER)
    second = TrialRun(dataclasses.replace(plan, lease=2, rungs=()))
    assert epochs(second.advance(FOREVER)) == [1, 2, 3, 4, 5, 6, 7]
    trial_files.settle(plan.folder, saved_loss)
    assert [path.name for path in plan.folder.iterdir()] == ["best"]
    assert checkpoints.load(plan.folder / "best")["epoch"] == peak


@pytest.mark.parametrize(("every_s", "left"), [(0.0, {"best-1.1"}), (FOREVER, {"best-1.1", "best-1.2"})])
def test_a_best_epoch_is_written_again_only_if_it_is_trained_again(every_s: float, left: set[str], tmp_path: Path) -> None:
    """Trained again it may have another value, and the study knows one of the two."""
    plan = assignment(tmp_path, f"{HERE}:peaked", 7, arguments={"peak": 3}, checkpoint_every_s=every_s, rungs=(5,))
    for attempt in (1, 2):
        TrialRun(dataclasses.replace(plan, attempt=attempt)).advance(FOREVER)
    bests = set(plan.folder.glob("best-*"))
    assert {path.name for path in bests} == left
    assert {checkpoints.label(path)["epoch"] for path in bests} == {3}


def test_an_attempt_removes_what_earlier_ones_went_on_from_and_nothing_else(tmp_path: Path) -> None:
    plan = assignment(tmp_path, "quadratic", checkpoint_every_s=0.0)
    attempts = {
        (lease, attempt): TrialRun(dataclasses.replace(plan, lease=lease, attempt=attempt)) for lease, attempt in ((1, 9), (2, 1), (10, 1))
    }

    def left() -> set[str]:
        return {path.name for path in plan.folder.iterdir() if path.name.startswith("last")}

    attempts[1, 9].advance(0.0)
    assert left() == {"last-1.9"}
    attempts[2, 1].advance(0.0)
    assert left() == {"last-2.1"}
    attempts[1, 9].advance(0.0)  # it was given up, and lives on
    assert left() == {"last-1.9", "last-2.1"}
    attempts[10, 1].advance(0.0)
    attempts[2, 1].advance(0.0)
    assert left() == {"last-2.1", "last-10.1"}
    assert {path.name for path in plan.folder.iterdir()} - left() == {"best-1.9", "best-2.1", "best-10.1"}


def test_a_first_save_that_was_cut_off_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "00000" / "last-1.1").mkdir(parents=True)
    report = TrialRun(assignment(tmp_path, "quadratic", attempt=2)).advance(FOREVER)
    assert (epochs(report), report.failure) == ([1, 2, 3, 4, 5, 6, 7, 8, 9], None)


def stubborn(trial: RunningTrial, *, x: float) -> Iterator[dict[str, float]]:
    """Begins again where it cannot go on."""
    try:
        trial.restored()
    except Exception:
        yield {"value": x}
    trial.save(weights=x, epoch=0)
    yield {"value": x}


@pytest.mark.parametrize("entry", ["quadratic", f"{HERE}:stubborn"])
@pytest.mark.parametrize("pattern", ["state.json", "tensors-*"])
def test_a_damaged_checkpoint_fails_the_trial_which_never_begins_again(entry: str, pattern: str, tmp_path: Path) -> None:
    TrialRun(assignment(tmp_path, "quadratic", checkpoint_every_s=0.0, rungs=(4,))).advance(FOREVER)
    (file,) = (tmp_path / "00000" / "last-1.1").glob(pattern)
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    report = TrialRun(assignment(tmp_path, entry, attempt=2, study="mine")).advance(FOREVER)
    assert (epochs(report), report.ended) == ([], False)
    assert report.failure is not None
    assert report.failure.rule == "checkpoint"
    assert re.fullmatch(
        rf"{file}: sha256 .*, expected .*; the trial cannot go on and is not begun again; "
        "check its disk, then `hpo verify mine` for the rest",
        report.failure.reason,
    )


FULL = Path("/dev/full")  # every write to it fails for want of space


def noisy(trial: RunningTrial, *, x: float) -> Iterator[dict[str, float]]:
    for metrics in quadratic(trial, x=x):
        print("epoch")
        yield metrics


@pytest.mark.parametrize(
    ("place", "file"),
    [
        (f"best-1.2/.state.json.{os.getpid()}.tmp", "best-1.2/state.json"),
        (f"last-1.2/.state.json.{os.getpid()}.tmp", "last-1.2/state.json"),
        ("output.log", "output.log"),
    ],
)
def test_a_full_disk_is_no_fault_of_the_trial_and_takes_nothing_back(place: str, file: str, tmp_path: Path) -> None:
    plan = assignment(tmp_path, f"{HERE}:noisy", checkpoint_every_s=0.0, rungs=(4,))
    TrialRun(dataclasses.replace(plan, entry="tests.small_trainers:quadratic")).advance(FOREVER)
    before = {path: path.read_bytes() for path in plan.folder.rglob("*") if path.is_file()}
    (plan.folder / place).parent.mkdir(exist_ok=True)
    (plan.folder / place).symlink_to(FULL)
    report = TrialRun(dataclasses.replace(plan, attempt=2)).advance(FOREVER)
    assert report.measurements == ()  # of no epoch whose best could not be written
    assert report.failure is not None
    assert report.failure.rule == "disk"
    assert re.fullmatch(rf"{plan.folder / file}: [0-9,]+ bytes could not be written: No space left on device", report.failure.reason)
    assert {path: path.read_bytes() for path in before} == before
    assert not list(plan.folder.rglob(".*.tmp"))


def raising(trial: RunningTrial, *, name: str) -> Iterator[dict[str, float]]:
    yield {"value": 1.0}
    RAISING[name]()
    yield {"value": 2.0}


def refused(number: int) -> None:
    raise OSError(number, os.strerror(number))


def wrapped(hidden: bool) -> None:
    try:
        refused(errno.ENOSPC)
    except OSError as error:
        if hidden:
            raise RuntimeError("could not save") from None
        raise ValueError("could not save") from error


def grouped() -> None:
    raise ExceptionGroup("both writers", [ValueError(), OSError(errno.EDQUOT, "over quota", "/data/x")])


def circular() -> None:
    error, other = ValueError("a"), ValueError("b")
    error.__cause__, other.__cause__ = other, error
    raise error


RAISING: dict[str, Callable[[], None]] = {
    "no space": lambda: refused(errno.ENOSPC),
    "over quota": lambda: refused(errno.EDQUOT),
    "behind another": lambda: wrapped(hidden=False),
    "behind another that hides it": lambda: wrapped(hidden=True),
    "in a group": grouped,
    "not allowed": lambda: refused(errno.EACCES),
    "behind itself": circular,
}


@pytest.mark.parametrize(
    ("name", "rule", "reason"),
    [
        ("no space", "disk", r"OSError: \[Errno 28\] No space left on device at test_worker\.py:[0-9]+"),
        ("over quota", "disk", r"OSError: \[Errno 122\] Disk quota exceeded at test_worker\.py:[0-9]+"),
        ("behind another", "disk", r"OSError: \[Errno 28\] No space left on device at test_worker\.py:[0-9]+"),
        ("behind another that hides it", "disk", r"OSError: \[Errno 28\] No space left on device at test_worker\.py:[0-9]+"),
        ("in a group", "disk", "/data/x: over quota"),
        ("not allowed", "error", r"PermissionError: \[Errno 13\] Permission denied at test_worker\.py:[0-9]+ \(see .*\)"),
        ("behind itself", "error", r"ValueError: a at test_worker\.py:[0-9]+ \(see .*\)"),
    ],
)
def test_a_trainers_own_full_disk_is_found_wherever_it_is(name: str, rule: str, reason: str, tmp_path: Path) -> None:
    failure = TrialRun(assignment(tmp_path, f"{HERE}:raising", arguments={"name": name})).advance(FOREVER).failure
    assert failure is not None
    assert failure.rule == rule
    assert re.fullmatch(reason, failure.reason)


def test_a_log_that_cannot_be_written_hides_no_reason(tmp_path: Path) -> None:
    (tmp_path / "00000").mkdir()
    (tmp_path / "00000" / "error.log").symlink_to(FULL)
    reason = TrialRun(assignment(tmp_path, "mixed", arguments={"x": 0.5, "kind": "raising"})).advance(FOREVER).failure.reason
    assert re.fullmatch(r"RuntimeError: boom at small_trainers\.py:[0-9]+ \(no log could be written: OSError: .*No space left.*\)", reason)


def interrupted(trial: RunningTrial, *, x: float) -> Iterator[dict[str, float]]:
    yield {"value": x}
    raise KeyboardInterrupt


def test_ctrl_c_is_for_the_study_where_the_process_is_the_users_own(tmp_path: Path) -> None:
    """A worker's process is sent none: there the trainer raised it itself."""
    failure = TrialRun(assignment(tmp_path, f"{HERE}:interrupted")).advance(FOREVER).failure
    assert failure is not None
    assert failure.reason.startswith("KeyboardInterrupt at test_worker.py:")
    with pytest.raises(KeyboardInterrupt):
        TrialRun(assignment(tmp_path, f"{HERE}:interrupted"), capture=False).advance(FOREVER)


def test_metrics_that_a_trainer_changes_later_are_as_they_were(tmp_path: Path) -> None:
    report = TrialRun(assignment(tmp_path, "tests.misbehaving:train", 3, arguments={"kind": "changes_its_metrics"})).advance(FOREVER)
    assert [(m.value, dict(m.metrics)) for m in report.measurements] == [(v, {"value": v}) for v in (0.05, 0.1, 0.15)]


def test_what_a_cleanup_raises_is_in_the_error_log(tmp_path: Path) -> None:
    run = TrialRun(assignment(tmp_path, "tests.misbehaving:train", 3, arguments={"kind": "cleanup_raises"}))
    assert run.advance(FOREVER).failure is None
    run.close()
    assert "in its cleanup" in (tmp_path / "00000" / "error.log").read_text()


@pytest.mark.parametrize(
    ("metrics", "reason"),
    [
        ({"x" * 100: "text"}, "x" * 60 + "... was str 'text' at epoch 1; metrics are numbers"),
        ({"\x1b[31m": None}, "[31m was NoneType None at epoch 1; metrics are numbers"),
        ({f"m{i}": 1.0 for i in range(7)}, "epoch 1 reported no value (the objective); it reported m0, m1, m2, m3, m4 and 2 more"),
        ({f"m{i}": 1.0 for i in range(1001)}, "epoch 1 reported 1,001 metrics, 1,000 at most are recorded; write larger tables into files"),
    ],
)
def test_a_reason_stays_short_and_harmless_whatever_the_metrics_are_called(metrics: Any, reason: str, tmp_path: Path) -> None:
    failure = TrialRun(assignment(tmp_path, f"{HERE}:reporting", arguments={"metrics": metrics})).advance(FOREVER).failure
    assert failure is not None
    assert failure.reason.startswith(reason)


def reporting(trial: RunningTrial, *, metrics: Any) -> Iterator[Any]:
    yield metrics

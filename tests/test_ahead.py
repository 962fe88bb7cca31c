"""What a study's end needs is loaded before: where there will be a model, when a part is over and nothing is left to send."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hpo import ahead, tracking
from hpo.ahead import Ahead, is_due
from hpo.events import Asked, Created, Ended, Event, Finished, Measured, Paused
from hpo.journal import Journal
from hpo.journal_format import Record
from hpo.mlflow_runs import Status
from hpo.projection import Projection, milliseconds
from hpo.shipper import Shipper
from hpo.trial import State
from hpo.trial_files import trial_folder
from tests.conftest import ROOT
from tests.simulations import spec

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning")

START = datetime(2026, 11, 20, tzinfo=UTC)


def trials(count: int, *, running: int = 0, epochs: int = 1) -> list[Event]:
    """So many that ended, every second one at a rung, where it waits; then some that run."""
    events: list[Event] = []
    for number in range(count + running):
        events.append(Asked(number, {}, number))
        events += [Measured(number, epoch, float(number), {"value": float(number)}, 0.1) for epoch in range(1, epochs + 1)]
        if number < count:
            events.append(Paused(number, epochs) if number % 2 else Finished(number, State.PRUNED, "asha", "stopped"))
    return events


def created(budget: dict[str, object]) -> Created:
    return Created("s", spec(budget=budget).to_dict(), {})


def folded(events: list[Event], budget: dict[str, object]) -> Projection:
    projection = Projection()
    for seq, event in enumerate([created(budget), *events], start=1):
        projection.apply(Record(seq, START, event))
    return projection


@pytest.mark.parametrize(
    ("events", "budget", "seconds", "due"),
    [
        ([], {"trials": 12}, 0, False),
        (trials(3), {"trials": 12}, 0, True),  # a quarter
        (trials(2, running=9), {"trials": 12}, 0, False),  # what runs has come to nothing yet
        (trials(3), {"trials": 13}, 0, False),
        (trials(2), {"trials": 2}, 0, False),  # too few to know that all workers have started
        (trials(3, epochs=4), {"trials": 500, "epochs": 48}, 0, True),
        (trials(3, epochs=4), {"trials": 500, "epochs": 49}, 0, False),
        (trials(3), {"trials": 500, "time": "40s"}, 10, True),
        (trials(3), {"trials": 500, "time": "40s"}, 9, False),
        (trials(2), {"trials": 500, "time": "40s"}, 39, False),
        (trials(3), {"trials": 12}, 599, True),
        (trials(3), {"trials": 12}, 600, False),  # a long study
    ],
)
def test_it_begins_when_workers_run_and_a_quarter_of_any_budget_is_spent(
    events: list[Event], budget: dict[str, object], seconds: int, due: bool
) -> None:
    assert is_due(folded(events, budget), milliseconds(Record(99, START + timedelta(seconds=seconds), Ended("time")))) is due


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The steps that were taken, of three."""
    steps: list[str] = []
    monkeypatch.setattr(ahead, "STEPS", [lambda name=name: steps.append(name) for name in ("first", "second", "third")])
    yield steps
    gc.unfreeze()


def test_it_takes_each_step_once_and_none_for_a_study_without_a_model(tmp_path: Path, taken: list[str]) -> None:
    projection, ready = folded(trials(3), {"trials": 4}), Ahead(tmp_path, lambda: taken.append("last"))
    assert not ready.step(projection, 0)
    (trial_folder(tmp_path, 0) / "best").mkdir(parents=True)
    assert not ready.step(projection, 0)  # the best is another
    (trial_folder(tmp_path, 2) / "best-1.1").mkdir(parents=True)
    assert [ready.step(projection, 0) for _ in range(5)] == [True, True, True, True, False]
    assert taken == ["first", "second", "third", "last"]


def test_what_cannot_be_imported_harms_nobody_and_is_not_tried_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "STEPS", [lambda: (_ for _ in ()).throw(OSError("a library's own")), lambda: pytest.fail("went on")])
    (trial_folder(tmp_path, 2) / "best").mkdir(parents=True)
    projection, ready = folded(trials(3), {"trials": 4}), Ahead(tmp_path, lambda: pytest.fail("went on"))
    assert [ready.step(projection, 0) for _ in range(2)] == [True, False]
    assert gc.isenabled()
    gc.unfreeze()


def test_the_steps_it_names_can_be_taken() -> None:
    """And the last of them leaves nothing to be imported but the trainer's own."""
    code = "from hpo import ahead; import sys; [step() for step in ahead.STEPS]"
    code += "; print(len(ahead.STEPS), 'torch.export._trace' in sys.modules)"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.stdout, done.returncode) == ("4 True\n", 0), done.stderr


def test_a_shipper_takes_a_step_between_two_looks_when_all_is_sent_and_none_at_the_end(
    tmp_path: Path, taken: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for name, value in tracking.environment().items():
        monkeypatch.setenv(name, value)
    folder = tmp_path / "s"
    journal = Journal.create(folder / "journal.jsonl")
    journal.append([created({"trials": 12}), *trials(2)])
    (trial_folder(folder, 3) / "best").mkdir(parents=True)
    looks: list[tuple[int, float, int]] = []

    def wait(seconds: float) -> bool:
        """The study goes on while the shipper pauses."""
        behind = sum(run.behind for run in shipper.projection.trials if run.status is not Status.RUNNING)
        looks.append((len(taken), seconds, behind))
        match len(looks):
            case 1:
                journal.append(trials(4)[-6:])
            case 3:
                journal.append([Ended("interrupted", 3)])
        return False

    shipper = Shipper(folder, wait)
    with journal:
        assert shipper.run()
    assert [(steps, behind) for steps, _, behind in looks] == [(0, 0), (1, 0), (2, 0)]
    assert [seconds > 0 for _, seconds, _ in looks] == [True, False, False]  # one after the other, with a look at the journal between

"""Whatever a trainer does on real Ray, its own trial ends with the reason, once and everywhere, and the study goes on."""

from __future__ import annotations

import json
import os
import re
import select
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from optuna.trial import TrialState

from hpo.events import Finished
from hpo.results import StoredStudy
from hpo.sampling.with_optuna import OptunaSampler
from hpo.trial import State, Trial
from hpo.trial_files import trial_folder
from tests.conftest import Done, needs_two_processors, run_hpo
from tests.misbehaving import KINDS

pytestmark = needs_two_processors
ALL_EPOCHS = (State.COMPLETE, "max_epochs", "trained all 3 epochs")
ITSELF = (State.COMPLETE, "trainer", "the trainer ended after 2 epochs")
NO_EPOCH = (State.FAILED, "trainer", "the trainer ended before its first epoch: it must yield metrics after every epoch")
RAISED = r" at misbehaving\.py:[0-9]+ \(see .*/error\.log\)"
DIED = r"its worker died 2 times, the last time of: worker process [0-9]+ .+"
HUNG = r"no epoch ended within limits\.trial_timeout \(15s\); where it hung is in .*/hang-1\.1\.log"


def metric(reason: str) -> tuple[State, str, str]:
    return State.FAILED, "metric", reason


def error(reason: str) -> tuple[State, str, str]:
    return State.FAILED, "error", reason


TABLE: dict[str, tuple[State, str, str]] = {
    # reports what is none
    "not a number": metric("value was nan at epoch 2"),
    "infinite": metric("value was inf at epoch 2"),
    "minus infinite": metric("value was -inf at epoch 2"),
    "text": metric("value was str '0.9' at epoch 2; metrics are numbers"),
    "bool": metric("value was bool True at epoch 2; metrics are numbers"),
    "nothing": metric("epoch 2 yielded NoneType; yield a mapping of metric names to numbers"),
    "a list": metric("epoch 2 yielded list; yield a mapping of metric names to numbers"),
    "two elements": metric(r"value was Tensor tensor\(\[0\.1000, 0\.2000\]\) at epoch 2; metrics are numbers"),
    "complex": metric("value was complex 1j at epoch 2; metrics are numbers"),
    "no objective": metric(r"epoch 2 reported no value \(the objective\); it reported loss"),
    "empty": metric(r"epoch 2 reported no value \(the objective\); it reported nothing"),
    "too large": metric("value was a number too large to hold at epoch 2"),
    "ten thousand metrics": metric("epoch 2 reported 10,001 metrics, 1,000 at most are recorded; write larger tables into files .*"),
    "no_report": NO_EPOCH,
    "returns": NO_EPOCH,
    # unusual, and fine
    "one element": ITSELF,
    "a thousand metrics": ITSELF,
    "backwards": ALL_EPOCHS,
    "changes_its_metrics": ALL_EPOCHS,
    "saves_ten_thousand_values": ALL_EPOCHS,
    "prints a megabyte": ALL_EPOCHS,
    "logs": ALL_EPOCHS,
    # does not stop when it is told to
    "cleanup_raises": ALL_EPOCHS,
    "cleanup_interrupts": ALL_EPOCHS,
    "cleanup_yields": ALL_EPOCHS,
    # raises
    "raises": error(r"RuntimeError: boom \[31m" + RAISED),
    "unspeakable": error(r"Unspeakable: \(its text cannot be read\)" + RAISED),
    "sys.exit": error("SystemExit: 3" + RAISED),
    "KeyboardInterrupt": error("KeyboardInterrupt" + RAISED),
    "out_of_memory": error("MemoryError" + RAISED),
    "saves_an_object": error(r"saved state: model\[0\] is builtins\.object; allowed are .*"),
    # ends its process, or never ends
    "os._exit": (State.FAILED, "worker", DIED),
    "segfault": (State.FAILED, "worker", DIED + "Segmentation fault.+"),
    "SIGKILL": (State.FAILED, "worker", DIED),
    "SIGTERM": (State.FAILED, "worker", DIED),
    "abort": (State.FAILED, "worker", DIED + "Aborted.+"),
    "sleeps": (State.FAILED, "timeout", HUNG),
    "spins in C": (State.FAILED, "timeout", HUNG),
    # leaves its process in disorder
    "closes its streams": ALL_EPOCHS,
    "forks": ALL_EPOCHS,
    "a thread stays": ALL_EPOCHS,
    "a_child_stays": ALL_EPOCHS,
    "removes_its_folder": ALL_EPOCHS,
    "goes_elsewhere": ALL_EPOCHS,
}


class Ran:
    """The one launch that all tests here look at: the trials by kind."""

    def __init__(self, home: Path, done: Done) -> None:
        self.home, self.done = home, done
        self.study = StoredStudy.open(home / "misbehaving")
        self.trials: dict[str, Trial] = {str(trial.params["kind"]): trial for trial in self.study.trials}

    def folder(self, kind: str) -> Path:
        return trial_folder(self.study.folder, self.trials[kind].number)


def spec(name: str, kinds: list[str], trial_timeout: str) -> dict[str, Any]:
    """One trial of each kind, in this order."""
    return {
        "name": name,
        "trainer": {"settings": {"max_epochs": 3}},
        "objective": {"metric": "value", "direction": "maximize"},
        "space": {"kind": {"type": "categorical", "choices": kinds}},
        "sampler": {"name": "grid"},
        "pruner": {"name": "none"},
        "budget": {"trials": len(kinds)},
        "resources": {"gpus": 0},
        "checkpoints": {"every": "0.001s"},
        "limits": {"trial_timeout": trial_timeout, "retries": 1},
        "finals": "none",
    }


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    home = tmp_path_factory.mktemp("home")
    (home / "misbehaving.yaml").write_text(json.dumps(spec("misbehaving", list(TABLE), trial_timeout="15s")))
    return Ran(home, run_hpo(home, "launch", str(home / "misbehaving.yaml"), "--trainer", "tests.misbehaving:train", "--json"))


def test_the_table_has_every_kind() -> None:
    assert set(TABLE) == set(KINDS)
    assert len(TABLE) >= 40


def test_the_study_goes_on_to_its_end(ran: Ran) -> None:
    assert (ran.done.code, ran.done.err) == (0, "")
    assert ran.study.state == "budget"
    assert len(ran.study.trials) == len(ran.trials) == len(TABLE)
    assert ran.study.best is not None


@pytest.mark.parametrize("kind", TABLE)
def test_a_trial_ends_with_its_reason(kind: str, ran: Ran) -> None:
    state, rule, reason = TABLE[kind]
    trial = ran.trials[kind]
    (finished,) = (r.event for r in ran.study.records if isinstance(r.event, Finished) and r.event.trial == trial.number)
    assert (finished.state, finished.rule) == (state, rule), trial.reason
    assert re.fullmatch(reason, trial.reason), trial.reason
    assert trial.reason.isprintable()
    assert trial.attempts == (2 if rule == "worker" else 1)


@pytest.mark.parametrize("kind", [kind for kind, (_, rule, _) in TABLE.items() if rule != "trainer"])
def test_what_was_reported_before_is_kept(kind: str, ran: Ran) -> None:
    trial, (_, rule, _) = ran.trials[kind], TABLE[kind]
    first = {"saves_an_object": [[1, 2]]}.get(kind, [[1]])
    expected = {"max_epochs": [[1, 2, 3]], "worker": [[], [1]], "timeout": [[], [1]]}  # of its last slice nothing is heard
    assert [m.epoch for m in trial.measurements] in expected.get(rule, first)
    assert all(0 <= m.value <= 1 for m in trial.measurements)


def test_optuna_and_mlflow_have_each_trial_once_and_none_running(ran: Ran) -> None:
    launched = ran.study.spec
    history = OptunaSampler("tpe", launched.space, launched.objective.direction, launched.seed).history(ran.study.trials)
    states = {State.COMPLETE: TrialState.COMPLETE, State.FAILED: TrialState.FAIL}
    assert [trial.state for trial in history] == [states[trial.state] for trial in ran.study.trials]

    client = MlflowClient(f"sqlite:///{ran.home}/mlflow.db")
    runs = client.search_runs([e.experiment_id for e in client.search_experiments()], max_results=1000)
    numbers = Counter(run.data.tags["hpo.trial"] for run in runs)
    assert numbers == Counter(["study", *(str(number) for number in range(len(TABLE)))])
    shown = {"study": "FINISHED"} | {str(t.number): "FINISHED" if t.state is State.COMPLETE else "FAILED" for t in ran.study.trials}
    assert {run.data.tags["hpo.trial"]: run.info.status for run in runs} == shown
    crowded = next(run for run in runs if run.data.tags["hpo.trial"] == str(ran.trials["a thousand metrics"].number))
    assert len(crowded.data.metrics) >= 1000


@pytest.mark.parametrize("kind", [kind for kind, (_, rule, _) in TABLE.items() if rule == "timeout"])
def test_the_log_of_a_hanging_trainer_says_where_it_hung(kind: str, ran: Ran) -> None:
    assert re.search(r'misbehaving\.py", line [0-9]+ in <lambda>', (ran.folder(kind) / "hang-1.1.log").read_text())


def test_of_a_study_that_is_over_only_logs_and_the_best_stay(ran: Ran) -> None:
    found = {re.sub("[0-9]+", "N", path.name) for path in ran.study.folder.glob("trials/*/*")}
    assert {"best", "output.log", "error.log", "hang-N.N.log"} <= found
    assert {name for name in found if not name.endswith(".log")} == {"best"}


@pytest.mark.parametrize(
    ("kind", "log", "text"),
    [
        ("prints a megabyte", "output.log", "x" * 2**20 + "\n"),
        ("logs", "output.log", "trial {number}: {{'value': 0.3}}\n"),
        ("cleanup_raises", "error.log", "RuntimeError: in its cleanup"),
        ("cleanup_yields", "error.log", "RuntimeError: generator ignored GeneratorExit"),
        ("raises", "error.log", "boom \x1b[31m\\udcff"),
    ],
)
def test_what_it_said_is_in_its_own_log(kind: str, log: str, text: str, ran: Ran) -> None:
    assert text.format(number=ran.trials[kind].number) in (ran.folder(kind) / log).read_text(errors="backslashreplace")


def test_a_working_directory_is_a_trainers_own(ran: Ran) -> None:
    assert [m.metrics["here"] for m in ran.trials["goes_elsewhere"].measurements] == [1, 1, 0]


def test_a_child_ends_with_the_worker_that_it_was_left_to(ran: Ran) -> None:
    assert is_gone(int((ran.study.folder / "trials" / "child").read_text()))


def is_gone(process: int) -> bool:
    """Whether a process has ended, waiting for a minute at most."""
    try:
        descriptor = os.pidfd_open(process)
    except ProcessLookupError:
        return True
    with os.fdopen(descriptor):
        ready, _, _ = select.select([descriptor], [], [], 60)
    return bool(ready)


IN_THIS_PROCESS = ["goes_elsewhere", "sleeps", "sys.exit", "out_of_memory", "forks", "cleanup_yields", "removes_its_folder"]


def test_in_the_users_own_process_the_study_goes_on_as_well(tmp_path: Path) -> None:
    """With --local: what hangs is interrupted, and the driver stays where it was started."""
    (tmp_path / "here.yaml").write_text(json.dumps(spec("here", IN_THIS_PROCESS, trial_timeout="2s")))
    done = run_hpo(tmp_path, "launch", str(tmp_path / "here.yaml"), "--trainer", "tests.misbehaving:train", "--local", "--json")
    assert done.code == 0, done.err
    study = StoredStudy.open(tmp_path / "here")
    expected = {kind: TABLE[kind] for kind in IN_THIS_PROCESS}
    expected["sleeps"] = (State.FAILED, "timeout", r"no epoch ended within limits\.trial_timeout \(2s\) \(see .*/error\.log\)")
    ended = {r.event.trial: r.event for r in study.records if isinstance(r.event, Finished)}
    for trial in study.trials:
        state, rule, reason = expected[str(trial.params["kind"])]
        assert (trial.state, ended[trial.number].rule) == (state, rule), trial.reason
        assert re.fullmatch(reason, trial.reason)
    assert len(ended) == len(IN_THIS_PROCESS)

"""MLflow shows what the journal says: every trial once, every point once, whatever broke on the way."""

from __future__ import annotations

import itertools
import json
import math
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run as MlflowRun

from hpo import lease, shipper, tracking, turns
from hpo import store as store_module
from hpo.events import Asked, Created, Ended, Event, Finished, Measured, Resumed, Retried
from hpo.journal import Journal
from hpo.journal_format import Record, read
from hpo.mlflow_runs import STUDY, Point, Status
from hpo.mlflow_view import TAG
from hpo.mlflow_words import safe_name
from hpo.opening import open_store
from hpo.projection import Projection, milliseconds
from hpo.sending import POINTS_A_CALL, REFUSALS, KnownRun, Refused, recognise, send
from hpo.shipper import Shipper
from hpo.trial import State
from tests.chaos.mlflow_scene import until
from tests.drawn_studies import STORIES, written

# MLflow's own use of SQLAlchemy
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning")

SPEC: dict[str, Any] = {
    "name": "fashion",
    "trainer": {"name": "mlp", "settings": {"max_epochs": 9, "depth": 2}},
    "objective": {"metric": "val_accuracy", "direction": "maximize"},
    "space": {"width": {"type": "int", "low": 32, "high": 64}, "dropout": {"type": "float", "low": 0.0, "high": 0.5}},
    "tracking": {"uri": None, "experiment": "experiment", "registered_model": "fashion-mlp"},
}

RESUMED = Resumed("host", 1, {})


def measured(trial: int, *values: float, **more: float) -> list[Event]:
    return [Measured(trial, epoch, v, {"val_accuracy": v, **more}, 0.5) for epoch, v in enumerate(values, start=1)]


def story(*, end: str | None = "budget", name: str = "fashion") -> list[Event]:
    """A study with a complete, a pruned, a raising, a diverging, a retried and a running trial."""
    events: list[Event] = [Created(name, SPEC | {"name": name}, {"torch": "2.13.0"}, "b719672")]
    events += [Asked(n, {"width": 32 + n, "dropout": n / 10}, 100 + n) for n in range(6)]
    events += [*measured(0, 0.5, 0.9, 0.8, loss=1.0), Finished(0, State.COMPLETE, "max_epochs", "trained all 3 epochs")]
    events += [*measured(1, 0.2), Finished(1, State.PRUNED, "asha", "stopped at epoch 1", {"rung": 1, "cutoff": 0.5})]
    events += [Finished(2, State.FAILED, "error", "ValueError: no")]
    events += [*measured(3, 0.3, loss=math.inf), Finished(3, State.FAILED, "metric", "val_accuracy is nan")]
    events += [*measured(4, 0.4), Retried(4, 2, "its worker died"), Measured(4, 2, 0.6, {"val_accuracy": 0.6}, 0.5)]
    events += [Finished(4, State.COMPLETE, "patience", "no better value")]
    events += measured(5, 0.1, 0.2)
    return events if end is None else [*events, Ended(end, 0)]


def records(events: Iterable[Event]) -> list[Record]:
    start = datetime(2026, 11, 20, 5, 56, 10, 123456, tzinfo=UTC)
    return [Record(n, start + timedelta(seconds=n), event) for n, event in enumerate(events, start=1)]


def folded(events: Iterable[Event]) -> Projection:
    projection = Projection()
    for record in records(events):
        projection.apply(record)
    return projection


class Memory:
    """A store as MLflow is one: points have identity, runs do not; the `breaks`-th call fails, before or after its effect.

    It refuses a tag named `refused`.
    """

    def __init__(self, breaks: int = -1, *, after: bool = False, refused: str = "") -> None:
        self.runs: list[dict[str, Any]] = []
        self.calls = 0
        self._breaks, self._after, self._refused = breaks, after, refused

    def find(self, study_id: str, key: str | None = None) -> Mapping[str, KnownRun]:
        mine = [(i, run) for i, run in enumerate(self.runs) if run["tags"]["hpo.study_id"] == study_id]
        found = {
            run["tags"]["hpo.trial"]: KnownRun(str(i), run["status"], run["tags"].get("hpo.state", ""), run["ended"], run["tags"])
            for i, run in mine
        }
        return {name: run for name, run in found.items() if key in (None, name)}

    def create(self, name: str, started_ms: int, tags: Mapping[str, str]) -> str:
        assert len(tags) <= 100
        self._look_at(tags)
        with self._fault():
            self.runs.append(
                {
                    "name": name,
                    "started": started_ms,
                    "ended": 0,
                    "tags": dict(tags),
                    "params": {},
                    "points": set(),
                    "status": Status.RUNNING,
                }
            )
        return str(len(self.runs) - 1)

    def log(self, run_id: str, params: Mapping[str, str], points: Sequence[Point], tags: Mapping[str, str]) -> None:
        run = self.runs[int(run_id)]
        if any(run["params"].get(name, value) != value for name, value in params.items()):
            raise Refused("changing a parameter")
        self._look_at(tags)
        assert len(points) + len(params) + len(tags) <= 1000
        assert len(params) <= 100
        assert len(tags) <= 100
        with self._fault():
            run["params"].update(params)
            run["tags"].update(tags)
            run["points"].update(points)

    def close(self, run_id: str, status: Status, ended_ms: int) -> None:
        with self._fault():
            self.runs[int(run_id)].update(status=status, ended=ended_ms)

    def _look_at(self, tags: Mapping[str, str]) -> None:
        if self._refused in tags:
            raise Refused(f"tag {self._refused}")

    def _fault(self) -> Any:
        outer = self

        class Fault:
            def __enter__(self) -> None:
                outer.calls += 1
                if outer.calls == outer._breaks and not outer._after:
                    raise ConnectionError("the request was lost")

            def __exit__(self, *_: object) -> None:
                if outer.calls == outer._breaks and outer._after:
                    raise ConnectionError("the answer was lost")

        return Fault()

    def shown(self, trial: str) -> dict[str, Any]:
        (run,) = [run for run in self.runs if run["tags"]["hpo.trial"] == trial]
        return run


def sent(projection: Projection, store: Memory | None = None) -> Memory:
    store = store or Memory()
    recognise(projection, store)
    send(projection, store, everything=True)
    return store


# --- what is shown ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trial", "status", "state", "rule", "best", "last", "epochs"),
    [
        ("0", Status.FINISHED, "complete", "max_epochs", 0.9, 0.8, 3),
        ("1", Status.KILLED, "pruned", "asha", 0.2, 0.2, 1),
        ("2", Status.FAILED, "failed", "error", None, None, 0),
        ("3", Status.FAILED, "failed", "metric", 0.3, 0.3, 1),
        ("4", Status.FINISHED, "complete", "patience", 0.6, 0.6, 2),
        ("5", Status.KILLED, "interrupted", None, 0.2, 0.2, 2),
    ],
)
def test_every_trial_has_its_outcome_all_parameters_and_final_values(  # noqa: PLR0917
    trial: str, status: Status, state: str, rule: str | None, best: float | None, last: float | None, epochs: int
) -> None:
    run = sent(folded(story(end="interrupted"))).shown(trial)
    assert (run["name"], run["status"], run["tags"]["hpo.state"]) == (f"fashion-000{trial}", status, state)
    assert run["tags"].get("hpo.rule") == rule
    assert run["tags"]["hpo.seed"] == f"10{trial}"
    assert run["tags"]["hpo.attempt"] == ("2" if trial == "4" else "1")
    assert run["params"] == {"max_epochs": "9", "depth": "2", "width": str(32 + int(trial)), "dropout": str(int(trial) / 10)}
    finals = {p.name: p.value for p in run["points"] if p.name != "val_accuracy"}
    assert (finals.get("best_val_accuracy"), finals.get("last_val_accuracy"), finals["epochs"]) == (best, last, epochs)
    assert finals["seconds"] == pytest.approx(epochs * 0.5)
    assert sorted(p.step for p in run["points"] if p.name == "val_accuracy") == list(range(1, epochs + 1))


@pytest.mark.parametrize(("details", "calls"), [(0, 3), (200, 4)])
def test_a_finished_trial_takes_three_calls_and_its_tags_none_of_their_own(details: int, calls: int) -> None:
    """Made with its tags, then parameters and points, then the status: each call is several commits of a database."""
    detail = {f"n{at}": at for at in range(details)}
    events = [Created("s", SPEC, {}), Asked(0, {"width": 4}, 1), *measured(0, 0.5), Finished(0, State.PRUNED, "asha", "stopped", detail)]
    store = sent(folded(events[:1]))
    assert store.calls == 2  # the study's own
    store = sent(folded(events))
    assert store.calls - 2 == calls
    assert {f"hpo.detail.{name}" for name in detail} <= store.shown("0")["tags"].keys()


def test_minimising_takes_the_lowest_value_and_the_earliest_of_equals() -> None:
    spec = SPEC | {"objective": {"metric": "val_accuracy", "direction": "minimize"}}
    events = [
        Created("s", spec, {}),
        Asked(0, {}, 1),
        *measured(0, 3, 1, 1, 2),
        Finished(0, State.COMPLETE, "max_epochs", ""),
        Ended("budget", 0),
    ]
    store = sent(folded(events))
    (best,) = [p for p in store.shown("0")["points"] if p.name == "best_val_accuracy"]
    assert (best.value, best.step) == (1, 2)


def test_the_parent_tells_what_the_study_is_and_how_it_ended() -> None:
    store = sent(folded(story()))
    parent = store.shown(STUDY)
    assert (parent["name"], parent["status"], parent["tags"]["hpo.state"]) == ("fashion", Status.FINISHED, "budget")
    assert parent["params"]["objective.metric"] == "val_accuracy"
    assert json.loads(parent["params"]["space.width"]) == SPEC["space"]["width"]
    assert parent["tags"]["mlflow.source.git.commit"] == "b719672"
    assert parent["tags"]["hpo.version.torch"] == "2.13.0"
    totals = {p.name: p.value for p in parent["points"]}
    assert totals == {"complete": 2, "pruned": 1, "failed": 2, "trials": 6, "total_epochs": 9, "best_val_accuracy": 0.9}
    children = [run for run in store.runs if run is not parent]
    assert len(children) == 6
    assert {run["tags"]["mlflow.parentRunId"] for run in children} == {"0"}


@pytest.mark.parametrize(
    ("reason", "status"),
    [("budget", Status.FINISHED), ("time", Status.FINISHED), ("interrupted", Status.KILLED), ("error", Status.FAILED)],
)
def test_the_studys_own_status(reason: str, status: Status) -> None:
    assert sent(folded(story(end=reason))).shown(STUDY)["status"] is status


def test_a_metric_that_is_not_finite_is_a_tag_and_no_point() -> None:
    run = sent(folded(story())).shown("3")
    assert not any(p.name == "loss" for p in run["points"])
    assert run["tags"]["hpo.not_finite.loss"] == "inf at epoch 1"


def test_a_point_has_its_journal_lines_time() -> None:
    at = {record.seq: round(record.at.timestamp() * 1000) for record in records(story())}
    run = sent(folded(story())).shown("0")
    assert [p.at_ms for p in sorted(run["points"], key=lambda p: p.step) if p.name == "val_accuracy"] == [at[8], at[9], at[10]]
    assert (run["started"], run["ended"]) == (at[2], at[11])


def test_a_resumed_trial_is_open_again_and_then_ends_once() -> None:
    store = Memory()
    projection = Projection()
    before = story(end="interrupted")
    after = [*before, Measured(5, 3, 0.95, {"val_accuracy": 0.95}, 0.5), Finished(5, State.COMPLETE, "max_epochs", ""), Ended("budget", 5)]
    all_records = records(after)
    for record in all_records[: len(before)]:
        projection.apply(record)
    sent(projection, store)
    projection.apply(all_records[len(before)])
    sent(projection, store)
    assert [store.shown(key)["status"] for key in ("5", STUDY)] == [Status.RUNNING, Status.RUNNING]
    for record in all_records[len(before) + 1 :]:
        projection.apply(record)
    sent(projection, store)
    assert [store.shown(key)["status"] for key in ("5", STUDY)] == [Status.FINISHED, Status.FINISHED]
    assert store.runs == sent(folded(after)).runs


def test_a_trial_that_ends_with_the_status_it_had_when_it_was_interrupted_ends_when_it_ended(home: Path) -> None:
    """Interrupted and pruned are both KILLED: what was shown of the first is not taken for the second."""
    before = story(end="interrupted")
    pruned = Finished(5, State.PRUNED, "asha", "stopped at epoch 3")
    after = records([*before, RESUMED, Measured(5, 3, 0.3, {"val_accuracy": 0.3}, 0.5), pruned, Ended("budget", 0)])
    store, projection = Memory(), folded(before)
    sent(projection, store)
    for record in after[len(before) :]:
        projection.apply(record)
    send(projection, store, everything=True)  # the same process goes on, which has not seen it run again
    assert store.runs == sent(folded([record.event for record in after])).runs
    assert (store.shown("5")["status"], store.shown("5")["ended"]) == (Status.KILLED, milliseconds(after[-2]))
    cut_short = sent(folded(before))
    cut_short.log(str(6), {}, [], {"hpo.state": "pruned"})  # another one came as far as this tag, and died
    assert sent(folded([record.event for record in after]), cut_short).runs == store.runs


def test_a_new_budget_is_a_tag_and_the_parameters_stay_those_of_the_launch() -> None:
    store = sent(folded(story(end="interrupted")))
    launched = dict(store.shown(STUDY)["params"])
    resumed = Resumed("host", 1, {"torch": "2.14.0"}, trials=200, time_s=7200.0)
    sent(folded([*story(end="interrupted"), resumed, Ended("budget", 0)]), store)
    parent = store.shown(STUDY)
    assert parent["params"] == launched
    tags = {name: parent["tags"][name] for name in ("hpo.budget.trials", "hpo.budget.time_s", "hpo.version.torch")}
    assert tags == {"hpo.budget.trials": "200", "hpo.budget.time_s": "7200.0", "hpo.version.torch": "2.14.0"}


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("val/loss", "val/loss"),
        ("top-5 acc.", "top-5 acc."),
        ("größe", "gr__e"),
        ("a//b", "a__b"),
        ("/x", "_x"),
        ("../x", "__x"),
        (".", "_"),
        ("a:b", "a_b"),
    ],
)
def test_names_that_mlflow_refuses_are_mended(name: str, safe: str) -> None:
    assert safe_name(name) == safe


# --- how it is sent --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [False, True], ids=["request lost", "answer lost"])
def test_a_fault_in_any_call_changes_nothing_in_the_end(after: bool) -> None:
    reference = sent(folded(story()))
    assert reference.calls > 20
    for breaks in range(1, reference.calls + 1):
        store, projection = Memory(breaks, after=after), folded(story())
        with pytest.raises(ConnectionError):
            sent(projection, store)
        assert sent(projection, store).runs == reference.runs  # the same process goes on
        store = Memory(breaks, after=after)
        with pytest.raises(ConnectionError):
            sent(folded(story()), store)
        assert sent(folded(story()), store).runs == reference.runs  # another process starts over


@pytest.mark.parametrize("after", [False, True], ids=["request lost", "answer lost"])
def test_after_a_fault_it_is_enough_to_send_again(after: bool) -> None:
    """Only a run that was asked for is looked for before it is asked for again; nothing else needs to be known."""
    reference = sent(folded(story()))
    for breaks in range(1, reference.calls + 1):
        store, projection = Memory(breaks, after=after), folded(story())
        with pytest.raises(ConnectionError):
            send(projection, store, everything=True)
        send(projection, store, everything=True)
        assert store.runs == reference.runs


def test_a_status_and_a_tag_that_were_overtaken_are_sent_again() -> None:
    """As when a frozen server does late what was asked of it before the end."""
    projection = folded(story())
    store = sent(projection)
    reference = sent(folded(story())).runs
    store.shown("1").update(status=Status.RUNNING, ended=0)
    store.shown("4")["tags"]["hpo.state"] = "running"
    recognise(projection, store)
    assert projection.behind == 2
    send(projection, store, everything=True)
    assert store.runs == reference


def test_while_it_runs_finished_trials_are_sent_and_the_rest_with_everything() -> None:
    projection, store = folded(story(end=None)), Memory()
    send(projection, store, everything=False)
    assert {run["tags"]["hpo.trial"] for run in store.runs} == {STUDY, "0", "1", "2", "3", "4"}
    send(projection, store, everything=True)
    assert store.shown("5")["status"] is Status.RUNNING
    assert len(store.shown("5")["points"]) == 2
    assert projection.behind == 0


def test_what_the_store_refuses_is_reported_and_the_rest_is_sent() -> None:
    projection, store = folded(story()), Memory()
    recognise(projection, store)
    send(folded(story()[:7]), store, everything=True)
    store.shown("1")["params"]["width"] = "changed by hand"
    projection = folded(story())
    recognise(projection, store)
    answers = [send(projection, store, everything=True) for _ in range(REFUSALS)]
    assert answers == [[]] * (REFUSALS - 1) + [["fashion-0001: changing a parameter"]]
    assert store.shown("4")["status"] is Status.FINISHED
    assert projection.behind == 0


@pytest.mark.parametrize(("key", "tag"), [("1", "hpo.detail.odd"), (STUDY, "hpo.version.odd")])
def test_a_tag_that_the_store_refuses_costs_no_run(key: str, tag: str) -> None:
    """Neither its own nor, where that is the study's, those of the trials."""
    events: list[Event] = [Created("s", SPEC, {"odd": "1"})]
    for number in range(3):
        events += [Asked(number, {"width": 4}, 1), *measured(number, 0.5)]
        events.append(Finished(number, State.PRUNED, "asha", "stopped", {"odd": 1} if number == 1 else {}))
    store, projection = Memory(refused=tag), folded(events)
    for _ in range(REFUSALS):
        with suppress(Refused):  # which the shipper waits out, too
            send(projection, store, everything=True)
    assert sorted(run["tags"]["hpo.trial"] for run in store.runs) == ["0", "1", "2", STUDY]
    assert tag not in store.shown(key)["tags"]
    assert {store.shown(other)["status"] for other in {"0", "1", "2"} - {key}} == {Status.KILLED}


def test_long_runs_and_wide_spaces_are_sent_in_pieces() -> None:
    epochs = POINTS_A_CALL * 2 + 1
    events = [Created("s", SPEC, {}), Asked(0, {f"p{i}": i for i in range(250)}, 1), *measured(0, *[0.5] * epochs), Ended("budget", 0)]
    run = sent(folded(events)).shown("0")
    assert len(run["params"]) == 252
    assert sum(p.name == "val_accuracy" for p in run["points"]) == epochs


# --- MLflow itself ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A study home whose database is made once; the environment is the shipper's."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in tracking.environment().items():
            patch.setenv(name, value)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield tmp_path_factory.mktemp("home")


def wrote(home: Path, name: str, events: Sequence[Event]) -> Path:
    with Journal.create(home / name / "journal.jsonl") as journal:
        journal.append(events)
    return home / name


def runs_of(home: Path, name: str) -> dict[str, MlflowRun]:
    client = MlflowClient(tracking.database_uri(home))
    experiment = client.get_experiment_by_name("experiment")
    found = client.search_runs([experiment.experiment_id], f"tags.`hpo.study` = '{name}'")
    by_key = {run.data.tags["hpo.trial"]: run for run in found}
    assert len(by_key) == len(found)
    return by_key


def points_of(home: Path, name: str) -> dict[tuple[str, str], list[tuple[int, float]]]:
    client = MlflowClient(tracking.database_uri(home))
    return {
        (key, metric): [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, metric)]
        for key, run in runs_of(home, name).items()
        for metric in run.data.metrics
    }


def ship(folder: Path, patience_s: float = 0.0) -> bool:
    """Ship in this process what there is; its parent is gone."""
    return Shipper(folder, lambda _: True, patience_s).run()


def without_champion(events: Sequence[Event]) -> list[Event]:
    return [Ended(event.reason) if isinstance(event, Ended) else event for event in events]


def test_a_study_in_mlflow(home: Path) -> None:
    folder = wrote(home, "shown", without_champion(story(name="shown")))
    assert ship(folder)
    runs = runs_of(home, "shown")
    assert {key: run.info.status for key, run in runs.items()} == {
        STUDY: "FINISHED", "0": "FINISHED", "1": "KILLED", "2": "FAILED", "3": "FAILED", "4": "FINISHED", "5": "KILLED",
    }  # fmt: skip
    assert {run.data.tags.get("mlflow.parentRunId") for key, run in runs.items() if key != STUDY} == {runs[STUDY].info.run_id}
    assert points_of(home, "shown")["0", "val_accuracy"] == [(1, 0.5), (2, 0.9), (3, 0.8)]
    assert all({"width", "dropout", "depth", "max_epochs"} <= set(run.data.params) for key, run in runs.items() if key != STUDY)
    client = MlflowClient(tracking.database_uri(home))
    assert [file.path for file in client.list_artifacts(runs[STUDY].info.run_id)] == ["spec.json"]
    state = tracking.read_state(folder)
    assert state is not None
    assert (state.uri, state.parent_run_id) == (tracking.database_uri(home), runs[STUDY].info.run_id)
    assert (state.shipped, state.done, state.error) == (len(story()), True, "")


def test_a_study_in_mlflow_has_a_view_of_its_trials_and_a_report_drawn_at_each_end(home: Path) -> None:
    written(home / "reported", STORIES["mixed"], [Ended("budget")])
    assert ship(home / "reported")
    client, state = MlflowClient(tracking.database_uri(home)), tracking.read_state(home / "reported")
    assert state is not None
    (name,) = (name for name in client.get_experiment(state.experiment_id).tags if name.startswith(TAG))
    client.set_experiment_tag(state.experiment_id, name, "changed by hand")
    before = client.download_artifacts(state.parent_run_id, "report/index.html")
    assert "is done" in Path(before).read_text()
    assert any(file.path.endswith(".png") for file in client.list_artifacts(state.parent_run_id, "report"))
    with Journal.open(home / "reported" / "journal.jsonl") as journal:
        journal.append([RESUMED, Ended("time")])
    assert ship(home / "reported")
    after = client.download_artifacts(state.parent_run_id, "report/index.html")
    assert "its time is spent" in Path(after).read_text()
    assert client.get_experiment(state.experiment_id).tags[name] == "changed by hand"


def test_a_report_that_cannot_be_drawn_and_a_view_that_is_refused_leave_the_record_done(
    home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(MlflowClient, "set_experiment_tag", lambda *_: (_ for _ in ()).throw(PermissionError("no tags")))
    monkeypatch.setattr("hpo.attachments.Drawing", lambda _: (_ for _ in ()).throw(OSError("no process")))
    monkeypatch.setattr("hpo.attachments._drawn", lambda _: (_ for _ in ()).throw(ValueError("no ink")))
    folder = wrote(home, "plain-record", without_champion(story(name="plain-record")))
    assert ship(folder)
    state = tracking.read_state(folder)
    assert state is not None
    assert (state.done, state.error) == (True, "")
    said = capfd.readouterr().out
    assert "the report could not be drawn: ValueError: no ink" in said
    assert "PermissionError: no tags" in said


def test_an_interrupted_study_takes_no_time_for_a_report(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_drawn", "Drawing"):
        monkeypatch.setattr(f"hpo.attachments.{name}", lambda _: pytest.fail("drew a report"))
    assert ship(wrote(home, "cut-short", without_champion(story(name="cut-short", end="interrupted"))))


def test_shipping_again_adds_nothing(home: Path) -> None:
    folder = wrote(home, "again", without_champion(story(name="again")))
    assert ship(folder)
    before = points_of(home, "again")
    assert ship(folder)
    MlflowClient(tracking.database_uri(home)).update_run(runs_of(home, "again")["0"].info.run_id, "RUNNING")  # as if not closed yet
    assert ship(folder)
    assert points_of(home, "again") == before
    assert runs_of(home, "again")["0"].info.status == "FINISHED"


@pytest.mark.parametrize("calls", [2, 5, 9, 14])
def test_a_shipper_that_dies_anywhere_is_made_up_for(home: Path, monkeypatch: pytest.MonkeyPatch, calls: int) -> None:
    name = f"killed-{calls}"
    folder = wrote(home, name, without_champion(story(name=name)))
    left = calls

    def counted(method: str) -> Any:
        real = getattr(MlflowClient, method)

        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            left -= 1
            answer = real(*args, **kwargs)
            if left == 0:
                raise KeyboardInterrupt  # nothing in the shipper holds that up
            return answer

        return call

    with monkeypatch.context() as patch:
        for method in ("create_run", "log_batch", "set_terminated"):
            patch.setattr(MlflowClient, method, counted(method))
        with pytest.raises(KeyboardInterrupt):
            ship(folder)
    assert ship(folder)
    reference = {key: points for key, points in points_of(home, "shown").items() if key[0] != STUDY}
    assert {key: points for key, points in points_of(home, name).items() if key[0] != STUDY} == reference
    assert len(runs_of(home, name)) == 7


def test_a_late_duplicate_is_deleted(home: Path) -> None:
    folder = wrote(home, "doubled", without_champion(story(name="doubled")))
    assert ship(folder)
    first = runs_of(home, "doubled")["1"]
    client = MlflowClient(tracking.database_uri(home))
    for key in ("hpo.state", "hpo.rule"):  # one fuller than the other: what was sent is not what goes
        copy = {name: value for name, value in first.data.tags.items() if name != key}
        client.create_run(first.info.experiment_id, first.info.start_time, copy)
    assert ship(folder)
    assert runs_of(home, "doubled")["1"].info.run_id == first.info.run_id


def test_a_dead_driver_leaves_nothing_running(home: Path) -> None:
    folder = wrote(home, "dead", story(name="dead", end=None))
    assert ship(folder)
    runs = runs_of(home, "dead")
    assert {run.info.status for run in runs.values()} == {"FINISHED", "KILLED", "FAILED"}
    assert [runs[key].data.tags["hpo.state"] for key in ("5", STUDY)] == ["interrupted", "interrupted"]


@pytest.mark.parametrize("reason", ["interrupted", "error"])
def test_an_interrupted_study_ships_its_points_and_no_champion(home: Path, monkeypatch: pytest.MonkeyPatch, reason: str) -> None:
    """Its command is to be over at once, and its best may not be the best in the end."""
    monkeypatch.setattr(shipper, "crowned", lambda *_: pytest.fail("took the time for a champion"))
    folder = wrote(home, reason, story(name=reason, end=reason))
    assert ship(folder)
    assert points_of(home, reason)["0", "val_accuracy"] == [(1, 0.5), (2, 0.9), (3, 0.8)]
    assert {run.info.status for run in runs_of(home, reason).values()} <= {"FINISHED", "KILLED", "FAILED"}


def test_what_mlflow_refuses_is_not_called_recorded(home: Path) -> None:
    folder = wrote(home, "refused", without_champion(story(name="refused")))
    assert ship(folder)
    client, run = MlflowClient(tracking.database_uri(home)), runs_of(home, "refused")["1"]
    client.update_run(run.info.run_id, "RUNNING")  # as if not closed yet
    with closing(sqlite3.connect(home / tracking.DATABASE)) as database, database:
        database.execute("update params set value = 'changed' where run_uuid = ? and key = 'width'", [run.info.run_id])
    assert not ship(folder)
    state = tracking.read_state(folder)
    assert state is not None
    assert not state.done
    assert "refused-0001: " in state.error
    assert runs_of(home, "refused")["5"].info.status == "KILLED"  # the others are not held up


def test_two_processes_on_a_fresh_home_and_a_study_that_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    names = ("one", "two")
    events = {name: without_champion(story(name=name)) for name in names}
    journals = {name: Journal.create(tmp_path / name / "journal.jsonl") for name in names}
    for name in names:
        journals[name].append(events[name][:5])
    processes = [tracking.start_shipper(tmp_path / name) for name in names]
    for name in names:
        journals[name].append(events[name][5:])
        journals[name].close()
    for name, process in zip(names, processes, strict=True):
        with process:
            assert process.wait(120) == 0, (tmp_path / name / tracking.LOG_FILE).read_text()
        assert len(runs_of(tmp_path, name)) == 7
        assert points_of(tmp_path, name)["4", "best_val_accuracy"] == [(2, 0.6)]


def test_a_database_that_was_cut_off_in_its_making_is_made_again(tmp_path: Path) -> None:
    """MLflow refuses for ever what a process left that died in the first migration: so the database gets its name at the end."""
    uri = tracking.database_uri(tmp_path)
    making = f"from hpo.opening import open_store; open_store({uri!r}, 'experiment')"
    with subprocess.Popen([sys.executable, "-c", making], env=os.environ | tracking.environment()) as process:
        until(lambda: any(path.stat().st_size for path in tmp_path.glob(".mlflow.db.*.new")), "the migration to begin")
        process.kill()
    assert not (tmp_path / tracking.DATABASE).exists()
    assert list(tmp_path.glob(".mlflow.db.*.new"))
    store = open_store(uri, "experiment")
    assert open_store(uri, "experiment").experiment_id == store.experiment_id
    assert {path.name for path in tmp_path.iterdir()} == {tracking.DATABASE, ".mlflow.lock"}
    locations = {found.name: found.artifact_location for found in MlflowClient(uri).search_experiments()}
    artifacts = (tmp_path / tracking.ARTIFACTS).as_uri()
    assert locations == {"Default": f"{artifacts}/0", "experiment": f"{artifacts}/experiment"}
    connected = {str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink() and link.exists()}
    assert not [name for name in connected if ".new" in name]


def test_a_shipper_waits_its_turn_but_not_for_ever(tmp_path: Path) -> None:
    held = lease.take(tmp_path / tracking.STATE_FILE)
    assert not turns.take_turn(tmp_path, lambda _: True, 0.0)  # its own study is over, and another ships it still

    def wait(seconds: float) -> bool:
        os.close(held)
        return False

    assert turns.take_turn(tmp_path, wait, 0.0)
    with pytest.raises(lease.LeaseHeld):
        lease.take(tmp_path / tracking.STATE_FILE)


# --- servers that are away -------------------------------------------------------------------------------------------


def test_a_server_that_never_answers_is_given_up_after_the_end(home: Path) -> None:
    events = story(name="absent")
    assert isinstance(events[0], Created)
    events[0] = Created("absent", SPEC | {"tracking": {"uri": "http://127.0.0.1:9"}}, {})
    folder = wrote(home, "absent", events)
    assert not ship(folder)
    state = tracking.read_state(folder)
    assert state is not None
    assert not state.done
    assert "127.0.0.1" in state.error


def test_pauses_grow_while_a_server_is_away_and_it_catches_up(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = wrote(home, "late", without_champion(story(name="late", end=None)))
    pauses: list[float] = []
    away = iter([True] * 8)

    def open_when_back(*args: Any) -> Any:
        if next(away, False):
            raise ConnectionError("refused")
        return open_store(*args)

    def wait(seconds: float) -> bool:
        pauses.append(seconds)
        return len(pauses) > 9

    monkeypatch.setattr(shipper, "open_store", open_when_back)
    assert Shipper(folder, wait).run()
    assert pauses[:8] == [1, 2, 4, 8, 16, 30, 30, 30]
    assert pauses[8] == shipper.POLL_S
    assert len(runs_of(home, "late")) == 7


def test_a_server_that_takes_some_of_it_is_not_left_waiting(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every fifth answer is lost: the pause before the next try is the shortest, as long as the tries get on."""
    folder = wrote(home, "lossy", without_champion(story(name="lossy")))
    pauses: list[float] = []
    calls = itertools.count(1)
    real = MlflowClient.log_batch

    def lossy(*args: Any, **kwargs: Any) -> None:
        real(*args, **kwargs)
        if next(calls) % 5 == 0:
            raise ConnectionError("the answer was lost")

    monkeypatch.setattr(MlflowClient, "log_batch", lossy)
    assert Shipper(folder, lambda seconds: bool(pauses.append(seconds)), 60.0).run()
    assert pauses == [shipper.SHORTEST_PAUSE_S]
    assert len(runs_of(home, "lossy")) == 7


def test_a_long_list_of_runs_is_read_whole_from_a_server_that_loses_answers(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Page by page: a list that began anew after every lost answer would never end."""
    folder = wrote(home, "paged", without_champion(story(name="paged")))
    assert ship(folder)
    real, calls = MlflowClient.search_runs, itertools.count()

    def lossy(*args: Any, **kwargs: Any) -> Any:
        if next(calls) % 4:
            raise ConnectionError("the answer was lost")
        return real(*args, **kwargs)

    monkeypatch.setattr(store_module, "PAGE", 2)
    monkeypatch.setattr(MlflowClient, "search_runs", lossy)
    store = open_store(tracking.database_uri(home), "experiment")
    projection = Projection()
    for record in read(folder / "journal.jsonl"):
        projection.apply(record)
    assert set(store.find(projection.study_id)) == {STUDY, "0", "1", "2", "3", "4", "5"}
    assert next(calls) > 4 * 3
    monkeypatch.setattr(MlflowClient, "search_runs", lambda *_, **__: (_ for _ in ()).throw(ConnectionError("refused")))
    with pytest.raises(ConnectionError):
        store.find(projection.study_id)


# --- the edges -------------------------------------------------------------------------------------------------------


def test_where_the_record_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking.tracking_uri(tmp_path, None) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://server:5000")
    assert tracking.tracking_uri(tmp_path, None) == "http://server:5000"
    assert tracking.tracking_uri(tmp_path, "http://own:5000") == "http://own:5000"
    assert tracking.tracking_uri(tmp_path, "http://own:5000", "http://moved:5000") == "http://moved:5000"


def test_where_the_record_was_moved_to_outlives_every_shipper(home: Path, tmp_path: Path) -> None:
    folder = wrote(home, "moved", without_champion(story(name="moved")))
    tracking.write_state(folder, tracking.TrackingState("", moved_to=tracking.database_uri(tmp_path)))
    assert ship(folder)
    state = tracking.read_state(folder)
    assert state is not None
    assert (state.moved_to, state.uri, state.done) == (tracking.database_uri(tmp_path), tracking.database_uri(tmp_path), True)
    assert len(runs_of(tmp_path, "moved")) == 7


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("http://host:5000", "http://host:5000"),
        ("http://me:secret@host:5000", "http://***@host:5000"),
        ("postgresql://me:secret@host/db", "postgresql://***@host/db"),
        ("postgresql://host/db?user=me&password=secret&x=1", "postgresql://host/db?user=me&password=***&x=1"),
    ],
)
def test_no_password_is_shown_or_kept(uri: str, shown: str) -> None:
    assert tracking.public(uri) == shown
    assert tracking.holds_password(uri) is (shown != uri)


@pytest.mark.parametrize(
    ("said", "short"),
    [
        (
            "API request to http://me:secret@h failed (by X('h: [Errno 111] Connection refused'))",
            "gives no answer: [Errno 111] Connection refused",
        ),
        ('API request to h failed (by ReadTimeoutError("h: Read timed out. (1)"))', "gives no answer: Read timed out"),
        ("RESOURCE_DOES_NOT_EXIST: No experiment secret\nand more", "RESOURCE_DOES_NOT_EXIST: No experiment ***"),
    ],
)
def test_what_mlflow_says_is_told_in_short(said: str, short: str) -> None:
    told = tracking.in_short(said, "http://me:secret@h")
    assert told == (f"http://***@h {short}" if "no answer" in short else short)


@pytest.mark.parametrize(
    ("uri", "file"),
    [
        ("sqlite:////a/b.db", Path("/a/b.db")),
        ("sqlite:///b.db", Path.cwd() / "b.db"),
        ("sqlite+pysqlite:////a/b.db?mode=rw", Path("/a/b.db")),
        ("sqlite://", None),
        ("sqlite:///:memory:", None),
        ("http://host/x", None),
    ],
)
def test_which_file_a_database_is(uri: str, file: Path | None) -> None:
    assert tracking.sqlite_file(uri) == file


@pytest.mark.parametrize("content", ["", "[]", '{"uri": 1, "later": 2}', "{"])
def test_a_state_that_cannot_be_read_is_no_state(tmp_path: Path, content: str) -> None:
    assert tracking.read_state(tmp_path) is None
    (tmp_path / tracking.STATE_FILE).write_text(content)
    assert tracking.read_state(tmp_path) is None


def test_the_ui_is_one_worker_on_loopback_without_telemetry_or_pickle(tmp_path: Path) -> None:
    command = tracking.ui_command(tmp_path)
    assert command[0] == "/usr/bin/env"
    assert {
        "MLFLOW_DISABLE_TELEMETRY=true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION=false",
    } <= set(command)
    options = dict(itertools.pairwise(command))
    assert (options["--host"], options["--port"], options["--workers"]) == ("127.0.0.1", "5000", "1")
    assert options["--backend-store-uri"] == tracking.database_uri(tmp_path)


def test_the_drivers_side_imports_no_mlflow() -> None:
    modules = "hpo.tracking, hpo.journal, hpo.projection, hpo.sending, hpo.shipping, hpo.comparing"
    program = f"import sys, {modules}; print('mlflow' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=os.environ)
    assert answer.stdout.strip() == "False"

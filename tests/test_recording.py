"""MLflow is compared with the journal row by row, and made equal to it again, after anything."""

from __future__ import annotations

import sqlite3
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric, Run

from hpo import tracking, trust
from hpo.comparing import Kind
from hpo.errors import EngineError
from hpo.events import Ended, Event, Measured
from hpo.journal import FILE_NAME, Journal
from hpo.mlflow_runs import CHAMPION_TAG, STUDY
from hpo.problem import SpecError
from hpo.recording import TrackingError, check, track
from hpo.shipper import Shipper
from hpo.tracking import database_uri, read_state
from tests.chaos import mlflow_faults
from tests.chaos.mlflow_scene import Server, free_port, until
from tests.test_tracking import runs_of, story, without_champion, wrote

with warnings.catch_warnings():  # MLflow warns of its own type hints when it is imported
    warnings.simplefilter("ignore")
    import hpo.champion  # noqa: F401

# MLflow's own use of SQLAlchemy
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A study home whose database is made once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield tmp_path_factory.mktemp("home")


def recorded(home: Path, name: str, events: Sequence[Event] | None = None) -> Path:
    """A study without a champion, and its record."""
    folder = wrote(home, name, without_champion(story(name=name)) if events is None else events)
    with tracking.surroundings(tracking.environment()):
        assert Shipper(folder, lambda _: True, 0.0).run()
    return folder


class Record:
    """A study's record, to be damaged."""

    def __init__(self, home: Path, name: str) -> None:
        self.home, self.name = home, name
        self.client = MlflowClient(database_uri(home))

    def run(self, key: str) -> Run:
        return runs_of(self.home, self.name)[key]

    def id(self, key: str) -> str:
        return str(self.run(key).info.run_id)

    def sql(self, statement: str, *values: object) -> None:
        with closing(sqlite3.connect(self.home / tracking.DATABASE)) as database, database:
            database.execute(statement, values)

    def copy(self, key: str, **tags: str) -> None:
        run = self.run(key)
        wanted = ("hpo.study", "hpo.study_id", "hpo.trial", "mlflow.parentRunId")
        own = {name: value for name, value in run.data.tags.items() if name in wanted}
        self.client.create_run(run.info.experiment_id, run.info.start_time, own | tags)

    def again(self, key: str) -> None:
        """A point of epoch 1 a second time, as a shipper with a clock of its own would send it."""
        point = next(m for m in self.client.get_metric_history(self.id(key), "val_accuracy") if m.step == 1)
        self.client.log_batch(self.id(key), [Metric("val_accuracy", point.value, point.timestamp + 1, point.step)])


Damage = Callable[[Record], Any]
DAMAGES: list[tuple[str, Damage, dict[Kind, int]]] = [
    ("a run is gone", lambda r: r.client.delete_run(r.id("1")), {Kind.MISSING: 1}),
    ("the parent is gone", lambda r: r.client.delete_run(r.id(STUDY)), {Kind.MISSING: 1, Kind.WRONG: 6}),
    ("a run twice", lambda r: r.copy("1"), {Kind.DOUBLED: 1}),
    ("the parent twice", lambda r: r.copy(STUDY), {Kind.DOUBLED: 1}),
    ("a run of no trial", lambda r: r.copy("1", **{"hpo.trial": "99"}), {Kind.EXTRA: 1}),
    ("a point twice", lambda r: r.again("0"), {Kind.EXTRA: 1}),
    ("another metric", lambda r: r.client.log_metric(r.id("0"), "mine", 1.0), {Kind.EXTRA: 1}),
    ("points are gone", lambda r: r.sql("delete from metrics where run_uuid = ? and step = 2", r.id("0")), {Kind.MISSING: 3}),
    ("another value", lambda r: r.sql("update metrics set value = 0.1 where run_uuid = ? and step = 3 and key = 'val_accuracy'", r.id("0")),
     {Kind.MISSING: 1, Kind.EXTRA: 1}),
    ("another parameter", lambda r: r.client.log_param(r.id("0"), "mine", 1), {Kind.EXTRA: 1}),
    ("a parameter is gone", lambda r: r.sql("delete from params where run_uuid = ? and key = 'width'", r.id("0")), {Kind.MISSING: 1}),
    ("a parameter differs", lambda r: r.sql("update params set value=1 where run_uuid = ? and key = 'width'", r.id("1")), {Kind.WRONG: 1}),
    ("a tag differs", lambda r: r.client.set_tag(r.id("1"), "hpo.state", "running"), {Kind.WRONG: 1}),
    ("a tag is gone", lambda r: r.client.delete_tag(r.id("1"), "hpo.reason"), {Kind.MISSING: 1}),
    ("a colour is gone", lambda r: r.client.delete_tag(r.id("1"), "mlflow.runColor"), {Kind.MISSING: 1}),
    ("another tag of ours", lambda r: r.client.set_tag(r.id("1"), "hpo.not_finite.loss", "nan"), {Kind.EXTRA: 1}),
    ("the best trial differs", lambda r: r.client.set_tag(r.id(STUDY), "hpo.best_trial", "3"), {Kind.EXTRA: 1}),
    ("another parent", lambda r: r.client.set_tag(r.id("2"), "mlflow.parentRunId", r.id("1")), {Kind.WRONG: 1}),
    ("running", lambda r: r.client.update_run(r.id("3"), "RUNNING"), {Kind.WRONG: 1}),
    ("ended later", lambda r: r.client.set_terminated(r.id("3"), "FAILED", 2**41), {Kind.WRONG: 1}),
    ("started later", lambda r: r.sql("update runs set start_time = 1 where run_uuid = ?", r.id("3")), {Kind.WRONG: 1}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "damage", "kinds"), DAMAGES, ids=[name for name, *_ in DAMAGES])
def test_every_damage_is_found_and_mended_once(home: Path, name: str, damage: Damage, kinds: dict[Kind, int]) -> None:
    study = name.replace(" ", "-")
    folder = recorded(home, study)
    damage(Record(home, study))
    found = check(folder)
    assert {kind: found.count(kind) for kind in Kind if found.count(kind)} == kinds, list(map(str, found.differences))
    done = track(folder)
    assert (done.changed, done.after.differences) == (True, [])
    assert not track(folder).changed
    assert len(runs_of(home, study)) == 7
    state = read_state(folder)
    assert state is not None
    assert (state.done, state.error, state.uri, state.moved_to) == (True, "", database_uri(home), "")
    assert state.parent_run_id == Record(home, study).id(STUDY)


def test_what_people_add_in_mlflow_is_theirs(home: Path) -> None:
    folder = recorded(home, "annotated")
    record = Record(home, "annotated")
    record.client.set_tag(record.id("0"), "mlflow.note.content", "look at this one")
    record.client.set_tag(record.id(STUDY), "mlflow.note.content", "our best search")  # where there was one of ours
    record.client.set_tag(record.id("1"), "mlflow.runColor", "#000000")
    record.client.set_tag(record.id("0"), "team", "vision")
    record.client.update_run(record.id("0"), name="the good one")
    assert not track(folder).changed
    record.client.log_param(record.id("1"), "mine", 1)  # can't be taken out: the run is made again
    assert track(folder).runs_made == 1
    assert record.run("1").data.tags["mlflow.runColor"] == "#000000"
    assert not track(folder).changed


def test_what_was_compared_is_counted(home: Path) -> None:
    found = check(recorded(home, "counted"))
    client, runs = MlflowClient(database_uri(home)), runs_of(home, "counted").values()
    points = sum(len(client.get_metric_history(run.info.run_id, name)) for run in runs for name in run.data.metrics)
    ours = ("hpo.", "mlflow.parentRunId", "mlflow.source.", "mlflow.runColor", "mlflow.note.content")
    tags = sum(name.startswith(ours) for run in runs for name in run.data.tags)
    assert (found.runs, found.points, found.tags) == (7, points, tags)
    assert found.params == sum(len(run.data.params) for run in runs)
    assert (found.models, found.champion) == (0, "")


def test_a_study_without_any_record_gets_one_and_looking_makes_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = wrote(tmp_path, "fresh", without_champion(story(name="fresh")))
    assert check(folder).count(Kind.MISSING) == 7
    assert {path.name for path in tmp_path.iterdir()} == {"fresh"}
    done = track(folder)
    assert (done.runs_made, done.after.differences) == (7, [])
    assert done.points_sent == done.after.points
    parent = runs_of(tmp_path, "fresh")[STUDY]
    assert [file.path for file in MlflowClient(database_uri(tmp_path)).list_artifacts(parent.info.run_id)] == ["spec.json"]


def test_a_dead_drivers_study_is_recorded_as_interrupted(home: Path) -> None:
    folder = wrote(home, "dead-driver", story(name="dead-driver", end=None))
    assert track(folder).after.differences == []
    assert {run.info.status for run in runs_of(home, "dead-driver").values()} == {"FINISHED", "KILLED", "FAILED"}
    with Journal.open(folder / FILE_NAME) as journal:  # while somebody goes on with it, its trials run
        done = track(folder)
        assert (done.ends_set, done.after.differences) == (2, [])
        assert runs_of(home, "dead-driver")["5"].info.status == "RUNNING"
        journal.append([Ended("interrupted")])
    assert {str(d).partition(":")[2].split()[0] for d in check(folder).differences} == {"wrong", "missing"}
    assert track(folder).after.differences == []


def test_the_champion_is_a_row_where_the_studys_end_asks_for_it(home: Path) -> None:
    """Nothing was saved here, so what must be there is the reason why there is no model."""
    events = [e for e in story(name="crowned", end="interrupted") if not isinstance(e, Ended)]
    folder = recorded(home, "crowned", [*events, Ended("interrupted", 0)])
    assert (check(folder).models, check(folder).differences) == (0, [])
    assert "nothing was saved here" in track(folder).champion
    parent = runs_of(home, "crowned")[STUDY]
    assert parent.data.tags[CHAMPION_TAG].startswith("no model of trial 0: ")
    assert not track(folder).changed
    with Journal.open(folder / FILE_NAME) as journal:
        journal.append([Measured(5, 3, 0.95, {"val_accuracy": 0.95}, 0.5), Ended("budget", 5)])
    assert "fashion-mlp: missing model of trial 5, the best" in map(str, check(folder).differences)
    done = track(folder)
    assert (done.after.models, done.after.differences) == (1, [])
    assert done.after.champion.startswith("no model of trial 5: ")
    state = read_state(folder)
    assert state is not None
    assert state.champion_note == done.champion


# --- elsewhere -------------------------------------------------------------------------------------------------------


def test_a_record_is_moved_and_later_shippers_follow(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = recorded(home, "moving", story(name="moving", end="interrupted"))
    monkeypatch.chdir(tmp_path)
    done = track(folder, "sqlite:///other.db")
    other = f"sqlite:///{tmp_path}/other.db"
    assert (done.uri, done.note, done.after.differences) == (other, "", [])
    assert not track(folder).changed
    assert len(runs_of(home, "moving")) == 7  # what was recorded stays where it was
    with Journal.open(folder / FILE_NAME) as journal:
        journal.append([Measured(5, 3, 0.95, {"val_accuracy": 0.95}, 0.5), Ended("interrupted")])
    with tracking.surroundings(tracking.environment()):
        assert Shipper(folder, lambda _: True, 0.0).run()
    assert check(folder).differences == []
    state = read_state(folder)
    assert state is not None
    assert (state.uri, state.moved_to) == (other, other)
    assert track(folder, database_uri(home)).after.differences == []  # and back


def test_a_record_is_looked_for_where_it_was_made(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLFLOW_TRACKING_URI was set where the study ran, and is not where somebody looks."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///there.db")
    folder = recorded(home, "elsewhere")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    monkeypatch.chdir("/")
    assert check(folder).differences  # the file that says where is no word of this user's: it looks in the study home
    trust.vouch([trust.mlflow(f"sqlite:///{tmp_path}/there.db")])  # as a launch does
    assert check(folder).differences == []
    assert not track(folder).changed
    state = read_state(folder)
    assert state is not None
    assert (state.uri, state.moved_to) == (f"sqlite:///{tmp_path}/there.db", "")


def test_where_nothing_was_ever_recorded_is_no_place_to_look(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    folder = wrote(home, "vain", without_champion(story(name="vain")))
    with tracking.surroundings(tracking.environment()):
        assert not Shipper(folder, lambda _: True, 0.0).run()
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert track(folder).uri == database_uri(home)


def test_an_address_with_a_password_is_used_and_not_kept(home: Path, server: Server) -> None:
    folder = recorded(home, "secret")
    done = track(folder, f"http://me:hidden@127.0.0.1:{server.port}")
    assert done.after.differences == []
    assert "not kept" in done.note
    state = read_state(folder)
    assert state is not None
    assert state.moved_to == ""
    for file in folder.rglob("*"):
        assert file.is_dir() or b"hidden" not in file.read_bytes()
    assert check(folder).differences == []  # what was recorded before


@pytest.mark.parametrize("uri", ["ftp://host", "http://", "http://host:port", "nonsense"])
def test_an_address_that_cannot_be_one_is_refused_at_once(home: Path, uri: str) -> None:
    folder = home / "nowhere"
    with pytest.raises(SpecError, match="--uri"):
        track(folder, uri)


def test_a_server_that_is_away_is_an_error_after_the_patience_and_nothing_is_moved(home: Path) -> None:
    folder = recorded(home, "unreachable")
    uri = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(TrackingError, match=f"{uri} gives no answer: .*Connection refused; the journal has everything"):
        track(folder, uri, patience_s=0.0)
    assert issubclass(TrackingError, EngineError)  # an exit code of its own
    state = read_state(folder)
    assert state is not None
    assert (state.uri, state.moved_to, state.done) == (database_uri(home), "", True)
    assert track(folder).changed is False


def test_nothing_is_done_while_the_studys_own_shipper_is_at_work(home: Path) -> None:
    folder = wrote(home, "shipping", without_champion(story(name="shipping", end=None)))
    with tracking.start_shipper(folder) as process:
        until(lambda: (state := read_state(folder)) and state.shipped, "the shipper")
        with pytest.raises(TrackingError, match=f"the record of shipping is being written by process {process.pid} on "):
            track(folder)
    assert process.returncode == 0
    assert not track(folder).changed


# --- faults, each in a small study; the long ones are tests.chaos's ----------------------------------------------------


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real server on loopback."""
    with Server(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.mark.parametrize(
    ("fault", "size", "happened"),
    [
        (mlflow_faults.absent, {"trials": 5}, {}),
        (mlflow_faults.frozen, {}, {}),
        (mlflow_faults.killed, {}, {}),
        (mlflow_faults.failing, {"calls": 25}, {"answers of 500": 3}),
        (mlflow_faults.dropping, {"calls": 40}, {"answers dropped": 5}),
        (mlflow_faults.late, {}, {}),
        (mlflow_faults.shipper_killed, {"kills": 2}, {"kills": 1}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_afterwards_mlflow_equals_the_journal(
    tmp_path: Path, server: Server, fault: Any, size: dict[str, int], happened: dict[str, int]
) -> None:
    outcome = fault(tmp_path, server=server, **size)
    assert outcome.ok, outcome
    assert outcome.counts["runs"] > 5
    assert outcome.counts["points"] > 20
    for what, times in happened.items():
        assert outcome.counts[what] >= times

"""Whole studies whose checkpoints are elsewhere: power cuts between any two steps, zombies, and real Ray over an S3 store of its own."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from hpo import checkpoints, objects, places, storage, trial_files, trust
from hpo.engine import local
from hpo.engine.worker import TrialRun
from hpo.errors import NoSpace
from hpo.events import Created, Finished, Measured, Retried
from hpo.exporting import export
from hpo.home import HomeError
from hpo.journal import FILE_NAME, Journal
from hpo.objects import ObjectPath, StorageError
from hpo.places import Place
from hpo.results import StoredStudy
from hpo.session import Session
from hpo.spec import Spec
from hpo.trial import Decision, State
from hpo.trial_files import BEST, trial_folder
from hpo.verifying import repair, verify
from tests.conftest import Hpo, needs_two_processors
from tests.object_store import Store, running
from tests.promotion_trainers import NOTES
from tests.test_promotion_engine import spec, told
from tests.test_ray_engine import SPEC, Driver, wait_for
from tests.test_storage import Cuts, PowerCut

KEEP, PAUSED = 2, 2


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with running(tmp_path_factory.mktemp("store")) as found:
        yield found


def storage_of(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if kind == "a shared folder":
        found = str(tmp_path / "shared")
        Path(found).mkdir()
    else:
        found = f"{request.getfixturevalue('store').uri}/{tmp_path.name}"
    trust.vouch([trust.kept_in(found)])  # as a launch does
    return found


@pytest.fixture(params=["a shared folder", "objects"])
def elsewhere(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A storage of each kind that other machines reach, as a spec names it."""
    return storage_of(request.param, request, tmp_path)


@pytest.fixture(params=["the study's folder", "a shared folder", "objects"])
def kept_in(request: pytest.FixtureRequest, tmp_path: Path) -> str | None:
    """A storage of each kind; None is the study's folder."""
    return None if request.param == "the study's folder" else storage_of(request.param, request, tmp_path)


@pytest.fixture(autouse=True)
def _own_scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))  # where trainers of this process keep files


def waiting(kept_in: str | None, **sections: Any) -> Spec:
    """Trials that wait at rungs, of which few keep what they have."""
    return spec(checkpoints={"every": "1h", "keep": KEEP, "paused": PAUSED, "storage": kept_in}, **{"budget": {"trials": 8}, **sections})


def opened(folder: Path, what: Spec) -> tuple[Journal, Session]:
    """The study in `folder`, begun or gone on with."""
    path, first = folder / FILE_NAME, None
    is_new = not path.exists()
    journal = Journal.create(path) if is_new else Journal.open(path)
    if is_new:
        first = Created(folder.name, what.to_dict(), {}, storage=storage.of_new_study(what.checkpoints.storage, folder.name))
        journal.append([first])
    return journal, Session(what, what.trainer.name, folder, journal, created=first)


def ran(folder: Path, what: Spec) -> StoredStudy:
    journal, session = opened(folder, what)
    with journal:
        session.end(local.run(session))
    return StoredStudy.open(folder)


def assert_sound(study: StoredStudy) -> None:
    """All agrees, nothing is left over, and the best is the best."""
    assert [check for check in verify(study.folder, ask_mlflow=False) if not check.ok] == []
    found = list(trial_files.checkpoints_of(study.root))
    assert {path.name for _, path in found} == {BEST}
    trials = sorted(study.trials, key=lambda t: -(t.best(study.spec.objective.direction) or t.measurements[0]).value)
    assert {number for number, _ in found} == {trial.number for trial in trials[:KEEP]}
    for number, path in found:
        best = study.trials[number].best(study.spec.objective.direction)
        assert best is not None
        assert checkpoints.label(path) == {"epoch": best.epoch, "value": best.value}


class DriversCuts(Cuts):
    """Cuts the power while the driver, and not a worker in its process, changes what is stored."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.is_workers = False
        super().__init__(patch)
        for name in ("advance", "close"):
            patch.setattr(TrialRun, name, self._of_worker(getattr(TrialRun, name)))

    def _of_worker(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def called(*words: Any) -> Any:
            self.is_workers = True
            try:
                return method(*words)
            finally:
                self.is_workers = False

        return called

    def _counted(self, step: Callable[..., Any]) -> Callable[..., Any]:
        counted = super()._counted(step)

        def taken(*words: Any, **more: Any) -> Any:
            is_drivers = threading.current_thread().name.startswith("in-turn") or not self.is_workers
            return (counted if is_drivers else step)(*words, **more)

        return taken


def cut_off(folder: Path, what: Spec, cuts: DriversCuts, steps: int) -> bool:
    """Run the study until the driver has taken so many steps, and no further; whether it came so far."""
    journal, session = opened(folder, what)
    cuts.left = steps
    is_cut = False
    with journal:
        try:
            session.end(local.run(session))
        except PowerCut:
            is_cut = True
        while True:  # threads that do nothing any more but fail
            try:
                session.settled()
                break
            except PowerCut:
                is_cut = True
    cuts.left = 10**9
    return is_cut


def test_a_power_cut_between_any_two_steps_of_a_drivers_is_made_up_for(
    kept_in: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal then says more than the storage: a resume puts it in order, and the study ends as if nothing had been."""
    whole = ran(tmp_path / "whole" / "s", waiting(kept_in))
    assert_sound(whole)
    events = told([record.event for record in whole.records])
    cuts, steps = DriversCuts(monkeypatch), 0
    while cut_off(folder := tmp_path / f"{steps}" / "s", waiting(kept_in), cuts, steps):
        resumed = ran(folder, waiting(kept_in))
        assert told([record.event for record in resumed.records])[1:] == events[1:]
        assert_sound(resumed)
        shutil.rmtree(folder)
        steps += 1 if kept_in and "://" in kept_in else 7
    assert steps > 15


def test_a_store_that_fails_is_no_decisions_matter_and_the_study_stops_closed_at_the_end(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    what, remove = waiting(f"{store.uri}/{tmp_path.name}"), objects.remove
    trust.vouch(trust.demands(what))

    def refused(paths: Any) -> None:
        if list(paths):
            raise StorageError(errno.EREMOTEIO, "objects could not be removed: 503 Slow Down", "s3://studies")

    monkeypatch.setattr(objects, "remove", refused)
    with pytest.raises(NoSpace, match=r"s3://studies: objects could not be removed: 503 Slow Down; `hpo resume s` does it again"):
        ran(tmp_path / "s", what)
    monkeypatch.setattr(objects, "remove", remove)
    resumed = ran(tmp_path / "s", what)
    assert_sound(resumed)


def test_what_zombies_write_into_trials_that_are_over_is_no_harm_and_goes_with_the_next_resume(elsewhere: str, tmp_path: Path) -> None:
    """A worker behind a cut link, of an attempt that was given up long ago, writes on under its own names."""
    study = ran(tmp_path / "s", waiting(elsewhere))
    kept = {number: checkpoints.load(path) for number, path in trial_files.checkpoints_of(study.root)}
    for number in (0, 1, min(kept)):
        for name in ("last-1.1", "best-1.1"):
            checkpoints.save(trial_folder(study.root, number) / name, {"epoch": 99, checkpoints.LABEL: {"epoch": 99, "value": 9.0}})
    found = {check.name: check for check in verify(study.folder, ask_mlflow=False)}
    assert all(check.ok for check in found.values())
    assert f"; {2 * len({0, 1, min(kept)})} that workers wrote after they were given up are no harm" in found["checkpoints"].found
    with Journal.open(study.folder / FILE_NAME) as journal:
        Session(study.spec, study.spec.trainer.name, study.folder, journal).settled()
    assert {number: checkpoints.load(path) for number, path in trial_files.checkpoints_of(study.root)} == kept
    assert_sound(StoredStudy.open(study.folder))


def test_a_zombie_of_a_trial_that_the_journal_lost_is_not_gone_on_from(store: Store, tmp_path: Path) -> None:
    """Another trial has its number since, asked for under a later lease."""
    what = waiting(f"{store.uri}/{tmp_path.name}", budget={"trials": 1}, pruner={"name": "none"})
    trust.vouch(trust.demands(what))
    journal, session = opened(tmp_path / "s", what)
    journal.close()  # it died before its first trial was in the journal
    checkpoints.save(trial_folder(session.root, 0) / "last-1.1", {"epoch": 5, "hpo": {"measurements": []}})
    journal, session = opened(tmp_path / "s", what)
    with journal:
        checkpoints.save(trial_folder(session.root, 0) / "last-1.1", {"epoch": 8, "hpo": {"measurements": []}})  # it writes on
        session.end(local.run(session))
    (trial,) = StoredStudy.open(tmp_path / "s").trials
    assert (trial.state, trial.epoch) == (State.COMPLETE, 9)
    assert [m.metrics["start"] for m in trial.measurements] == [0.0] * 9
    assert_sound(StoredStudy.open(tmp_path / "s"))


def test_a_damaged_checkpoint_elsewhere_is_found_set_aside_and_not_gone_on_from(elsewhere: str, tmp_path: Path) -> None:
    study = ran(tmp_path / "s", waiting(elsewhere))
    number, path = next(iter(trial_files.checkpoints_of(study.root)))
    file: Place = path if isinstance(path, ObjectPath) else path / "state.json"
    content = objects.read(file) if isinstance(file, ObjectPath) else file.read_bytes()
    broken = content[:-20] + bytes([content[-20] ^ 1]) + content[-19:]
    objects.write(file, broken) if isinstance(file, ObjectPath) else file.write_bytes(broken)
    wrong = {check.name: check.found for check in verify(study.folder, ask_mlflow=False) if not check.ok}
    assert wrong.keys() == {"checkpoints"}
    assert str(file) in wrong["checkpoints"]
    (line,) = repair(study.folder)
    assert f"it is now {path.with_name('damaged-best')}" in line
    assert set(places.names(trial_folder(study.root, number))) - {NOTES} == {"damaged-best"}


def test_no_decision_waits_for_the_store(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver's own thread asks it nothing between a study's beginning and its end; what it decides is done beside."""
    what = waiting(f"{store.uri}/{tmp_path.name}")
    trust.vouch(trust.demands(what))
    journal, session = opened(tmp_path / "s", what)
    asked: dict[str, set[str]] = {"driver": set(), "worker": set(), "beside": set()}
    whose = ["driver"]

    def watched(name: str, ask: Callable[..., Any]) -> Callable[..., Any]:
        def asking(*words: Any) -> Any:
            asked["beside" if threading.current_thread().name.startswith("in-turn") else whose[0]].add(name)
            return ask(*words)

        return asking

    for name in ("write", "read", "size", "names", "below", "remove", "copy"):
        monkeypatch.setattr(objects, name, watched(name, getattr(objects, name)))
    with journal:
        while (given := session.next()) is not None:
            whose[0] = "worker"
            with closing(TrialRun(given, capture=False)) as run:
                report = run.advance()
                while True:
                    whose[0] = "driver"
                    if session.take(given.number, report) is not Decision.CONTINUE:
                        break
                    whose[0] = "worker"
                    report = run.advance()
                whose[0] = "worker"
            whose[0] = "driver"
        session.end("budget")
    assert asked["driver"] == set()
    assert asked["worker"] >= {"write", "names", "read"}
    assert asked["beside"] >= {"names", "copy", "remove"}
    assert_sound(StoredStudy.open(tmp_path / "s"))


# --- real Ray -------------------------------------------------------------------------------------------------------------------


@needs_two_processors
def test_on_ray_a_killed_worker_and_a_killed_driver_go_on_from_the_store(hpo: Hpo, home: Path, elsewhere: str, store: Store) -> None:
    name = "stored-" + ("there" if "://" in elsewhere else "shared")
    words = ("--trials", "3", "--set", "trainer.settings.max_epochs=10", "--set", f"checkpoints.storage={elsewhere}")
    with Driver(home, name, "steady", *words) as driver:

        def by(trial: int) -> list[Measured]:
            if not (driver.folder / FILE_NAME).exists():
                return []
            return [event for event in driver.events if isinstance(event, Measured) and event.trial == trial]

        wait_for(lambda: len(by(0)) >= 3)
        killed = int(by(0)[-1].metrics["process"])
        os.kill(killed, signal.SIGKILL)
        wait_for(lambda: by(0)[-1].metrics["process"] != killed)
        driver.running.kill()
        driver.end()
        known = {trial: len(by(trial)) for trial in range(3)}
    assert not list((home / name).glob("trials/*/last-*"))  # none is in the study's folder
    done = hpo("resume", name)
    assert done.code == 0, done.err
    study = StoredStudy.open(home / name)
    assert str(study.root).startswith(f"{elsewhere}/{name}-")
    for trial in study.trials:
        assert [m.epoch for m in trial.measurements] == list(range(1, 11))
        later = [m for m in trial.measurements[known[trial.number] :] if known[trial.number]]
        assert all(m.metrics["restored"] >= known[trial.number] - 1 for m in later)  # one interval at most is trained again
    assert sum(isinstance(record.event, Retried) for record in study.records) >= 1
    assert [check for check in verify(study.folder) if not check.ok] == []
    assert places.names(places.place(elsewhere)) == [study.root.name]  # and nothing beside it
    assert study.best is not None
    assert checkpoints.load(study.best.checkpoint or study.root)["epoch"] == 10
    with pytest.raises(HomeError, match=rf"has no `model`, only epoch, hpo, weights; it is in {elsewhere}/"):
        export(study, home / "exported")
    deleted = hpo("delete", name, "--yes")
    assert deleted.code == 0, deleted.err
    assert deleted.out.strip() == f"removed {home / name} and {study.root}"
    assert places.names(places.place(elsewhere)) == []
    assert not (home / name).exists()


@needs_two_processors
def test_on_ray_a_trainer_that_hangs_is_found_out_through_the_store(hpo: Hpo, home: Path, store: Store) -> None:
    words = ["--trainer", "tests.ray_trainers:stuck", "--name", "stuck-elsewhere", "--set", "limits.trial_timeout=2s"]
    done = hpo("launch", str(SPEC), *words, "--set", f"checkpoints.storage={store.uri}/hung")
    assert done.code == 0, done.err
    study = StoredStudy.open(home / "stuck-elsewhere")
    assert {trial.number: trial.state for trial in study.trials} == {n: State.FAILED if n == 1 else State.COMPLETE for n in range(6)}
    (failed,) = [event for record in study.records if isinstance(event := record.event, Finished) and event.state is State.FAILED]
    assert failed.rule == "timeout"
    assert failed.reason.endswith(f"; where it hung is in {study.root}/trials/00001/hang-1.1.log")
    explained = hpo("explain", "stuck-elsewhere", "1", "--json").json
    (log,) = [Path(log) for log in explained["logs"] if "hang" in log]
    assert log == study.folder / "trials" / "00001" / "hang-1.1.log"
    assert "ray_trainers.py" in log.read_text()  # the line of the trainer
    assert "in stuck" in log.read_text()


@needs_two_processors
def test_on_ray_a_model_is_chosen_tested_registered_and_exported_from_the_store(hpo: Hpo, home: Path, store: Store) -> None:
    words = ("--name", "digits-elsewhere", "--trials", "6", "--epochs", "20", "--set", f"checkpoints.storage={store.uri}/digits")
    done = hpo("launch", "search_spaces/digits.yaml", *words, "--json")
    assert done.code == 0, done.err
    best = done.json["best"]
    assert best["model_uri"] == "models:/digits-mlp/1"
    assert best["checkpoint"].startswith(f"{store.uri}/digits/digits-elsewhere-")
    assert best["choice"]["test"] is not None
    study = StoredStudy.open(home / "digits-elsewhere")
    assert [check for check in verify(study.folder) if not check.ok] == []
    exported = hpo("export", "digits-elsewhere", str(home / "model"))
    assert exported.code == 0, exported.err
    assert (home / "model" / "model.safetensors").stat().st_size > 1000
    with suppress(StorageError):
        shown = hpo("best", "digits-elsewhere")
        assert best["checkpoint"] in shown.out


@needs_two_processors
def test_what_can_be_read_without_the_store_is_read(hpo: Hpo, home: Path, store: Store) -> None:
    kept_in = ("--set", f"checkpoints.storage={store.uri}/away")
    done = hpo("launch", str(SPEC), "--trainer", "tests.ray_trainers:steady", "--name", "away", "--trials", "1", "--local", *kept_in)
    assert done.code == 0, done.err
    away = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    for words in (("status", "away"), ("trials", "away"), ("best", "away"), ("explain", "away", "0"), ("status",)):
        assert hpo(*words, **away).code == 0, words
    (log,) = hpo("explain", "away", "0", "--json", **away).json["logs"]
    assert log.startswith(f"{store.uri}/away/away-")  # where they are
    checked = hpo("verify", "away", "--offline", **away)
    assert checked.code != 0
    assert "cannot be listed: " in checked.out
    assert hpo("verify", "away", "--offline").code == 0

"""A stranger's folder runs nothing: canaries in all of it, every command over it, as a user calls it and from inside."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from contextlib import closing, suppress
from pathlib import Path

import pytest

from hpo.tracking import TrackingState, write_state
from tests.canaries import CONTROLS, Canaries, forge
from tests.conftest import Done

HPO = str(Path(sys.executable).with_name("hpo"))  # as it is installed: `python -c` and `-m` import from the current folder first
SPEC = """
name: honest
trainer: {name: mlp, settings: {dataset: digits, max_epochs: 2, batch_size: 64, depth: 1}}
objective: {metric: val_accuracy, direction: maximize}
space: {learning_rate: {type: float, low: 1e-4, high: 1e-1, log: true}}
sampler: {name: random}
pruner: {name: none}
budget: {trials: 3}
resources: {gpus: 0}
finals: none
"""
# every command, and the codes that it may end with
COMMANDS: dict[str, tuple[list[str], set[int]]] = {
    "status": (["status", "STUDY"], {0}),
    "list": (["status"], {0, 65}),
    "trials": (["trials", "STUDY", "--json"], {0}),
    "best": (["best", "STUDY"], {0}),
    "explain": (["explain", "STUDY", "0"], {0}),
    "replay": (["replay", "STUDY"], {0}),
    "verify --offline": (["verify", "STUDY", "--offline"], {0}),
    "verify --repair": (["verify", "STUDY", "--offline", "--repair"], {0}),
    "report": (["report", "STUDY"], {0}),
    "verify": (["verify", "STUDY"], {0, 1}),
    "export": (["export", "STUDY", "EMPTY"], {0}),
    "track": (["track", "STUDY"], {0, 1}),
    "resume": (["resume", "STUDY", "--local"], {0}),
    "resume what was cut off": (["resume", "cut", "--local"], {0}),
    "stop": (["stop", "STUDY"], {2}),
    "trust": (["trust", "STUDY"], {0}),
    "track elsewhere": (["track", "STUDY", "--uri", "sqlite:///EMPTY.db"], {0, 1}),
    "compare": (["compare", "STUDY", "twin", "--out", "EMPTY"], {0}),
    "validate": (["validate", "FILE"], {0}),
    "plan": (["plan", "FILE", "--simulate"], {0}),
    "launch": (["launch", "FILE", "--name", "launched", "--local", "--set", "budget.trials=1"], {0}),
    "trainers": (["trainers"], {0}),
    "data": (["data", "list"], {0}),
    "delete": (["delete", "launched", "--yes"], {0}),
}


def hpo(home: Path, here: Path, *words: str, **environment: str) -> Done:
    """The command as it is installed, called in the folder `here`."""
    env = os.environ | {"HPO_HOME": str(home), "CUDA_VISIBLE_DEVICES": ""} | environment
    env.pop("MLFLOW_TRACKING_URI", None)
    env.pop("PYTHONPATH", None)
    done = subprocess.run([HPO, *words], capture_output=True, text=True, env=env, cwd=here, timeout=250, check=False, input="")
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with one study, of which MLflow has all."""
    home = tmp_path_factory.mktemp("launched")
    (home / "spec.yaml").write_text(SPEC)
    done = hpo(home, home, "launch", "spec.yaml", "--local")
    assert done.code == 0, done.err
    return home


@pytest.fixture
def canaries(tmp_path: Path) -> Canaries:
    return Canaries(tmp_path / "song")


def strangers(launched: Path, folder: Path, canaries: Canaries) -> Path:
    """A copy of the home with canaries in every folder of it, and MLflow's own record of it."""
    home = folder / "home"
    shutil.copytree(launched, home)
    _move(home / "mlflow.db", str(launched), str(home))
    models = [path.parent for path in home.rglob("MLmodel")]
    assert len(models) == 1
    canaries.plant_model(models[0])
    forge(home / "honest", home / "twin", {"seed": 1, "sampler": {"name": "qmc"}})
    forge(home / "honest", home / "cut", {}, lines=4)
    canaries.plant_git(_planted(canaries, home))
    for study in (home / "honest", home / "twin", home / "cut"):
        _planted(canaries, study)
    folders = [path for path in (home / "honest").rglob("*") if path.is_dir() and (path.name.isdecimal() or path.name == "best")]
    assert len(folders) == 6
    for path in folders:
        canaries.plant_data(path)
        (path / "__init__.py").write_text(canaries.code("init"))
    return home


def _move(database: Path, old: str, new: str) -> None:
    """Have MLflow's record say that its artifacts are where they are now."""
    with closing(sqlite3.connect(database)) as record, record:
        for (table,) in record.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            for _, column, kind, *_ in record.execute(f"PRAGMA table_info({table})").fetchall():
                if "CHAR" in kind or "TEXT" in kind:
                    record.execute(f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (old, new))  # noqa: S608


def _planted(canaries: Canaries, folder: Path) -> Path:
    assert canaries.plant_modules(folder) > 300
    canaries.plant_data(folder)
    return folder


# --- the canaries sing for who is careless ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", CONTROLS)
def test_a_canary_sings_for_who_is_careless(kind: str, tmp_path: Path, canaries: Canaries) -> None:
    (planted := tmp_path / "planted").mkdir()
    canaries.plant_git(_planted(canaries, planted))
    name, command = CONTROLS[kind]
    subprocess.run([sys.executable, "-P", "-c", command, str(planted / name)], cwd=tmp_path, check=False, capture_output=True)
    assert canaries.sung


# --- and for no command ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["home", "study"])
def planted(request: pytest.FixtureRequest, launched: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Canaries]:
    """A stranger's home, and the folder in it where the user is."""
    folder = tmp_path_factory.mktemp("stranger")
    canaries = Canaries(folder / "song")
    home = strangers(launched, folder, canaries)
    (folder / "spec.yaml").write_text(SPEC)
    return home, home if request.param == "home" else home / "honest", canaries


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_runs_anything_of_a_strangers_home(command: str, planted: tuple[Path, Path, Canaries]) -> None:
    home, here, canaries = planted
    words, codes = COMMANDS[command]
    given = {"STUDY": "honest", "FILE": str(home.parent / "spec.yaml"), "EMPTY": str(home.parent / f"empty-{here.name}-{words[0]}")}
    given["sqlite:///EMPTY.db"] = f"sqlite:///{home.parent}/elsewhere-{here.name}.db"
    done = hpo(home, here, *(given.get(word, word) for word in words))
    assert canaries.sung == []
    assert done.code in codes, done.err


def test_nor_does_python(planted: tuple[Path, Path, Canaries]) -> None:
    home, here, canaries = planted
    code = "import hpo; s = hpo.open_study('honest'); print(s.best.value, s.counts, s.trials_dataframe(), s.tracking, s.standing)"
    done = subprocess.run([sys.executable, "-P", "-c", code], env=os.environ | {"HPO_HOME": str(home)}, cwd=here, check=False)
    assert (done.returncode, canaries.sung) == (0, [])


def test_nor_does_the_server_of_the_ui(planted: tuple[Path, Path, Canaries]) -> None:
    home, here, canaries = planted
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [HPO, "ui", "--port", str(port)]
    with subprocess.Popen(command, env=os.environ | {"HPO_HOME": str(home)}, cwd=here, start_new_session=True) as server:
        try:
            assert _answers(f"http://127.0.0.1:{port}/health", server)
            assert canaries.sung == []
        finally:
            os.killpg(server.pid, signal.SIGKILL)


def _answers(url: str, server: subprocess.Popen[bytes]) -> bool:
    until = time.monotonic() + 200
    while time.monotonic() < until and server.poll() is None:
        with suppress(OSError), urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status == 200
        time.sleep(0.2)
    return False


# --- what a journal asks for ------------------------------------------------------------------------------------------------

NAMED = ["evil_module:train", "evil_package.sub:train", "os:system", "IPython:train", "nowhere_at_all:train"]
READING = ["status", "trials", "best", "explain", "replay", "verify --offline", "report"]


@pytest.fixture(scope="module")
def asking(launched: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Canaries]:
    """A home full of modules, with studies whose journals name them."""
    folder = tmp_path_factory.mktemp("asking")
    canaries, home = Canaries(folder / "song"), folder / "home"
    home.mkdir()
    canaries.plant_modules(home)
    for name in NAMED:
        study = home / _study_of(name)
        shutil.copytree(launched / "honest", study)
        forge(launched / "honest", study, {"trainer": {"name": name}})
        (study / "tracking.json").unlink()
        canaries.plant_modules(study)
    return home, canaries


def _study_of(trainer: str) -> str:
    return trainer.partition(":")[0].replace(".", "-")


@pytest.mark.parametrize("trainer", NAMED)
def test_code_that_a_journal_names_is_not_imported_to_resume_it(trainer: str, asking: tuple[Path, Canaries]) -> None:
    home, canaries = asking
    for here in (home, home / _study_of(trainer)):
        for words in (["--local"], ["--trials", "5"]):
            done = hpo(home, here, "resume", _study_of(trainer), *words)
            assert canaries.sung == []
            assert done.code == 2
            assert f"wants to run the code {trainer}" in done.err
            assert f"`hpo trust {_study_of(trainer)}`" in done.err


@pytest.mark.parametrize("command", [*READING, "export", "track", "verify", "trust"])
def test_nor_by_any_other_command(command: str, asking: tuple[Path, Canaries]) -> None:
    home, canaries = asking
    words, codes = COMMANDS[command]
    for trainer in NAMED[:3]:
        name = _study_of(trainer)
        given = {"STUDY": name, "EMPTY": str(home.parent / f"exported-{name}")}
        done = hpo(home, home, *(given.get(word, word) for word in words))
        assert canaries.sung == []
        assert done.code in ({2, 130} if command == "trust" else codes), done.err  # nobody said yes, or `os` is no file
    if command == "export":
        told = json.loads((home.parent / "exported-os" / "model.json").read_text())
        assert (told["trainer"], told["entry"], told["build"]) == ("os:system", "os:system", None)
    if command == "track":
        assert "no model is registered, for that would run the code os:system" in done.out


def test_code_is_run_for_who_trusts_it(launched: Path, tmp_path: Path, canaries: Canaries) -> None:
    (project := tmp_path / "project").mkdir()
    canaries.plant_modules(project)
    theirs = {"trainer": {"name": "evil_module:train", "settings": {"max_epochs": 2}}}
    forge(launched / "honest", project / "runs" / "a", theirs, lines=1)
    own = {"XDG_STATE_HOME": str(tmp_path / "state")}
    assert hpo(project / "runs", project, "trust", "a", "--yes", **own).code == 0
    assert canaries.sung == []  # to trust is to run nothing
    done = hpo(project / "runs", project, "resume", "a", "--local", **own)
    assert done.code == 0, done.err
    assert {"evil_module-in-project"} <= set(canaries.sung)
    assert (tmp_path / "state" / "hpo" / "vouched.jsonl").stat().st_mode & 0o077 == 0


def test_what_lies_in_a_study_is_run_for_nobody(launched: Path, tmp_path: Path, canaries: Canaries) -> None:
    home = tmp_path / "runs"
    forge(launched / "honest", home / "a", {"trainer": {"name": "evil_module:train"}}, lines=1)
    canaries.plant_modules(home / "a")
    (tmp_path / "spec.yaml").write_text(SPEC)
    own = {"XDG_STATE_HOME": str(tmp_path / "state")}
    assert "not to be found from here" in hpo(home, home / "a", "trust", "a", "--yes", **own).err
    assert hpo(home, home / "a", "resume", "a", "--local", **own).code == 2
    launch = hpo(home, home / "a", "launch", str(tmp_path / "spec.yaml"), "--trainer", "evil_module:train", "--local", **own)
    assert launch.code == 2
    assert "No module named 'evil_module'" in launch.err
    assert canaries.sung == []


ADDRESSES = ["http://127.0.0.1:{port}", "http://user:${{env:CANARY_SECRET}}@127.0.0.1:{port}", "postgresql://me@127.0.0.1:{port}/x"]


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("where", ["journal", "tracking.json"])
def test_nobody_is_talked_to_because_a_journal_says_so(where: str, address: str, launched: Path, tmp_path: Path) -> None:
    """Not even to verify: the request would carry the user's password of MLflow, or the secret that the address names."""
    home = tmp_path / "runs"
    with socket.socket() as ear:
        ear.bind(("127.0.0.1", 0))
        ear.listen()
        ear.setblocking(False)
        uri = address.format(port=ear.getsockname()[1])
        forge(launched / "honest", home / "a", {"tracking": {"uri": uri}} if where == "journal" else {})
        if where == "tracking.json":
            write_state(home / "a", TrackingState(uri, "1", "2", moved_to=uri))
        for words in (["verify", "a"], ["track", "a", "--patience", "1s"], ["resume", "a", "--local", "--trials", "4"], ["best", "a"]):
            done = hpo(home, home, *words, CANARY_SECRET="hunter2-hunter2", MLFLOW_TRACKING_PASSWORD="hunter2-hunter2")
            assert "hunter2" not in done.out + done.err
            if words[0] in ("track", "resume"):
                assert done.code == 2
                assert "wants to talk to MLflow at" in done.err
        with pytest.raises(BlockingIOError):
            ear.accept()


def test_a_database_that_a_journal_names_is_not_made(launched: Path, tmp_path: Path) -> None:
    home = tmp_path / "runs"
    forge(launched / "honest", home / "a", {"tracking": {"uri": f"sqlite:///{tmp_path}/mine/x.db"}})
    forge(launched / "honest", home / "b", {"tracking": {"uri": f"sqlite:///{tmp_path}/mine/x.pth"}})
    for words in (["verify"], ["track"], ["resume", "--local"]):
        for name in ("a", "b"):
            assert hpo(home, home, words[0], name, *words[1:]).code in (1, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs"]

"""A stranger's folder runs nothing: canaries in all of it, every command over it, as a user calls it and from inside."""

from __future__ import annotations

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

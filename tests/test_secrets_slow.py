"""Planted secrets in a whole search, on real Ray, with MLflow behind a password over PostgreSQL: none is in anything that was written."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
import string
import subprocess
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest

from hpo.engine.ray_processes import LOCK, PREFIX, ROOT, STREAMS
from hpo.results import StoredStudy
from hpo.tracking import LOG_FILE, read_state
from hpo.trial import State
from hpo.trial_files import trial_folder
from tests.conftest import ROOT as CHECKOUT
from tests.conftest import Done, hpo_command
from tests.planted_trainer import FROM_ENVIRONMENT, KINDS, argument
from tests.servers import postgres
from tests.servers.mlflow_server import GuardedServer
from tests.servers.postgres import OWNER, Postgres

pytestmark = [
    pytest.mark.skipif(bool(postgres.why_not()), reason=postgres.why_not()),
    pytest.mark.timeout(900),
]
LETTERS = string.ascii_letters + string.digits
TRAINER = ("--trainer", "tests.planted_trainer:train")
LEAST = 20  # secrets
LONGEST_S = 800  # of a search on a machine however busy
SHORT = "".join(secrets.choice(LETTERS) for _ in range(8))


def drawn(number: int) -> str:
    """A secret, each of another kind."""
    word = "".join(secrets.choice(LETTERS) for _ in range(24))
    kinds = [word, f"{word}/+=", f"{word[:9]}@{word[9:]}:%41", f'it\'s "{word}"', f"{word[:12]}\\n{word[12:]}", f"é{word}ß", SHORT]
    return kinds[number % len(kinds)] + (str(number) if number >= len(kinds) else "")


def written_ways(secret: str) -> set[bytes]:
    """The secret as it is and as programs write it; of base64 what neighbours have no part in. Others than what the engine looks for."""
    raw = secret.encode()
    ways = {raw, quote(secret, safe="").encode(), quote(secret).encode(), quote_plus(secret).encode(), raw.hex().encode()}
    ways |= {json.dumps(secret)[1:-1].encode(), json.dumps(secret, ensure_ascii=False)[1:-1].encode(), repr(secret)[1:-1].encode()}
    ways |= {
        secret.encode("utf-16-le"),
        repr(raw)[2:-1].encode(),
        secret[: len(secret) // 2 + 1].encode(),
        secret[-(len(secret) // 2 + 1) :].encode(),
    }
    for before in (b"", b"u:", b"u"):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            ways.add(encode(before + raw)[4 if before else 0 : 4 * ((len(before) + len(raw)) // 3)])
    return {way for way in ways if len(way) >= 4}


def leaks(content: bytes, ways: dict[str, set[bytes]]) -> set[str]:
    """The names of the secrets that are in the bytes."""
    return {name for name, found in ways.items() if any(way in content for way in found)}


def grep(folder: Path, ways: dict[str, set[bytes]]) -> tuple[int, dict[str, set[str]]]:
    """How many files there are below a folder, and which of them have which secrets, in their names too; inside archives as well."""
    count, found = 0, {}
    for path in folder.rglob("*"):
        content = str(path).encode()
        if path.is_file() and not path.is_symlink():
            count += 1
            with suppress(OSError):
                content += path.read_bytes()
            if zipfile.is_zipfile(path):
                with zipfile.ZipFile(path) as archive:
                    content += b"".join(archive.read(name) for name in archive.namelist())
        if names := leaks(content, ways):
            found[str(path)] = names
    return count, found


class Watch(threading.Thread):
    """Looks at all command lines, and at what Ray and Tune write, while the search runs."""

    def __init__(self, ways: dict[str, set[bytes]]) -> None:
        super().__init__(daemon=True)
        self._ways, self._over = ways, threading.Event()
        self.command_lines: set[bytes] = set()
        self.scratch_files: set[str] = set()
        self.found: dict[str, set[str]] = {}

    def run(self) -> None:
        while not self._over.wait(0.1):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                with suppress(OSError):
                    self._look(path.read_bytes())
            for scratch in ROOT.glob(f"{PREFIX}*"):
                with suppress(OSError):
                    if _descends((scratch / LOCK).read_text().strip(), os.getpid()):
                        self._search(scratch)

    def _look(self, line: bytes) -> None:
        if line not in self.command_lines:
            self.command_lines.add(line)
            if names := leaks(line, self._ways):
                self.found[repr(line)] = names

    def _search(self, scratch: Path) -> None:
        for path in scratch.rglob("*"):
            # what a worker's C code or a child of its own prints is Ray's, in a folder that is ours alone and gone with the search
            if path.is_file() and not (path.name.startswith("worker-") and path.suffix in STREAMS):
                self.scratch_files.add(str(path))
                with suppress(OSError):
                    if names := leaks(path.read_bytes(), self._ways):
                        self.found[str(path)] = names

    def __enter__(self) -> Watch:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()


def _descends(process: str, ancestor: int) -> bool:
    while process not in ("", "0", "1"):
        if int(process) == ancestor:
            return True
        process = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1]
    return False


class Planting:
    """A private machine: home, caches, temporary folder; the secrets, where they are kept, and the spec that refers to them."""

    def __init__(self, folder: Path, server: GuardedServer) -> None:
        self.folder, self.server = folder, server
        self.values = {argument(kind): drawn(number) for number, kind in enumerate(KINDS)}
        self.values["of_logged"] = f"-----BEGIN KEY-----\n{secrets.token_urlsafe(36)}\n{secrets.token_urlsafe(36)}\n-----END KEY-----"
        self.password = server.add_user("hpo")
        self.values |= {name: secrets.token_hex(32 if name == "RAY_AUTH_TOKEN" else 20) for name in FROM_ENVIRONMENT}
        self.kept = folder / "kept"  # where the secrets' files are: the one folder that holds them
        self.home = folder / "studies"
        self.user = {"HOME": str(folder / "home"), "TMPDIR": str(folder / "tmp")}
        self.user |= {f"XDG_{name}_HOME": str(folder / name.lower()) for name in ("CACHE", "STATE", "CONFIG")}
        for place in (*self.user.values(), str(self.kept)):
            Path(place).mkdir()
        self.references = {name: self._plant(number, name) for number, name in enumerate(map(argument, KINDS))}

    def _plant(self, number: int, name: str) -> str:
        if number % 2 == 0 and "\n" not in self.values[name]:
            return f"${{env:{name.upper()}}}"
        file = self.kept / name
        file.touch(0o600)
        file.write_text(self.values[name] + "\n")
        return f"${{file:{file}}}"

    @property
    def ways(self) -> dict[str, set[bytes]]:
        """How each secret may be written; of a key of several lines each line."""
        found = {name: written_ways(value) for name, value in self.values.items() if "\n" not in value}
        for name, value in self.values.items():
            if "\n" in value:
                found[name] = set().union(*(written_ways(line) for line in value.splitlines()[1:-1]))
        return found | {"of the user in MLflow": written_ways(self.password)}

    @property
    def environment(self) -> dict[str, str]:
        given = {**self.values, "of_raised": f"Bearer {self.values['of_raised']}"}
        digests = {name: hashlib.sha256(given[name].encode()).hexdigest() for name in self.references}
        by_name = {name.upper(): self.values[name] for name, reference in self.references.items() if reference.startswith("${env:")}
        own = {name: self.values[name] for name in FROM_ENVIRONMENT}
        return {**self.user, **by_name, **own, "MLFLOW_USERS_PASSWORD": self.password, "HPO_TEST_DIGESTS": json.dumps(digests)}

    def hpo(self, *words: str, **changes: str) -> Done:
        env = os.environ | {"HPO_HOME": str(self.home), "CUDA_VISIBLE_DEVICES": ""} | self.environment | changes
        done = subprocess.run(hpo_command(*words), capture_output=True, text=True, env=env, cwd=CHECKOUT, timeout=LONGEST_S, check=False)
        return Done(done.returncode, done.stdout, done.stderr)

    def spec(self) -> Path:
        settings = {**self.references, "of_raised": f"Bearer {self.references['of_raised']}", "max_epochs": 3}
        file = self.folder / "planted.yaml"
        plain = {
            "name": "planted",
            "trainer": {"settings": settings},
            "objective": {"metric": "value", "direction": "maximize"},
            "space": {"kind": {"type": "categorical", "choices": list(KINDS)}},
            "sampler": {"name": "grid"},
            "pruner": {"name": "none"},
            "budget": {"trials": len(KINDS)},
            "resources": {"gpus": 0},
            "limits": {"trial_timeout": "60s", "retries": 1},
            "checkpoints": {"every": "0.001s"},
            "finals": {"top": 1, "seeds": 1},
            "tracking": {"uri": f"http://hpo:${{env:MLFLOW_USERS_PASSWORD}}@127.0.0.1:{self.server.port}", "patience": "120s"},
        }
        file.write_text(json.dumps(plain))  # which is YAML, too
        return file


@pytest.fixture(scope="module")
def database() -> Iterator[Postgres]:
    with Postgres() as running:
        yield running


@pytest.fixture(scope="module")
def server(database: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuardedServer]:
    database.create("record")
    with GuardedServer(tmp_path_factory.mktemp("server"), database, "record") as running:
        yield running


@pytest.fixture(scope="module")
def planting(server: GuardedServer, tmp_path_factory: pytest.TempPathFactory) -> Planting:
    return Planting(tmp_path_factory.mktemp("planting"), server)


@pytest.fixture(scope="module")
def searched(planting: Planting) -> tuple[Done, Watch]:
    """The whole search, watched."""
    with Watch(planting.ways) as watch:
        done = planting.hpo("launch", str(planting.spec()), *TRAINER, "--json")
    return done, watch


@pytest.fixture(scope="module")
def study(planting: Planting, searched: tuple[Done, Watch]) -> StoredStudy:
    done, _ = searched
    assert done.code == 0, done.err
    return StoredStudy.open(planting.home / "planted")


def dumped(database: Postgres, name: str) -> bytes:
    """All that is in a database, as text."""
    program = postgres.programs()
    address = database.uri(name, user=OWNER, password="")
    env = os.environ | {"PGPASSWORD": database.passwords[OWNER]}
    return subprocess.run([f"{program}/pg_dump", "--inserts", address], capture_output=True, check=True, env=env).stdout


def test_the_search_for_secrets_finds_them(tmp_path: Path) -> None:
    for number in range(7):
        secret = drawn(number)
        for way in written_ways(secret):
            (tmp_path / "file").write_bytes(b"before " + way + b" after")
            assert grep(tmp_path, {"it": written_ways(secret)}) == (1, {str(tmp_path / "file"): {"it"}})


def test_every_trial_had_its_secrets_and_ended_as_it_had_to(study: StoredStudy) -> None:
    assert len(study.trials) == len(KINDS)
    assert all(trial.measurements[0].metrics["right"] == 1.0 for trial in study.trials)
    ended = {str(trial.params["kind"]): trial.state for trial in study.trials}
    fine = {"printed", "in pieces", "letter by letter", "warned", "logged", "encoded", "environment", "model"}
    assert {kind for kind, state in ended.items() if state is State.COMPLETE} == fine
    assert {kind for kind, state in ended.items() if state is State.FAILED} == KINDS.keys() - fine


def test_what_was_kept_says_where_secrets_were(study: StoredStudy) -> None:
    """That nothing is found is no proof where nothing was written."""
    for trial in study.trials:
        kind, folder = str(trial.params["kind"]), trial_folder(study.folder, trial.number)
        kept = "".join(file.read_text(errors="replace") for file in folder.glob("*.log"))
        assert kind in ("metric's name", "metric", "state", "model") or "***" in kept, f"{kind}: {kept}"
    assert "***" in (study.folder / "test.log").read_text()
    assert "building with ***" in (study.folder / LOG_FILE).read_text()
    assert [found.note for found in study.study.test_results] == ["the test failed: RuntimeError: 403 for *** at planted_trainer.py:102"]


def test_the_record_is_whole_and_its_address_keeps_the_reference(planting: Planting, study: StoredStudy) -> None:
    state = read_state(study.folder)
    assert state is not None
    assert state.done, state
    assert state.uri == f"http://hpo:${{env:MLFLOW_USERS_PASSWORD}}@127.0.0.1:{planting.server.port}"
    assert state.champion_uri == "models:/planted/1"
    assert study.best is not None
    assert f'address("{state.uri}")' in study.best.how_to_load


def test_no_secret_is_in_anything_that_was_written(planting: Planting, study: StoredStudy, searched: tuple[Done, Watch]) -> None:
    done, watch = searched
    ways = planting.ways
    assert len(ways) > LEAST
    assert leaks((done.out + done.err).encode(), ways) == set()
    assert watch.found == {}
    assert len(watch.command_lines) > 10
    assert any("tune" in file for file in watch.scratch_files)
    for place in (planting.home, *map(Path, planting.user.values()), planting.server.folder, planting.server.postgres.folder):
        count, found = grep(place, ways)
        assert found == {}, place
        assert count > 0 or place.name in ("tmp", "home", "config")
    dump = dumped(planting.server.postgres, "record")
    assert b"planted" in dump
    assert leaks(dump, ways) == set()


@pytest.mark.parametrize(
    "words",
    [
        ("validate", "FILE"),  # which knows no code, and says so
        ("plan", "FILE", *TRAINER),
        ("status", "planted", "--json"),
        ("trials", "planted"),
        ("trials", "planted", "--json"),
        ("best", "planted", "--json"),
        ("report", "planted"),
        ("explain", "planted", "7"),
        ("verify", "planted"),
        ("track", "planted"),
        ("resume", "planted"),
        ("export", "planted", "FOLDER"),
    ],
    ids=" ".join,
)
def test_no_command_shows_one(words: tuple[str, ...], planting: Planting, study: StoredStudy) -> None:
    places = {"FILE": str(planting.folder / "planted.yaml"), "FOLDER": str(planting.folder / "home" / "exported")}
    done = planting.hpo(*(places.get(word, word) for word in words))
    assert done.code == (2 if words[0] == "validate" else 0), done.err
    assert leaks((done.out + done.err).encode(), planting.ways) == set()
    for place in (planting.home, planting.folder / "home"):
        assert grep(place, planting.ways)[1] == {}


# What fails


@contextmanager
def _one_that_fails(planting: Planting, uri: str, **environment: str) -> Iterator[tuple[Done, str]]:
    """A small search whose record cannot be made, and what was said of that."""
    name = f"failing-{secrets.token_hex(4)}"
    words = ["--set", f"tracking={{uri: '{uri}', patience: 2s}}", "--set", "finals=none", "--set", "budget.trials=2", "--local"]
    spec = str(Path(__file__).parent / "specs" / "plain.yaml")
    done = planting.hpo("launch", spec, "--trainer", "tests.small_trainers:quadratic", "--name", name, *words, **environment)
    state = read_state(planting.home / name)
    yield done, state.error if state else ""
    ways = planting.ways | {key: written_ways(value) for key, value in environment.items() if key != "MLFLOW_TRACKING_USERNAME"}
    assert leaks((done.out + done.err).encode(), ways) == set()
    assert grep(planting.home / name, ways)[1] == {}


def test_a_wrong_password_is_named_and_not_shown(planting: Planting) -> None:
    uri = f"http://hpo:${{env:WRONG}}@127.0.0.1:{planting.server.port}"
    with _one_that_fails(planting, uri, WRONG="wr0ng+pass/word%") as (done, error):
        assert done.code == 0
        assert error.startswith(f"{uri} does not know this user or password")


def test_nor_is_that_of_mlflows_own_variables(planting: Planting) -> None:
    known = {"MLFLOW_TRACKING_USERNAME": "hpo", "MLFLOW_TRACKING_PASSWORD": "wr0ng+pass/word%"}
    with _one_that_fails(planting, planting.server.uri, **known) as (done, error):
        assert done.code == 0
        assert "does not know this user or password" in error


def test_nor_is_that_of_a_database(planting: Planting) -> None:
    uri = f"postgresql://mlflow:${{env:WRONG}}@127.0.0.1:{planting.server.postgres.port}/record"
    with _one_that_fails(planting, uri, WRONG="wr0ng+pass/word%") as (done, error):
        assert done.code == 0
        assert error.startswith(f"{uri}: password authentication failed")


def test_a_record_straight_in_a_database_shows_no_password(planting: Planting, database: Postgres) -> None:
    database.create("straight")
    file = planting.kept / "database"
    file.touch(0o600)
    file.write_text(database.passwords["mlflow"])
    words = [
        "--set",
        f"tracking={{uri: 'postgresql://mlflow:${{file:{file}}}@127.0.0.1:{database.port}/straight'}}",
        "--set",
        "finals=none",
    ]
    spec = str(Path(__file__).parent / "specs" / "plain.yaml")
    done = planting.hpo("launch", spec, "--trainer", "tests.small_trainers:quadratic", "--name", "straight", "--local", *words)
    assert done.code == 0, done.err
    state = read_state(planting.home / "straight")
    assert state is not None
    assert state.done, state
    ways = {"database": written_ways(database.passwords["mlflow"])}
    assert grep(planting.home, ways)[1] == {}
    assert leaks(dumped(database, "straight") + (done.out + done.err).encode(), ways) == set()


def test_without_its_secrets_nothing_is_launched(planting: Planting) -> None:
    name, reference = next((name, reference) for name, reference in planting.references.items() if reference.startswith("${env:"))
    done = planting.hpo("launch", str(planting.spec()), *TRAINER, "--name", "never", **{name.upper(): "short"})
    assert done.code == 2
    assert f"trainer.settings.{name}: {reference} on " in done.err
    assert "has fewer than 6 characters" in done.err
    assert not (planting.home / "never").exists()
    assert leaks(done.err.encode(), planting.ways) == set()

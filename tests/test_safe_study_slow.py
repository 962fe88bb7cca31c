"""A whole study, in this process and on Ray, from a folder full of canaries: nothing that it leaves is a pickle, and Ray leaves nothing."""

from __future__ import annotations

import io
import os
import pickletools
import sqlite3
import subprocess
import zipfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from hpo.engine import ray_processes
from tests.canaries import Canaries
from tests.test_canaries import HPO

SPEC = """
name: digits
trainer: {name: mlp, settings: {dataset: digits, max_epochs: 3, batch_size: 64, depth: 1}}
objective: {metric: val_accuracy, direction: maximize}
space: {learning_rate: {type: float, low: 1e-3, high: 1e-1, log: true}}
budget: {trials: 3}
resources: {cpus: 1, gpus: 0}
checkpoints: {every: 0.001s}
finals: {top: 1, seeds: 1}
"""
# of a registered model: the two rows that its graph was traced with, in torch's own container; MLflow and torch read it by an unpickler
# that knows tensors alone, and neither takes a model without it
EXAMPLE = "model/data/sample_inputs/model.pt!archive/data.pkl"
TENSORS = {"torch._utils _rebuild_tensor_v2", "torch FloatStorage", "collections OrderedDict"}
TIME_S = 280
SMALL = b"\x80\x04\x95\x06\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94."  # a text, by protocol 4
EXPECTED = {"journal.jsonl", "state.json", "mlflow.db", "MLmodel", "model.pt2", "model.safetensors", "index.html"}  # the least


def globals_of(content: bytes) -> set[str] | None:
    """What unpickling `content` would import; None where that is no pickle."""
    found: set[str] = set()
    texts: list[str] = []
    try:
        for code, argument, _ in pickletools.genops(content):
            if code.name == "GLOBAL":
                found.add(str(argument))
            elif code.name == "STACK_GLOBAL":
                found.add(" ".join(texts[-2:]))
            elif isinstance(argument, str):
                texts.append(argument)
    except Exception:  # whatever its parser says of other files
        return None
    return found if content[:1] == b"\x80" or found else None


def pickles(name: str, content: bytes) -> Iterator[tuple[str, set[str]]]:
    """The pickles in a file: it itself, a member of it, an array of objects."""
    if (found := globals_of(content)) is not None:
        yield name, found
    if content.startswith(b"\x93NUMPY") and b"'|O'" in content[:128]:
        yield name, {"numpy objects"}
    if zipfile.is_zipfile(io.BytesIO(content)):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for member in archive.namelist():
                yield from pickles(f"{name}!{member}", archive.read(member))


def blobs(database: Path) -> Iterator[tuple[str, bytes]]:
    """All bytes in a database that are no text and no number."""
    with closing(sqlite3.connect(database)) as record:
        for (table,) in record.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            for row in record.execute(f"SELECT * FROM {table}").fetchall():  # noqa: S608  # its own names
                yield from ((f"{database.name}:{table}", value) for value in row if isinstance(value, bytes))


def test_a_pickle_is_known_for_one(tmp_path: Path) -> None:
    """So that the test below can fail."""
    canaries = Canaries(tmp_path / "song")
    for content in (canaries.pickle("x"), canaries.torch("x"), canaries.array("x"), SMALL):
        assert list(pickles("x", content)), content
    for content in (b"", b"{}", b"N.", b"name: a\n", b"\x80", b'{"crc":"0"}\n', b"\x89PNG\r\n", bytes(100), b"- a\n- b\n"):
        assert list(pickles("x", content)) == [], content


@pytest.mark.parametrize("engine", ["local", "ray"])
def test_a_whole_study_leaves_no_pickle(engine: str, tmp_path: Path) -> None:
    canaries = Canaries(tmp_path / "song")
    folders = {name: tmp_path / name for name in ("here", "home", "user", "tmp")}
    for folder in folders.values():
        folder.mkdir()
    canaries.plant_modules(folders["here"])
    (tmp_path / "spec.yaml").write_text(SPEC)
    dead = _dead_ray(canaries) if engine == "ray" else None
    env = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "MLFLOW_", "PYTHON"))}
    env |= {"HPO_HOME": str(folders["home"]), "HOME": str(folders["user"]), "TMPDIR": str(folders["tmp"]), "CUDA_VISIBLE_DEVICES": ""}
    words = [HPO, "launch", str(tmp_path / "spec.yaml"), *(["--local"] if engine == "local" else [])]
    with subprocess.Popen(words, cwd=folders["here"], env=env, stdout=subprocess.DEVNULL) as driver:
        assert driver.wait(TIME_S) == 0
    export = [HPO, "export", "digits", str(tmp_path / "exported")]
    assert subprocess.run(export, cwd=folders["here"], env=env, stdout=subprocess.DEVNULL, check=False).returncode == 0
    assert canaries.sung == []
    if dead is not None:
        assert not dead.exists()
        locks = ray_processes.ROOT.glob(f"{ray_processes.PREFIX}*/{ray_processes.LOCK}")
        assert [lock.parent for lock in locks if _driver(lock) == driver.pid] == []
    tops = (folders["home"], folders["user"], folders["tmp"], tmp_path / "exported")
    written = [path for top in tops for path in top.rglob("*") if path.is_file()]
    assert {path.name for path in written} >= EXPECTED
    found = [each for path in written for each in pickles(path.name, path.read_bytes())]
    found += [each for database in folders["home"].glob("*.db") for name, content in blobs(database) for each in pickles(name, content)]
    assert {(name.partition("!")[2], frozenset(imported)) for name, imported in found} == {(EXAMPLE, frozenset(TENSORS))}
    assert [path for path in written if path.suffix in (".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".joblib")] == []


def _dead_ray(canaries: Canaries) -> Path:
    """What a Ray left that died, as whoever plants pickles would have it."""
    folder = ray_processes.ROOT / f"{ray_processes.PREFIX}canary-{os.getpid()}"
    (folder / "tune").mkdir(parents=True)
    (folder / ray_processes.LOCK).write_text("0\n")
    canaries.plant_data(folder / "tune")
    return folder


def _driver(lock: Path) -> int:
    try:
        return int(lock.read_text())
    except (OSError, ValueError):  # gone this moment, or somebody else's
        return 0

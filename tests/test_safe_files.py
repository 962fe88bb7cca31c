"""What a stranger's files may hold: read as data or refused by name, never run, never a way out of their folder."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import io
import json
import os
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hpo import archives, checkpoints
from hpo.checkpoints import CheckpointError
from hpo.data import DataError
from hpo.engine import ray_processes
from hpo.home import HomeError, find, find_to_delete, studies
from hpo.journal import FILE_NAME
from hpo.journal_format import JournalError, read
from hpo.lease import holder, take
from hpo.links import way_out
from hpo.problem import SpecError
from hpo.results import Best
from hpo.spec import load_spec, parse_spec
from hpo.tracking import STATE_FILE, TrackingState, read_state, write_state
from tests.canaries import Canaries
from trainers import table_files

SPEC = """
name: a
trainer: {name: mlp, settings: {dataset: digits}}
objective: {metric: val_accuracy, direction: maximize}
space: {learning_rate: {type: float, low: 1e-4, high: 1e-1, log: true}}
budget: {trials: 3}
"""


@pytest.fixture
def canaries(tmp_path: Path) -> Canaries:
    return Canaries(tmp_path / "song")


# --- checkpoints ----------------------------------------------------------------------------------------------------------


def manifest(state: Any, tensors: dict[str, Any] | None = None, *, spaces: int = 0) -> bytes:
    """A state.json of which every checksum is right."""
    text = state if isinstance(state, str) else json.dumps(state)
    rest = f'"format":2,"tensors":{json.dumps(tensors)},"state":{text}}}{" " * spaces}\n'.encode()
    return b'{"sha256":"%b",%b' % (hashlib.sha256(rest).hexdigest().encode(), rest)


def entry(content: bytes, file: str = "tensors-0.safetensors") -> dict[str, Any]:
    return {"file": file, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def test_a_forged_checkpoint_is_one_to_begin_with(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_bytes(manifest({"map": {"epoch": 3, "tuple": {"tuple": [1, 2]}}}))
    assert checkpoints.load(tmp_path) == {"epoch": 3, "tuple": (1, 2)}


TENSOR = {"map": {"model": {"tensor": "0"}}}
FORGED: dict[str, Callable[[Canaries], tuple[bytes, bytes]]] = {
    "a pickle": lambda sing: (sing.pickle("manifest"), b""),
    "a file of torch": lambda sing: (sing.torch("manifest"), b""),
    "a pickle behind a right checksum": lambda sing: (manifest(repr(sing.pickle("inside"))), b""),
    "tensors that are a pickle": lambda sing: (manifest(TENSOR, entry(sing.pickle("t"))), sing.pickle("t")),
    "tensors that are a file of torch": lambda sing: (manifest(TENSOR, entry(sing.torch("t"))), sing.torch("t")),
    "tensors that are an array of objects": lambda sing: (manifest(TENSOR, entry(sing.array("t"))), sing.array("t")),
    "a kind that nobody writes": lambda _: (manifest({"map": {"x": {"__reduce__": ["os.system", ["true"]]}}}), b""),
    "a kind of jsonpickle": lambda _: (manifest({"map": {"x": {"py/reduce": [{"py/type": "os.system"}, {"py/tuple": ["true"]}]}}}), b""),
    "a name of a tensor that is none": lambda _: (manifest({"map": {"x": {"tensor": ["0"]}}}), b""),
    "nests without end": lambda _: (manifest("[" * 200_000 + "]" * 200_000), b""),
    "nests in what is known": lambda _: (manifest('{"map":{"a":' * 5_000 + "1" + "}}" * 5_000), b""),
    "no mapping": lambda _: (manifest([1, 2]), b""),
    "a mapping of another kind": lambda _: (manifest({"items": [["a", 1]]}), b""),
    "tensors without a file": lambda _: (manifest({"map": {}}, {"bytes": 1, "sha256": "0"}), b""),
    "tensors whose file is a number": lambda _: (manifest({"map": {}}, {"file": 3, "bytes": 1, "sha256": "0"}), b""),
}


@pytest.mark.parametrize("forged", FORGED)
def test_a_forged_checkpoint_is_refused(forged: str, tmp_path: Path, canaries: Canaries) -> None:
    content, tensors = FORGED[forged](canaries)
    (tmp_path / "state.json").write_bytes(content)
    (tmp_path / "tensors-0.safetensors").write_bytes(tensors)
    with pytest.raises(CheckpointError):
        checkpoints.load(tmp_path)
    assert checkpoints.label(tmp_path) == {}
    assert canaries.sung == []


@pytest.mark.parametrize("file", ["../tensors-0.safetensors", "/etc/passwd", "a/../../tensors-0.safetensors"])
def test_the_tensors_of_a_checkpoint_are_in_its_folder(file: str, tmp_path: Path) -> None:
    (tmp_path / "best").mkdir()
    content = b"not to be read"
    (tmp_path / "tensors-0.safetensors").write_bytes(content)
    (tmp_path / "best" / "state.json").write_bytes(manifest({"map": {}}, entry(content, file)))
    with pytest.raises(CheckpointError, match="best/"):
        checkpoints.verify(tmp_path / "best")


def test_what_lies_beside_a_checkpoint_is_not_opened(tmp_path: Path, canaries: Canaries) -> None:
    checkpoints.save(tmp_path, {"epoch": 3, "x": np.ones(2)})
    canaries.plant_data(tmp_path)
    canaries.plant_modules(tmp_path)
    opened: list[str] = []
    _listen(opened, str(tmp_path))
    try:
        assert checkpoints.load(tmp_path)["epoch"] == 3
    finally:
        _deaf()
    assert {Path(path).name.partition("-")[0] for path in opened} == {"state.json", "tensors"}
    assert canaries.sung == []


_heard: list[tuple[list[str], str]] = []  # an audit hook can never be taken out again


def _listen(opened: list[str], inside: str) -> None:
    if not _heard:
        sys.addaudithook(
            lambda event, arguments: event == "open" and [o.append(str(arguments[0])) for o, i in _heard if i in str(arguments[0])]
        )
    _heard.append((opened, inside))


def _deaf() -> None:
    _heard[:] = [([], "\0")]


# --- journals, locks, the shipper's state -----------------------------------------------------------------------------------


@pytest.mark.parametrize("content", ["pickle", "torch", "yaml", "deep"])
def test_a_journal_is_lines_of_json(content: str, tmp_path: Path, canaries: Canaries) -> None:
    from zlib import crc32

    deep = b'"seq":1,"lease":1,"more":0,"at":"2026-01-01T00:00:00Z","event":' + b"[" * 200_000 + b"]" * 200_000 + b"}"
    found = {
        "pickle": canaries.pickle("journal"),
        "torch": canaries.torch("journal"),
        "yaml": canaries.yaml("journal").encode() + b"\n",
        "deep": b'{"crc":"%08x",%b\n' % (crc32(deep), deep),
    }
    (tmp_path / FILE_NAME).write_bytes(found[content])
    with pytest.raises(JournalError):
        read(tmp_path / FILE_NAME)
    assert canaries.sung == []


@pytest.mark.parametrize("content", [b"", b"\x80\x04", b"[" * 100_000, b'{"host": 1}', b'{"host":"a","process":"$(x)","since":"now"}'])
def test_a_lock_says_who_or_nothing(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "journal.lock").write_bytes(content)
    assert holder(tmp_path / FILE_NAME) is None
    os.close(take(tmp_path / FILE_NAME))


@pytest.mark.parametrize(
    "changes",
    [
        {"uri": "file:///etc"},
        {"uri": 7},
        {"uri": "http://trusted.com@evil.com"},
        {"moved_to": "sqlite:////home/me/.local/lib/python3.11/site-packages/x.pth"},
        {"moved_to": ["a"]},
        {"champion_uri": '"); __import__("os").system("true"); ("'},
        {"champion_uri": "file:///tmp/model"},
        {"champion_uri": "models:/a/b/1"},
        {"shipped": "1"},
        {"done": 1},
        {"experiment_id": {"a": 1}},
        {"surprise": 1},
    ],
)
def test_what_a_shipper_would_not_write_is_not_read(changes: dict[str, Any], tmp_path: Path) -> None:
    write_state(tmp_path, state := TrackingState("http://host:5000", "1", champion_uri="models:/a/1"))
    assert read_state(tmp_path) == state
    plain = json.loads((tmp_path / STATE_FILE).read_bytes()) | changes
    (tmp_path / STATE_FILE).write_text(json.dumps(plain))
    assert read_state(tmp_path) is None


@pytest.mark.parametrize("content", [b"\x80\x04.", b"[" * 100_000, b"null", b"[]", b'"x"'])
def test_a_state_that_is_none_is_not_read(content: bytes, tmp_path: Path) -> None:
    (tmp_path / STATE_FILE).write_bytes(content)
    assert read_state(tmp_path) is None


@pytest.mark.parametrize("name", ['x"); sing(); ("', 'x\\"); sing(); ("', "x\n); sing()\n(", "x'); sing(); ('", "x\u2028y", "\\"])
def test_the_line_that_loads_a_model_runs_nothing_that_a_name_says(name: str) -> None:
    """It is Python, to be pasted, and names in it are a stranger's."""
    kept = Best(0, "0", "m", 1.0, 1, {}, 1, Path(name), None, None)
    registered = Best(0, "0", "m", 1.0, 1, {}, 1, None, f"models:/{name}/1", f"sqlite:///{name}.db")
    for best, said in ((kept, [name]), (registered, [f"sqlite:///{name}.db", f"models:/{name}/1"])):
        nodes = list(ast.walk(ast.parse(best.how_to_load)))
        assert [node.value for node in nodes if isinstance(node, ast.Constant)] == said
        assert len([node for node in nodes if isinstance(node, ast.Call)]) == 2


# --- links ----------------------------------------------------------------------------------------------------------------

LINKED = [
    "journal.lock", "tracking.json", "tracking.log", "tracking.lock", "ray.log", "test.log", "report", "report/index.html", "trials",
    "finals", "trials/00000", "trials/00000/best", "trials/00000/best/state.json", "trials/00000/output.log", "trials/00000/error.log",
    "trials/00000/last-1.1", "trials/00000/hang-1.1.log", "dropped-2", "dropped-2/trials", "dropped-2/trials/00000", "anything",
]  # fmt: skip


def study(folder: Path) -> Path:
    (folder / "home" / "a" / "trials" / "00000" / "best").mkdir(parents=True)
    (folder / "home" / "a" / FILE_NAME).write_bytes(b"x\n")
    (folder / "home" / "a" / "trials" / "00000" / "best" / "weights").touch()
    (folder / "mine").mkdir()
    (folder / "mine" / ".bashrc").write_text("mine\n")
    return folder / "home"


@pytest.mark.parametrize("place", LINKED)
@pytest.mark.parametrize("target", ["mine", "mine/.bashrc", "mine/not there yet"])
def test_a_study_with_a_link_out_of_its_folder_is_not_opened(place: str, target: str, tmp_path: Path) -> None:
    home = study(tmp_path)
    link = home / "a" / place
    if link.is_dir():
        link.rename(tmp_path / "as it was")
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(tmp_path / target)
    with pytest.raises(HomeError, match="is a link out of the study's folder"):
        find(home, "a")
    assert find_to_delete(home, "a") == home / "a"
    assert (tmp_path / "mine" / ".bashrc").read_text() == "mine\n"


@pytest.mark.parametrize("place", ["tracking.log", "trials/00000/output.log", "trials/00000/best/state.json"])
def test_a_pipe_in_the_place_of_a_file_is_none(place: str, tmp_path: Path) -> None:
    home = study(tmp_path)
    os.mkfifo(home / "a" / place)
    with pytest.raises(HomeError, match="neither file nor folder"):
        find(home, "a")


def test_a_pipe_is_no_journal(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    os.mkfifo(tmp_path / "a" / FILE_NAME)  # whoever opens it waits for ever
    assert studies(tmp_path) == []


def test_what_a_trainer_keeps_in_its_folder_is_its_own_business(tmp_path: Path) -> None:
    home = study(tmp_path)
    trial = home / "a" / "trials" / "00000"
    (trial / "imagenet").symlink_to("/usr")
    os.mkfifo(trial / "progress")
    (trial / "newest.log").symlink_to("output.log")  # inside
    (home / "a" / "latest").symlink_to("trials/00000")
    assert way_out(home / "a") is None
    assert find(home, "a") == home / "a"


def test_a_study_may_itself_be_elsewhere(tmp_path: Path) -> None:
    home = study(tmp_path)
    (home / "a").rename(tmp_path / "big disk")
    (home / "a").symlink_to(tmp_path / "big disk")
    assert find(home, "a") == home / "a"


def test_nobody_locks_through_a_link(tmp_path: Path) -> None:
    """What is locked is written: who holds the lock."""
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "journal.lock").symlink_to(tmp_path / "mine")
    with pytest.raises(JournalError, match="cannot be opened"):
        take(tmp_path / FILE_NAME)
    assert (tmp_path / "mine").read_text() == "mine"


# --- specs ----------------------------------------------------------------------------------------------------------------

YAML = [
    "!!python/object/apply:os.system ['true']", "!!python/object/new:os.system ['true']", "!!python/name:os.system", "!!python/module:os",
    "!!python/object:hpo.trial.Trial {}", "!!python/tuple [1]", "!!binary aGVsbG8=", "!!set {a}", "!!timestamp 2026-01-01", "!evil x",
    "!<tag:yaml.org,2002:python/object/apply:os.system> ['true']", "&a x", "*a", "&a [*a]",
]  # fmt: skip
PLACES = ["name: {}", "seed: {}", "trainer: {{name: {} , settings: {{dataset: digits}}}}", "trainer: {{settings: {} }}", "space: {}"]


@pytest.mark.parametrize("value", YAML)
@pytest.mark.parametrize("place", PLACES)
def test_a_tag_or_an_alias_in_a_spec_is_refused(place: str, value: str) -> None:
    with pytest.raises(SpecError, match=r"tags are not allowed|aliases are not allowed|anchors are not allowed"):
        parse_spec(place.format(value) + "\n", "a.yaml")


@pytest.mark.parametrize("text", ["<<: {name: a}", "? {a: b}\n: c", "a: 1\n--- \nb: 2", "%TAG ! tag:x,2000:\n--- !a b"])
def test_nor_is_there_any_other_trick_of_yaml(text: str) -> None:
    with pytest.raises(SpecError):
        parse_spec(text, "a.yaml")


TRAINERS = [
    "os:system", "evil_module:train", "evil_package.sub:train", "./evil.py:train", "/tmp/evil.py:train", "../evil:train", "evil.py", "evil",
    "trainers.mlp:train", "hpo.cli:main", "mlp:train", "../trainers/mlp", "mlp\\", "mlp/../mlp", "https://evil/trainer.py", "__main__:x",
    "file:///tmp/evil.py", "${env:HOME}", "builtins:exec", "git+https://evil", "mlp; import os", "mlp'",
    "\tmlp", "Mlp", "mlp ", "\uff4d\uff4c\uff50",
]  # fmt: skip


@pytest.mark.parametrize("name", TRAINERS)
def test_a_spec_names_no_code(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, canaries: Canaries) -> None:
    canaries.plant_modules(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.yaml").write_text(SPEC.replace("name: mlp", f"name: {json.dumps(name)}"))
    before = set(sys.modules)
    with pytest.raises(SpecError, match=r"trainer\.name"):
        load_spec("a.yaml")
    assert canaries.sung == []
    assert not {module for module in set(sys.modules) - before if not module.startswith(("hpo", "trainers"))}


# --- data -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["x.npy", "y.npy"])
def test_an_array_of_objects_is_no_data(name: str, tmp_path: Path, canaries: Canaries) -> None:
    for each in ("x.npy", "y.npy"):
        np.save(tmp_path / each, np.ones((4, 2)) if each == "x.npy" else np.arange(4))
    (tmp_path / name).write_bytes(canaries.array(name))
    with pytest.raises(DataError, match=name):
        table_files.read(tmp_path / "x.npy", str(tmp_path / "y.npy"))
    assert canaries.sung == []


@pytest.mark.parametrize("kind", ["pickle", "torch"])
@pytest.mark.parametrize("name", ["x.npy", "x.csv", "x.parquet"])
def test_a_pickle_under_the_name_of_data_is_none(name: str, kind: str, tmp_path: Path, canaries: Canaries) -> None:
    (tmp_path / name).write_bytes(getattr(canaries, kind)(name))
    with pytest.raises(DataError, match=name):
        table_files.read(tmp_path / name, str(tmp_path / name) if name == "x.npy" else "a")
    assert canaries.sung == []


def test_a_parquet_file_makes_no_object(tmp_path: Path, canaries: Canaries) -> None:
    """Arrow's extension types once unpickled what the file says of them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    about = {b"ARROW:extension:name": b"arrow.py_extension_type", b"ARROW:extension:metadata": canaries.pickle("arrow")}
    fields = [pa.field("a", pa.int64(), metadata=about), pa.field("b", pa.float64())]
    table = pa.table([pa.array([1, 2, 3]), pa.array([1.0, 2.0, 3.0])], schema=pa.schema(fields, {b"pandas": canaries.pickle("pandas")}))
    pq.write_table(table, tmp_path / "x.parquet")
    with contextlib.suppress(DataError):
        assert len(table_files.read(tmp_path / "x.parquet", "a")) == 3
    assert canaries.sung == []


OUTSIDE = ["../evil", "/tmp/evil", "a/../../evil", "a/b/../../../evil"]


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("kind", [".tar", ".zip"])
def test_an_archive_has_no_member_outside(kind: str, name: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / f"data{kind}"
    if kind == ".tar":
        with tarfile.open(path, "w") as archive:
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(name, "x")
    with pytest.raises(DataError, match="outside the archive"):
        list(archives.members(path, lambda _: True))
    assert [file.name for file in tmp_path.rglob("*")] == ["in", path.name]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_an_archive_has_no_links_and_devices(kind: bytes, tmp_path: Path) -> None:
    member = tarfile.TarInfo("aclImdb/train/pos/0_9.txt")
    member.type, member.linkname = kind, "/etc/passwd"
    with tarfile.open(tmp_path / "data.tar", "w") as archive:
        archive.addfile(member)
    with pytest.raises(DataError, match="is a link or a device"):
        list(archives.members(tmp_path / "data.tar", lambda _: True))


# --- Ray's scratch ----------------------------------------------------------------------------------------------------------


def test_what_lies_in_the_scratch_of_a_ray_that_died_is_removed_unread(tmp_path: Path, canaries: Canaries) -> None:
    left = tmp_path / f"{ray_processes.PREFIX}abc"
    (left / "tune" / "trial").mkdir(parents=True)
    (left / ray_processes.LOCK).write_text("1\n")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "kept").touch()
    (left / "tune" / "link").symlink_to(tmp_path / "mine")
    for folder in (left, left / "tune", left / "tune" / "trial"):
        canaries.plant_data(folder)
    opened: list[str] = []
    _listen(opened, str(tmp_path))
    try:
        ray_processes.sweep(tmp_path)
    finally:
        _deaf()
    assert {Path(path).name for path in opened} <= {ray_processes.LOCK, left.name}  # the folder, to remove what is in it
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    assert (tmp_path / "mine" / "kept").exists()
    assert canaries.sung == []

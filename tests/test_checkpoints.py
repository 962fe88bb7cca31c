"""Checkpoints: whatever a trainer may save comes back the same; what it may not, and what was damaged, is named."""

import hashlib
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hpo import checkpoints, trial_files
from hpo.checkpoints import CheckpointError, NoCheckpoint
from hpo.trainer import TrainerError

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text() | st.integers() | st.floats(allow_nan=False, allow_infinity=False), inner, max_size=4)
    ),
    max_leaves=12,
)

TENSORS = {
    "matrix": torch.arange(6.0).reshape(2, 3),
    "transposed": torch.arange(6.0).reshape(2, 3).t(),
    "every other": torch.arange(8)[::2],
    "scalar": torch.tensor(2.5, dtype=torch.float64),
    "bfloat16": torch.tensor([1.5, -0.0, math.inf], dtype=torch.bfloat16),
    "empty": torch.zeros(0, 3),
    "bytes": torch.Generator().get_state(),
    "truths": torch.tensor([True, False]),
    "parameter": torch.nn.Parameter(torch.ones(2)),
    "nan": torch.tensor([math.nan]),
}


def same(a: object, b: object) -> bool:
    """Equal in kind and value, nan equal to nan, bit for bit in floats (0.0 is not -0.0)."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict) and isinstance(b, dict):
        return same(list(a), list(b)) and same(list(a.values()), list(b.values()))
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float) and isinstance(b, float):
        return a.hex() == b.hex()
    return a == b


@settings(max_examples=60, deadline=None)
@given(state=st.dictionaries(st.text(), PLAIN, max_size=4))
def test_plain_values_come_back_the_same(state: dict[str, object], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("checkpoint")
    checkpoints.save(path, state)
    assert same(checkpoints.load(path), state)
    assert same(checkpoints.copy_to_memory(state), state)


@pytest.mark.parametrize("name", TENSORS)
def test_a_tensor_comes_back_bit_for_bit(name: str, tmp_path: Path) -> None:
    tensor = TENSORS[name]
    checkpoints.save(tmp_path / "c", {"nested": [{"here": (tensor,)}]})
    for state in (checkpoints.load(tmp_path / "c"), checkpoints.copy_to_memory({"nested": [{"here": (tensor,)}]})):
        back = state["nested"][0]["here"][0]
        assert back.dtype == tensor.dtype
        assert back.shape == tensor.shape
        assert torch.equal(back.nan_to_num(7), tensor.detach().nan_to_num(7))


def test_arrays_come_back_as_arrays(tmp_path: Path) -> None:
    state = {"a": np.arange(6, dtype=np.int16).reshape(2, 3).T[::-1], "zero_d": np.array(2.5), "scalar": np.float32(3)}
    checkpoints.save(tmp_path, state)
    for back in (checkpoints.load(tmp_path), checkpoints.copy_to_memory(state)):
        assert isinstance(back["a"], np.ndarray)
        assert back["a"].dtype == np.int16
        np.testing.assert_array_equal(back["a"], state["a"])
        assert back["zero_d"].shape == ()
        assert type(back["scalar"]) is np.float32


def test_an_optimizer_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    def step(net: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        net(torch.ones(3, 4)).square().sum().backward()
        optimizer.step()

    def made() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
        net = torch.nn.Linear(4, 2)
        return net, torch.optim.AdamW(net.parameters(), 0.1)

    net, optimizer = made()
    step(net, optimizer)
    checkpoints.save(tmp_path, {"model": net.state_dict(), "optimizer": optimizer.state_dict()})
    other, other_optimizer = made()
    state = checkpoints.load(tmp_path)
    other.load_state_dict(state["model"])
    other_optimizer.load_state_dict(state["optimizer"])
    step(net, optimizer)
    step(other, other_optimizer)
    assert torch.equal(net.weight, other.weight)


def test_tensors_that_share_memory(tmp_path: Path) -> None:
    tied, base = torch.ones(3), torch.arange(10.0)
    checkpoints.save(
        tmp_path, {"first": tied, "second": tied, "head": base[:4], "tail": base[2:], "empty": [torch.zeros(0), torch.zeros(0)]}
    )
    state = checkpoints.load(tmp_path)
    assert state["first"] is state["second"]
    assert state["head"].tolist() == [0, 1, 2, 3]
    assert state["tail"].tolist() == list(range(2, 10))


def test_a_copy_in_memory_is_untouched_by_training() -> None:
    weights, history = torch.zeros(2), [1]
    copy = checkpoints.copy_to_memory({"weights": weights, "array": (array := np.zeros(2)), "history": history})
    weights += 1
    array += 1
    history.append(2)
    assert copy["weights"].tolist() == [0, 0]
    assert copy["array"].tolist() == [0, 0]
    assert copy["history"] == [1]


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"a": {"b": [1, object()]}}, r"a\['b'\]\[1\] is builtins.object"),
        ({"a": {(1, 2): 3}}, r"the key \(1, 2\) of a is builtins.tuple"),
        ({"a": {math.nan: 3}}, "the key nan of a is builtins.float"),
        ({"a": {1, 2}}, "a is builtins.set"),
        ({"a": b"raw"}, "a is builtins.bytes"),
        ({"net": torch.nn.Linear(1, 1)}, "net is torch.nn.modules.linear.Linear; .*state_dict"),
        ({"a": torch.zeros(2, device="meta")}, "a is torch.Tensor .*meta"),
        ({"a": torch.eye(2).to_sparse()}, "a is torch.Tensor .*sparse"),
        ({"a": np.array(["text"])}, "a is numpy.ndarray of <U4"),
        ({"a": np.array([object()])}, "a is numpy.ndarray of object"),
        ({1: 2}, "1 is builtins.int; the outermost names are text"),
    ],
)
def test_what_cannot_be_saved_is_named_with_its_place(state: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match=message):
        checkpoints.save(tmp_path / "c", state)
    with pytest.raises(TrainerError, match=message):
        checkpoints.copy_to_memory(state)
    assert not (tmp_path / "c").exists()


def test_a_state_that_holds_itself_is_refused(tmp_path: Path) -> None:
    state: dict[str, object] = {}
    state["me"] = state
    with pytest.raises(TrainerError, match="does it hold itself"):
        checkpoints.save(tmp_path, state)


def test_saving_again_replaces_and_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / ".state.json.1.tmp").write_text("left by a killed process")
    for value in (1.0, 2.0):
        checkpoints.save(tmp_path, {"x": torch.tensor([value])})
    assert checkpoints.load(tmp_path)["x"].tolist() == [2.0]
    assert len(list(tmp_path.iterdir())) == 2


FULL = Path("/dev/full")  # every write to it fails for want of space


def temporary(path: Path, name: str) -> Path:
    return path / f".{name}.{os.getpid()}.tmp"


@pytest.mark.parametrize("full", [trial_files.MANIFEST, "tensors"])
def test_a_full_disk_is_named_with_the_bytes_needed_and_leaves_the_earlier_state(full: str, tmp_path: Path) -> None:
    state = {"x": torch.tensor([2.0]), "word": "new"}
    checkpoints.save(tmp_path / "new", state)
    (new,) = (file for file in (tmp_path / "new").iterdir() if file.name.startswith(full))
    path = tmp_path / "c"
    checkpoints.save(path, {"x": torch.tensor([1.0])})
    before = {file.name: file.read_bytes() for file in path.iterdir()}
    temporary(path, new.name).symlink_to(FULL)
    with pytest.raises(OSError, match=f"{new.stat().st_size:,} bytes could not be written: No space left on device: '{path / new.name}'"):
        checkpoints.save(path, state)
    assert {file.name: file.read_bytes() for file in path.iterdir()} == before
    assert checkpoints.load(path)["x"].tolist() == [1.0]
    checkpoints.save(path, state)  # there is space again
    assert checkpoints.load(path)["word"] == "new"


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"bytes could not be written: .*/file/c/state\.json"):
        checkpoints.save(tmp_path / "file" / "c", {"x": 1})


@pytest.mark.parametrize("syncs_first", ["tensors", trial_files.MANIFEST])
def test_what_was_saved_is_on_the_disk_before_its_name_is(syncs_first: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda number: (fsync(number), done.append(Path(f"/proc/self/fd/{number}").readlink().name)))
    monkeypatch.setattr(Path, "replace", lambda file, target: (done.append(f"{target.name}!"), replace(file, target)))
    checkpoints.save(tmp_path / "trials" / "0" / "c", {"x": torch.ones(1)})
    at = next(i for i, name in enumerate(done) if name.startswith(syncs_first))
    assert done[at - 1].startswith(f".{syncs_first}")
    assert done[at + 1] == "c"
    assert done[:3] == [tmp_path.name, "trials", "0"]  # each folder that was made is in the one above it


def changes(byte: int) -> set[int]:
    """Each of its bits flipped, and what a file system or an editor puts in its place."""
    return ({byte ^ (1 << bit) for bit in range(8)} | {0, 0xFF, *b"\n\r "}) - {byte}


@pytest.fixture(scope="module", params=[trial_files.MANIFEST, "tensors-*"])
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of the two files of a checkpoint."""
    path = tmp_path_factory.mktemp("saved")
    checkpoints.save(
        path, {"x": torch.tensor([1.5, -2.0]), "nested": {"word": "abc", 3: [None, math.inf]}, "hpo": {"epoch": 3, "value": 0.5}}
    )
    (file,) = path.glob(request.param)
    return file


def test_every_changed_byte_is_detected(saved: Path) -> None:
    whole, tried = saved.read_bytes(), 0
    for at, byte in enumerate(whole):
        for changed in changes(byte):
            saved.write_bytes(whole[:at] + bytes([changed]) + whole[at + 1 :])
            with pytest.raises(CheckpointError, match=saved.name) as caught:
                checkpoints.verify(saved.parent)
            assert not isinstance(caught.value, NoCheckpoint)
            tried += 1
    saved.write_bytes(whole)
    assert checkpoints.load(saved.parent)["nested"]["word"] == "abc"
    assert tried > 9 * len(whole) > 500


def test_every_cut_and_every_addition_is_detected(saved: Path) -> None:
    whole = saved.read_bytes()
    for content in [*(whole[:size] for size in range(len(whole))), whole + b"\n", whole + b" ", whole + b"\0", whole + whole]:
        saved.write_bytes(content)
        with pytest.raises(CheckpointError, match=saved.name):
            checkpoints.load(saved.parent)
        assert checkpoints.label(saved.parent) == {}
    saved.write_bytes(whole)


def test_damage_is_described_by_what_was_found_and_expected(saved: Path) -> None:
    whole = saved.read_bytes()
    saved.write_bytes(whole[:-3] + b"???")
    with pytest.raises(CheckpointError, match=rf"{saved}: sha256 [0-9a-f]{{16}}…, expected [0-9a-f]{{16}}…: the file was damaged"):
        checkpoints.load(saved.parent)
    saved.write_bytes(whole)


def test_nothing_saved_is_another_case_than_damage(tmp_path: Path) -> None:
    with pytest.raises(NoCheckpoint, match=f"{tmp_path / 'c'}: no state.json: nothing was saved here"):
        checkpoints.load(tmp_path / "c")
    checkpoints.save(tmp_path / "c", {"x": torch.ones(1)})
    (tensors,) = (tmp_path / "c").glob("tensors-*")
    tensors.unlink()
    with pytest.raises(CheckpointError, match=f"{tensors}: cannot be read: No such file") as caught:
        checkpoints.load(tmp_path / "c")
    assert not isinstance(caught.value, NoCheckpoint)


def sealed(rest: str) -> str:
    return f'{{"sha256":"{hashlib.sha256(rest.encode()).hexdigest()}",{rest}'


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ("", "0 bytes that do not begin with their checksum"),
        ("null", "4 bytes that do not begin with their checksum"),
        ('{"format": 1, "tensors": null, "state_sha256": "0", "state": {}}', "format 1, expected 2: .* an earlier version"),
        (sealed('"format":3}\n'), "format 3, expected 2: .* a later version"),
        (sealed('"tensors":null}\n'), "format None, expected 2"),
        (sealed('"format":2,'), "not what format 2 holds: JSONDecodeError"),
        (sealed('"format":2,"tensors":[3],"state":{"map":{}}}\n'), "not what format 2 holds: TypeError"),
        (sealed('"format":2,"tensors":null}\n'), "not what format 2 holds: KeyError: 'state'"),
        (sealed('"format":2,"tensors":null,"state":{"map":3}}\n'), "not what format 2 holds: AttributeError"),
        (sealed('"format":2,"tensors":null,"state":{"no such kind":3}}\n'), "not what format 2 holds: KeyError"),
    ],
)
def test_another_manifest_is_no_checkpoint(manifest: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text(manifest)
    with pytest.raises(CheckpointError, match=rf"{tmp_path}/state\.json: {message}"):
        checkpoints.load(tmp_path)
    assert checkpoints.label(tmp_path) == {}


def test_a_tensor_file_that_is_none_is_named_whatever_its_checksum_and_not_looked_for_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "tensors").write_bytes(b"?")
    entry = {"file": f"{tmp_path}/elsewhere/tensors", "bytes": 1, "sha256": hashlib.sha256(b"?").hexdigest()}
    (tmp_path / "state.json").write_text(sealed(f'"format":2,"tensors":{json.dumps(entry)},"state":{{"map":{{}}}}}}\n'))
    with pytest.raises(CheckpointError, match=r"not what format 2 holds: ValueError: .*header"):
        checkpoints.load(tmp_path)


def test_a_label_is_read_and_every_byte_checked_without_torch(saved: Path) -> None:
    program = (
        "import sys, pathlib; from hpo import checkpoints as c; p = pathlib.Path(sys.argv[1]); "
        "c.verify(p); print(c.label(p)); assert not {'torch', 'numpy', 'safetensors'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(saved.parent)], capture_output=True, text=True, check=True)
    assert done.stdout == "{'epoch': 3, 'value': 0.5}\n"


def test_a_checkpoint_without_tensors_is_one_json_file_and_needs_no_torch(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib; from hpo import checkpoints as c; p = pathlib.Path(sys.argv[1]); "
        "c.save(p, {'epoch': 3}); assert c.load(p) == c.copy_to_memory({'epoch': 3}) == {'epoch': 3}; "
        "assert not {'torch', 'numpy', 'safetensors'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "c")], check=True)
    assert [file.name for file in (tmp_path / "c").iterdir()] == ["state.json"]
    assert json.loads((tmp_path / "c" / "state.json").read_text())["format"] == checkpoints.FORMAT

"""Checkpoints: whatever a trainer may save comes back the same; what it may not, and what was damaged, is named."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hpo import checkpoints
from hpo.checkpoints import CheckpointError
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
    checkpoints.save(tmp_path / "c", {"nested": [{"here": (tensor,)}]}, durable=True)
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


def test_a_save_that_fails_leaves_the_earlier_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints.save(tmp_path, {"x": torch.tensor([1.0])})
    written = checkpoints._write

    def full(file: Path, content: bytes, durable: bool) -> None:
        if file.name == checkpoints.MANIFEST:
            raise OSError(28, "No space left on device")
        written(file, content, durable)

    monkeypatch.setattr(checkpoints, "_write", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoints.save(tmp_path, {"x": torch.tensor([2.0])})
    assert checkpoints.load(tmp_path)["x"].tolist() == [1.0]


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-5])


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("damage", [cut, flip, Path.unlink])
@pytest.mark.parametrize("pattern", ["state.json", "tensors-*"])
def test_damage_is_seen(damage: object, pattern: str, tmp_path: Path) -> None:
    checkpoints.save(tmp_path, {"x": torch.ones(8), "word": "abcdefgh"})
    (file,) = tmp_path.glob(pattern)
    damage(file)  # type: ignore[operator]
    with pytest.raises(CheckpointError, match=tmp_path.name):
        checkpoints.load(tmp_path)


@pytest.mark.parametrize("manifest", ["null", "[]", '{"format": 1}', '{"format": 2, "state": {}, "tensors": null}'])
def test_another_manifest_is_no_checkpoint(manifest: str, tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text(manifest)
    with pytest.raises(CheckpointError, match=r"state\.json"):
        checkpoints.load(tmp_path)


def test_a_checkpoint_without_tensors_is_one_json_file_and_needs_no_torch(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib; from hpo import checkpoints as c; p = pathlib.Path(sys.argv[1]); "
        "c.save(p, {'epoch': 3}); assert c.load(p) == c.copy_to_memory({'epoch': 3}) == {'epoch': 3}; "
        "assert not {'torch', 'numpy', 'safetensors'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "c")], check=True)
    assert [file.name for file in (tmp_path / "c").iterdir()] == ["state.json"]
    assert json.loads((tmp_path / "c" / "state.json").read_text())["format"] == checkpoints.FORMAT

"""A trainer's state on disk and in memory: tensors in safetensors, everything else in JSON, checksummed; never pickle.

A checkpoint is a folder with `state.json` and one tensor file that it names. The tensor file is in place before
`state.json` replaces its predecessor, so a reader finds the old state or the new one, never a mixture.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from hpo.trainer import TrainerError

MANIFEST = "state.json"
FORMAT = 1
DEEPEST = 64  # a state nested deeper than this holds itself

Structure = Any  # plain JSON: what is no list, text, finite number, bool or None is an object with one key, its kind


LABEL = "hpo"  # the key under which a worker notes which epochs a checkpoint holds


class CheckpointError(Exception):
    """This checkpoint cannot be read: start the trial from another one or from its beginning."""


def save(path: Path, state: Mapping[str, Any], *, durable: bool = False) -> None:
    """Write `state` into the folder `path`, replacing in one step what was there.

    `state` may hold dicts (keys: text, numbers, bools, None), lists, tuples, numbers, text, bools, None, numpy arrays
    and scalars and dense torch tensors of any device; subclasses come back as the plain kind. With `durable` it
    survives a power cut once this returns. Raises TrainerError, naming the place and the type, for anything else, and
    OSError where the folder cannot be written; the earlier checkpoint is then untouched.
    """
    structure, leaves = _flatten(state)
    text = json.dumps(structure, allow_nan=False)
    path.mkdir(parents=True, exist_ok=True)
    manifest: dict[str, Any] = {"format": FORMAT, "tensors": None, "state_sha256": _sha256(text.encode())}
    if leaves:
        content = _tensor_bytes(leaves)
        sha256 = _sha256(content)
        name = f"tensors-{sha256[:16]}.safetensors"
        manifest["tensors"] = {"file": name, "bytes": len(content), "sha256": sha256}
        _write(path / name, content, durable)
    head = json.dumps(manifest)
    _write(path / MANIFEST, f'{head[:-1]}, "state": {text}}}\n'.encode(), durable)
    if durable:
        _fsync(path)
    current = (manifest["tensors"] or {}).get("file")
    for stale in (*path.glob("tensors-*"), *path.glob(".*.tmp")):
        if stale.name != current:
            stale.unlink(missing_ok=True)


def load(path: Path) -> dict[str, Any]:
    """The state that `save` wrote into the folder `path`, tensors on the CPU; one tensor saved twice is one again.

    Raises CheckpointError where a file is missing, cut short, changed, or of a later format.
    """
    try:
        manifest = json.loads((path / MANIFEST).read_bytes())
        form, structure, tensors = manifest["format"], manifest["state"], manifest["tensors"]
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no {MANIFEST}: nothing was saved here, or the first save was cut off") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path / MANIFEST}: cannot be read, cut short or damaged: {error}") from error
    if form != FORMAT:
        raise CheckpointError(f"{path / MANIFEST}: format {form!r}, this version reads format {FORMAT}")
    _check(path / MANIFEST, json.dumps(structure).encode(), manifest.get("state_sha256"))
    restored: dict[str, Any] = _unflatten(structure, _read_tensors(path, tensors) if tensors else {})
    return restored


def label(path: Path) -> dict[str, Any]:
    """What the worker noted in the checkpoint at `path`: of a best one its epoch and value; empty if there is none to read."""
    try:
        return dict(load(path).get(LABEL, {}))
    except CheckpointError:
        return {}


def copy_to_memory(state: Mapping[str, Any]) -> dict[str, Any]:
    """A deep copy of `state` with its tensors on the CPU, untouched by further training; the rules are those of `save`."""
    structure, leaves = _flatten(state)
    copied: dict[str, Any] = _unflatten(structure, {name: _clone(leaf) for name, leaf in leaves.items()})
    return copied


def _flatten(state: Mapping[str, Any]) -> tuple[Structure, dict[str, Any]]:
    """The state as plain JSON in which names stand for tensors and arrays, and these under their names."""
    leaves: dict[str, Any] = {}
    names: dict[object, str] = {}

    def leaf(kind: str, value: Any, key: object) -> Structure:
        name = names.setdefault(key, f"{len(names)}")
        leaves.setdefault(name, value)
        return {kind: name}

    def walk(value: Any, place: str, depth: int) -> Structure:
        if depth > DEEPEST:
            raise TrainerError(f"saved state: {place} is nested deeper than {DEEPEST} levels; does it hold itself?")
        if value is None or isinstance(value, bool | int | float | str):
            return _plain(value)
        if isinstance(value, Mapping):
            items = [(_key(key, place), walk(v, f"{place}[{key!r}]", depth + 1)) for key, v in value.items()]
            return {"map": dict(items)} if all(isinstance(k, str) for k, _ in items) else {"items": items}
        if isinstance(value, list | tuple):
            members = [walk(v, f"{place}[{i}]", depth + 1) for i, v in enumerate(value)]
            return members if isinstance(value, list) else {"tuple": members}
        return leaf(*_leaf(value, place))

    return {"map": {_name(key): walk(value, _name(key), 0) for key, value in state.items()}}, leaves


def _name(key: Any) -> str:
    if not isinstance(key, str):
        raise TrainerError(f"saved state: {key!r} is {_kind(key)}; the outermost names are text")
    return key


def _key(key: Any, place: str) -> Any:
    if key is None or isinstance(key, str | int) or (isinstance(key, float) and math.isfinite(key)):
        return key
    return _refuse(key, f"the key {key!r} of {place}")


def _plain(value: bool | int | float | str | None) -> Structure:
    """JSON has no nan and no infinity, and knows no subclasses."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"float": repr(float(value))}
    return int(value) if isinstance(value, int) else str(value)


def _leaf(value: Any, place: str) -> tuple[str, Any, object]:
    """The kind of a tensor, array or array scalar, the value to store, and what makes two of them the same one.

    A library that was never imported has made none of the values, so none is imported here.
    """
    torch, numpy = sys.modules.get("torch"), sys.modules.get("numpy")
    if torch and isinstance(value, torch.Tensor):
        if value.layout != torch.strided or value.device.type == "meta" or value.is_quantized or value.is_complex():
            _refuse(value, place, f" ({value.dtype}, {value.layout}, on {value.device.type})")
        tensor = value.detach().resolve_neg()
        storage = tensor.untyped_storage().data_ptr() or object()  # an empty tensor has no memory to be known by
        return "tensor", tensor, (storage, tensor.storage_offset(), tensor.shape, tensor.stride(), tensor.dtype)
    if numpy and isinstance(value, numpy.ndarray | numpy.generic):
        if value.dtype.kind not in "biuf" or value.dtype.itemsize > 8 or not value.dtype.isnative:
            _refuse(value, place, f" of {value.dtype}")
        return ("array" if isinstance(value, numpy.ndarray) else "scalar"), numpy.array(value, order="C"), object()
    return _refuse(value, place)


def _kind(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _refuse(value: Any, place: str, more: str = "") -> NoReturn:
    raise TrainerError(
        f"saved state: {place} is {_kind(value)}{more}; allowed are dicts, lists, tuples, numbers, text, bools, None, "
        "numpy arrays and dense torch tensors (for an object, save its state_dict())"
    )


def _unflatten(structure: Structure, leaves: Mapping[str, Any]) -> Any:
    """The inverse of `_flatten`; `leaves` are tensors, or arrays where the structure says so."""
    if isinstance(structure, list):
        return [_unflatten(v, leaves) for v in structure]
    if not isinstance(structure, dict):
        return structure
    ((kind, value),) = structure.items()
    unpack: dict[str, Callable[[], Any]] = {
        "map": lambda: {k: _unflatten(v, leaves) for k, v in value.items()},
        "items": lambda: {k: _unflatten(v, leaves) for k, v in value},
        "tuple": lambda: tuple(_unflatten(v, leaves) for v in value),
        "float": lambda: float(value),
        "tensor": lambda: leaves[value],
        "array": lambda: _array(leaves[value]),
        "scalar": lambda: _array(leaves[value])[()],
    }
    return unpack[kind]()


def _array(leaf: Any) -> Any:
    return leaf.numpy() if hasattr(leaf, "numpy") else leaf  # read from disk, it is a tensor


def _clone(leaf: Any) -> Any:
    return leaf.to("cpu", copy=True) if hasattr(leaf, "detach") else leaf  # arrays were copied on the way in


def _tensor_bytes(leaves: Mapping[str, Any]) -> bytes:
    import torch
    from safetensors.torch import save as to_bytes

    tensors = {name: torch.as_tensor(leaf).to("cpu") for name, leaf in leaves.items()}
    owners: set[int] = set()
    for name, tensor in tensors.items():
        storage = tensor.untyped_storage().data_ptr()
        # safetensors refuses tensors that share memory: every further view of a storage gets memory of its own
        tensors[name] = tensor.clone(memory_format=torch.contiguous_format) if storage in owners else tensor.contiguous()
        owners.add(storage)
    return bytes(to_bytes(tensors))


def _read_tensors(path: Path, entry: Mapping[str, Any]) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load as from_bytes

    file = path / Path(str(entry["file"])).name
    try:
        content = file.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read: {error.strerror}") from error
    if len(content) != entry["bytes"]:
        raise CheckpointError(f"{file}: {len(content)} bytes, expected {entry['bytes']}: cut short or overwritten")
    _check(file, content, entry["sha256"])
    try:
        return dict(from_bytes(content))
    except SafetensorError as error:
        raise CheckpointError(f"{file}: no safetensors file: {error}") from error


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _check(file: Path, content: bytes, expected: str | None) -> None:
    found = _sha256(content)
    if found != expected:
        raise CheckpointError(f"{file}: sha256 {found[:16]}…, expected {str(expected)[:16]}…: the file was damaged or changed")


def _write(file: Path, content: bytes, durable: bool) -> None:
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")  # in the same folder: the rename stays on one file system
    try:
        with temporary.open("wb") as out:
            out.write(content)
            if durable:
                out.flush()
                os.fsync(out.fileno())
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def _fsync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

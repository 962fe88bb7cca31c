"""A trainer's state as plain JSON and the tensors and arrays that it refers to by name, and back. Pure.

A library that was never imported has made none of the values, so neither torch nor numpy is imported here.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from hpo.trainer import TrainerError

DEEPEST = 64  # a state nested deeper than this holds itself

Structure = Any  # plain JSON: what is no list, text, finite number, bool or None is an object with one key, its kind


def flatten(state: Mapping[str, Any]) -> tuple[Structure, dict[str, Any]]:
    """The state as plain JSON in which names stand for tensors and arrays, and these under their names.

    One tensor that occurs twice has one name. TrainerError, naming place and type, for what is neither plain nor a tensor.
    """
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


def unflatten(structure: Structure, leaves: Mapping[str, Any]) -> Any:
    """The inverse of `flatten`; `leaves` are tensors, or arrays where the structure says so."""
    if isinstance(structure, list):
        return [unflatten(v, leaves) for v in structure]
    if not isinstance(structure, dict):
        return structure
    ((kind, value),) = structure.items()
    unpack: dict[str, Callable[[], Any]] = {
        "map": lambda: {k: unflatten(v, leaves) for k, v in value.items()},
        "items": lambda: {k: unflatten(v, leaves) for k, v in value},
        "tuple": lambda: tuple(unflatten(v, leaves) for v in value),
        "float": lambda: float(value),
        "tensor": lambda: leaves[value],
        "array": lambda: _array(leaves[value]),
        "scalar": lambda: _array(leaves[value])[()],
    }
    return unpack[kind]()


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
    """The kind of a tensor, array or array scalar, the value to store, and what makes two of them the same one."""
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


def _array(leaf: Any) -> Any:
    return leaf.numpy() if hasattr(leaf, "numpy") else leaf  # read from disk, it is a tensor

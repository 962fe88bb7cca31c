"""A trial's network, built again from its checkpoint: what the model registry, the test split and `hpo export` are given."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from hpo import checkpoints
from hpo.places import Place
from hpo.references import revealed_arguments
from hpo.space import Value


class RebuildError(Exception):
    """This checkpoint cannot become a network: keep its files instead."""


def offered(entry: str, name: str) -> Callable[..., Any] | None:
    """The function `name` that the trainer at `entry` offers, itself or its module; None where there is none."""
    module_name, _, function = entry.partition(":")
    if not module_name:
        raise RebuildError("its trainer is not installed here")
    module = importlib.import_module(module_name)
    trainer = getattr(module, function, None)
    found: Callable[..., Any] | None = getattr(trainer, name) if hasattr(trainer, name) else getattr(module, name, None)
    return found


@dataclass(frozen=True, slots=True)
class Builder:
    """Where the function is that makes a trainer's network (`package.module:function`, `package.module:train.build`), and its arguments."""

    where: str
    arguments: Mapping[str, Value]


def builder(entry: str, arguments: Mapping[str, Value]) -> Builder | None:
    """What builds the network of the trainer at `entry` from all its hyperparameters and settings; None where it offers nothing."""
    build = offered(entry, "build")
    if build is None:
        return None
    module_name, _, function = entry.partition(":")
    trainer = getattr(importlib.import_module(module_name), function, None)
    return Builder(f"{module_name}:{f'{function}.build' if hasattr(trainer, 'build') else 'build'}", accepted(build, arguments))


def network(entry: str, arguments: Mapping[str, Value], checkpoint: Place) -> tuple[torch.nn.Module, torch.Tensor]:
    """The network with its weights, in evaluation mode, and example rows: at least two, since one would fix the batch size.

    `entry` is the trainer's "package.module:function", `arguments` all its hyperparameters and settings, `checkpoint` a folder
    that `hpo.checkpoints.load` reads. Raises RebuildError where the trainer or the checkpoint lacks something.
    """
    build = offered(entry, "build")
    if build is None:
        raise RebuildError(f"{entry.partition(':')[0]} has no `build(...) -> nn.Module` that makes the network from its hyperparameters")
    state = checkpoints.load(checkpoint)
    missing = [key for key in ("model", "example") if key not in state]
    if missing:
        raise RebuildError(f"the checkpoint has no {' and no '.join(missing)}: save(model=net.state_dict(), example=inputs[:2])")
    built: torch.nn.Module = build(**revealed_arguments(accepted(build, arguments)))
    built.load_state_dict(state["model"])
    example = torch.as_tensor(state["example"])
    return built.eval(), example if len(example) > 1 else torch.cat([example, example])


def accepted(function: Callable[..., Any], arguments: Mapping[str, Value]) -> dict[str, Value]:
    """Those of the arguments that the function takes."""
    parameters = inspect.signature(function).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    return {name: value for name, value in arguments.items() if takes_any or name in parameters}

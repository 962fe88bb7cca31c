"""A study in a form that another machine can run: its spec as a file, its trainer's code as a package; and what cannot go there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import hpo
from hpo.own_code import is_code, location
from hpo.packing import Package, PackingError, package
from hpo.problem import Problem, SpecError
from hpo.spec import Spec

OURS = ("hpo", "trainers")


def text_of(spec: Spec, name: str) -> str:
    """The spec as the file of the same study, called `name`: JSON is YAML. References to secrets stay references."""
    plain: dict[str, Any] = spec.to_dict() | {"name": name}
    if is_code(spec.trainer.name):  # a spec is data: the command names it
        plain["trainer"] = {"settings": plain["trainer"]["settings"]}
    return json.dumps(plain, indent=1) + "\n"


def code_of(trainer: str, home: Path) -> Package:
    """What goes along for the trainer: nothing for one that is declared or installed, else the sources of the current folder.

    Nothing of the study `home` does. PackingError where the code is not found, or would not be found there.
    """
    here = Path.cwd().resolve()
    if not is_code(trainer):
        return Package(here)
    place = location(trainer)
    if place is None:
        raise PackingError(f"the trainer {trainer} is not to be found from {here}: run this in the folder of its code")
    if not place.is_relative_to(here) or "site-packages" in place.parts:
        return Package(here)
    packed = package(here, besides=home.resolve())
    if here == Path(hpo.__file__).parent.parent:  # a checkout of ours, which the cluster has too
        packed = replace(packed, files=tuple(file for file in packed.files if file.parts[0] not in OURS))
    if why := _lost(trainer.partition(":")[0].partition(".")[0], place.relative_to(here), packed):
        raise PackingError(f"the trainer {trainer} cannot go along: {why}")
    return packed


def _lost(module: str, place: Path, packed: Package) -> str:
    """Why the module at `place` would not be found where the package is unpacked; empty if it would."""
    if place in packed.left_out:
        return f"{place} {packed.left_out[place]}"
    if not any(file.is_relative_to(place) for file in packed.files):
        return f"{place} is ignored by git, or lies in a folder that holds no source"
    if place not in (Path(f"{module}.py"), Path(module, "__init__.py"), Path(module)):
        top = packed.root / (place.parent.parent if place.name == "__init__.py" else place.parent)
        return f"`import {module}` would not find {place} there; run this in {top}"
    return ""


def refuse_local_files(spec: Spec) -> None:
    """SpecError for a path of the spec that means another file, or none, on other machines."""
    settings: Mapping[str, Any] = spec.trainer.settings
    names = ("path", "target") if str(settings.get("path")).endswith(".npy") else ("path",)
    message = "data does not go along with a study: give the path, from the root on, under which all nodes of the cluster find it"
    problems = [
        Problem("spec", 0, 0, f"trainer.settings.{name}", f"found {settings[name]}; {message}")
        for name in names
        if settings.get("dataset") == "file" and settings.get(name) and not str(settings[name]).startswith("/")
    ]
    if problems:
        raise SpecError(problems)

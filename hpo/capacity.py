"""What the machines of a search have, and how many trials fit on them at a time. Starts nothing and imports no torch."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import floor
from pathlib import Path

from hpo.problem import hint
from hpo.sections import Resources

SMALLEST = 0.01
SLACK = 1e-9  # of what floating point leaves of ten times a tenth
HERE = "this machine"


class CapacityError(Exception):
    """No trial can ever run with these resources: change them."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a search may use of one machine: processors, GPUs, and `custom` resources that its operator gave it."""

    cpus: float
    gpus: float
    custom: Mapping[str, float] = field(default_factory=dict)
    name: str = HERE


@dataclass(frozen=True, slots=True)
class Placement:
    """How trials are placed: `slots` at a time, each with `cpus` processors, `gpus` GPUs and `custom` resources.

    `on` says how many fit on each machine, in their order.
    """

    slots: int
    cpus: float
    gpus: float
    custom: Mapping[str, float] = field(default_factory=dict)
    on: tuple[int, ...] = ()


def this_machine() -> Capacity:
    """The processors this process may run on, containers' quotas respected, and NVIDIA GPUs."""
    cpus = len(os.sched_getaffinity(0))
    quota = _cgroup_cpus()
    return Capacity(max(1, min(cpus, quota or cpus)), len(gpu_names()))


def place(wanted: Resources, there: Sequence[Capacity], trials: int) -> Placement:
    """How `trials` trials are placed on the machines `there`; CapacityError if not even one fits on any.

    With `gpus: auto` a trial takes a GPU where any machine has one.
    """
    gpus = (1.0 if any(machine.gpus for machine in there) else 0.0) if wanted.gpus == "auto" else float(wanted.gpus)
    if wanted.cpus < SMALLEST or 0 < gpus < SMALLEST:
        raise CapacityError(f"resources: a trial asks for {wanted.cpus:g} CPUs and {gpus:g} GPUs; the smallest share is {SMALLEST:g}")
    placement = Placement(0, wanted.cpus, gpus, dict(wanted.custom))
    on = tuple(fitting(placement, machine) for machine in there)
    if not any(on):
        raise CapacityError("\n".join([_too_much(placement, there), *(_described(machine) for machine in there if len(there) > 1)]))
    slots = min(sum(on), trials, wanted.max_concurrent or sum(on))
    return Placement(max(1, slots), wanted.cpus, gpus, placement.custom, on)


def fitting(placement: Placement, there: Capacity) -> int:
    """How many trials that are placed so fit on one machine at a time. Several GPUs are whole; a fraction is of one GPU."""
    fits = floor(there.cpus / placement.cpus + SLACK)
    if placement.gpus:
        by_gpu = there.gpus / placement.gpus if placement.gpus >= 1 else floor(there.gpus) * floor(1 / placement.gpus + SLACK)
        fits = min(fits, floor(by_gpu + SLACK))
    for name, amount in placement.custom.items():
        fits = min(fits, floor(there.custom.get(name, 0.0) / amount + SLACK))
    return fits


def _too_much(placement: Placement, there: Sequence[Capacity]) -> str:
    """Which demand no machine meets; or that none meets all of them at once."""
    alone = len(there) == 1
    if most := _unmet(placement.cpus, there, lambda machine: machine.cpus):
        whose = f"{there[0].name} has {most}" if alone else f"the largest of {len(there)} machines has {most}"
        return f"resources.cpus: a trial asks for {placement.cpus:g} CPUs, {whose}; ask for at most {most}"
    if most := _unmet(placement.gpus, there, lambda machine: machine.gpus):
        whose = f"{there[0].name} has {most}" if alone else f"no machine of {len(there)} has more than {most}"
        return (
            f"resources.gpus: a trial asks for {placement.gpus:g} GPUs, {whose}; "
            "ask for no more, or use `gpus: auto`, which takes one only where there is one"
        )
    for name, amount in placement.custom.items():
        if most := _unmet(amount, there, lambda machine, name=name: machine.custom.get(name, 0.0)):  # type: ignore[misc]
            known = sorted({known for machine in there for known in machine.custom})
            way = hint(name, known) if known else "no machine here has any: start one with `hpo node --resource NAME=AMOUNT`"
            return f"resources.custom.{name}: a trial asks for {amount:g}, and no machine has more than {most}; {way}"
    wanted = f"{placement.cpus:g} CPUs, {placement.gpus:g} GPUs" + "".join(
        f", {amount:g} {name}" for name, amount in placement.custom.items()
    )
    return f"resources: no machine of {len(there)} has all that a trial asks for at once ({wanted})"


def _described(machine: Capacity) -> str:
    custom = "".join(f", {amount:g} {name}" for name, amount in machine.custom.items())
    return f"  {machine.name}: {machine.cpus:g} CPUs, {machine.gpus:g} GPUs{custom}"


def _unmet(amount: float, there: Sequence[Capacity], has: Callable[[Capacity], float]) -> str:
    """The most that one machine has, if that is too little; empty if it is enough."""
    most = max(map(has, there), default=0.0)
    return f"{most:g}" if amount > most + SLACK else ""


def gpu_names() -> list[str]:
    """The NVIDIA GPUs that this process may use, by name; empty without a driver."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    names = [line.split(" (UUID")[0] for line in listed.splitlines() if line.startswith("GPU ")]
    if visible is None:
        return names
    return names[: len([part for part in visible.split(",") if part.strip() not in ("", "-1")])]


def _cgroup_cpus() -> int | None:
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return None
    return None if quota == "max" else max(1, int(int(quota) / int(period)))

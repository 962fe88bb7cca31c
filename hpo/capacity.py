"""What this machine has, and how many trials fit on it at a time. Starts nothing and imports no torch."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from hpo.sections import Resources

SMALLEST = 0.01


class CapacityError(Exception):
    """No trial can ever run with these resources: change them."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """Processors and GPUs that a search may use."""

    cpus: int
    gpus: int


@dataclass(frozen=True, slots=True)
class Placement:
    """How trials are placed: `slots` at a time, each with `cpus` processors and `gpus` GPUs."""

    slots: int
    cpus: float
    gpus: float


def this_machine() -> Capacity:
    """The processors this process may run on, containers' quotas respected, and NVIDIA GPUs."""
    cpus = len(os.sched_getaffinity(0))
    quota = _cgroup_cpus()
    return Capacity(max(1, min(cpus, quota or cpus)), len(gpu_names()))


def place(wanted: Resources, there: Capacity, trials: int) -> Placement:
    """How `trials` trials are placed; CapacityError if not even one fits."""
    gpus = (1.0 if there.gpus else 0.0) if wanted.gpus == "auto" else float(wanted.gpus)
    if wanted.cpus < SMALLEST or 0 < gpus < SMALLEST:
        raise CapacityError(f"resources: a trial asks for {wanted.cpus:g} CPUs and {gpus:g} GPUs; the smallest share is {SMALLEST:g}")
    if wanted.cpus > there.cpus:
        raise CapacityError(
            f"resources.cpus: a trial asks for {wanted.cpus:g} CPUs, this machine has {there.cpus}; ask for at most {there.cpus}"
        )
    if gpus > there.gpus:
        raise CapacityError(
            f"resources.gpus: a trial asks for {gpus:g} GPUs, this machine has {there.gpus}; "
            "ask for no more, or use `gpus: auto`, which takes one only where there is one"
        )
    slots = int(there.cpus / wanted.cpus)
    if gpus:
        slots = min(slots, int(there.gpus / gpus) if gpus >= 1 else there.gpus * int(1 / gpus))
    return Placement(max(1, min(slots, trials)), wanted.cpus, gpus)


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

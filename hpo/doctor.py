"""What is wrong with this machine for a search, and how to mend it. Looks only: starts nothing, and leaves nothing but what it measured."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from hpo import data
from hpo.capacity import gpu_names, this_machine
from hpo.databases import missing_driver
from hpo.tracking import public, tracking_uri, uri_mistake

ENOUGH_DISK = 2 * 2**30
PORTS = {"http": 80, "https": 443, "postgresql": 5432}  # where nothing else is said
ENOUGH_SHARED_MEMORY = 128 * 2**20


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that a search needs: what was found, and what to do about it (empty if nothing)."""

    name: str
    ok: bool
    found: str
    mend: str = ""


def examine(home: Path) -> list[Check]:
    """Every check, in the order in which they matter."""
    return [_python(), *_packages(), _devices(), *_arithmetic(), _shared_memory(), _tracking(home), *_data(), _disk(home)]


def _python() -> Check:
    ok = sys.version_info >= (3, 11)
    return Check("python", ok, f"{platform.python_version()} ({sys.executable})", "" if ok else "install Python 3.11 or later")


def _packages() -> Iterator[Check]:
    for name in ("torch", "ray.tune", "optuna", "mlflow", "pandas", "sklearn"):
        top = name.partition(".")[0]
        try:
            importlib.import_module(name)
            yield Check(top, True, str(getattr(sys.modules[top], "__version__", "present")))
        except Exception as error:  # a package broken in any way is what is looked for here
            mend = "make the environment again: rm -rf .venv && make venv"
            yield Check(top, False, f"{type(error).__name__}: {error}", mend)


def _devices() -> Check:
    there, names = this_machine(), gpu_names()
    found = f"{there.cpus} CPUs" + (f", {', '.join(names)}" if names else ", no GPU")
    torch = sys.modules.get("torch")
    if names and torch is not None and not torch.cuda.is_available():
        mend = f"torch {torch.__version__} cannot use the GPU: install a CUDA build that fits the driver, or set resources.gpus to 0"
        return Check("devices", False, found, mend)
    return Check("devices", True, found)


def _arithmetic() -> Iterator[Check]:
    """How the built-in trainers multiply; nothing where torch is broken, which is said already."""
    if getattr(sys.modules.get("torch"), "__version__", ""):
        from trainers.products import products

        yield Check("arithmetic", True, str(products()))


def _shared_memory() -> Check:
    try:
        free = shutil.disk_usage("/dev/shm").free
    except OSError:
        return Check("shared memory", True, "no /dev/shm; Ray uses the disk")
    ok = free >= ENOUGH_SHARED_MEMORY
    return Check(
        "shared memory", ok, f"{free / 2**20:,.0f} MiB free", "" if ok else "Ray needs 128 MiB: in a container, pass --shm-size=1g"
    )


def _tracking(home: Path) -> Check:
    uri = tracking_uri(home, None)
    if "MLFLOW_TRACKING_URI" in os.environ and (mistake := uri_mistake(uri)):
        return Check("tracking", False, f"MLFLOW_TRACKING_URI: {public(uri)} {mistake}", "mend it, or unset it")
    if missing := missing_driver(uri):
        return Check("tracking", False, public(uri), missing)
    parts = urlsplit(uri)
    scheme = parts.scheme.partition("+")[0]
    if scheme not in PORTS or not parts.hostname:
        return Check("tracking", True, public(uri))
    try:
        with socket.create_connection((parts.hostname, parts.port or PORTS[scheme]), timeout=5):
            return Check("tracking", True, f"{scheme}://{parts.hostname} answers")
    except OSError as error:
        mend = "start the server, or unset MLFLOW_TRACKING_URI; a search runs without it, the record then has to be made later"
        return Check("tracking", False, f"{scheme}://{parts.hostname}: {error}", mend)


def _data() -> Iterator[Check]:
    for name in data.DATASETS:
        if (found := data.find(name)) is None:
            yield Check(f"data {name}", True, "not on this machine", f"if you want it: hpo data get {name}")
        else:
            lacks = "".join(f", without {file.name} ({file.optional})" for file in found.lacks)
            yield Check(f"data {name}", True, f"{found.folder} ({found.place}){lacks}")


def _disk(home: Path) -> Check:
    folder = next(path for path in (home.resolve(), *home.resolve().parents) if path.exists())
    free = shutil.disk_usage(folder).free
    writable = folder.is_dir() and os.access(folder, os.W_OK)
    found = f"{free / 2**30:.1f} GiB free in {folder}" + ("" if writable else ", not writable")
    ok = writable and free >= ENOUGH_DISK
    return Check("study home", ok, found, "" if ok else "set HPO_HOME to a folder on a disk with 2 GiB free that you may write to")

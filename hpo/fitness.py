"""What keeps a node of a cluster from training a study's trials, looked at on that node. Starts no trial and imports no trainer."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from hpo import places, storage
from hpo.data import DataError
from hpo.places import Place
from hpo.preparing import have_dataset, versions
from hpo.references import SecretError, read, references
from hpo.spec import Spec

ALIKE = ("hpo", "torch")  # Ray sees to Python's and its own


def mistakes(spec: Spec, checkpoints: Place, there: Mapping[str, str]) -> list[str]:
    """Why trials of `spec` would fail here; `checkpoints` is the study's own place, `there` the versions of the driver's packages.

    A dataset that is not on this node is fetched, once for all its workers.
    """
    return [*_versions(there), *_storage(spec, checkpoints), *_secrets(spec), *_data(spec)]


def _versions(there: Mapping[str, str]) -> Iterator[str]:
    here = versions()
    for name in ALIKE:
        if here[name] != there[name]:
            yield f"{name} is {here[name]}, and {there[name]} where the search runs; install the same"


def _storage(spec: Spec, checkpoints: Place) -> Iterator[str]:
    if why := storage.unreachable(spec.checkpoints.storage):
        yield f"checkpoints.storage: {why}"
    elif isinstance(checkpoints, places.SharedPath):
        folder = Path(checkpoints)
        places.ask_anew(folder.parent)
        if not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
            yield f"checkpoints.storage: {folder}, made where the search runs, is not to be seen or written; is the storage mounted?"


def _secrets(spec: Spec) -> Iterator[str]:
    for value in spec.trainer.settings.values():
        for reference in references(value) if isinstance(value, str) else ():
            try:
                read(reference)
            except SecretError as error:
                yield str(error)


def _data(spec: Spec) -> Iterator[str]:
    try:
        have_dataset(spec.trainer.settings)
    except DataError as error:
        yield str(error)

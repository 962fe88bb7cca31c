"""A user's own code on its way to the nodes of a cluster. What is installed as a package has to be so on every node, as hpo is."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import hpo
from hpo import own_code
from hpo.home import study_home
from hpo.packing import package

IN_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # set in a job of Ray's, whose own code is on its workers already
OURS = ("hpo", "trainers")


def carried(trainer: str, folder: Path) -> Path | None:
    """`folder`, with the source of the current folder in it if the trainer is code of that; None if nothing has to be carried.

    Raises PackingError where that is too much.
    """
    here, found = Path.cwd().resolve(), own_code.location(trainer) if own_code.is_code(trainer) else None
    if found is None or not found.is_relative_to(here) or "site-packages" in found.parts or IN_JOB in os.environ:
        return None
    own = Path(hpo.__file__).parent.parent
    whole = package(here, besides=study_home().resolve())
    files = tuple(file for file in whole.files if not (here == own and file.parts[0] in OURS))
    folder.mkdir()
    replace(whole, files=files).copy_to(folder)
    return folder

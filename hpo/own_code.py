"""Trainers that are a user's own code (`module:function`): where they are looked for, without importing any of it.

Nothing that lies in a study's folder is ever imported: it may be a stranger's.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from hpo.journal import FILE_NAME


def is_code(trainer: str) -> bool:
    """Whether a trainer is named by its code, and not by a name that is declared."""
    return ":" in trainer


def look_here() -> None:
    """Have modules looked for in the current folder too: last, so that nothing there hides a package of ours."""
    for folder in _here():
        if folder not in sys.path:
            sys.path.append(folder)


def folders(trainer: str) -> list[str]:
    """Where another process has to look for the trainer's modules besides its own path; nowhere for a declared one."""
    found = location(trainer) if is_code(trainer) else None
    if found is None:
        return _here() if is_code(trainer) else []
    package = found.parent if found.stem == "__init__" else found
    return list(dict.fromkeys([str(package.parent), *_here()]))


def location(trainer: str) -> Path | None:
    """The file, or folder, that importing the trainer would begin with; nothing is imported. None where there is none."""
    top = trainer.partition(":")[0].partition(".")[0]
    added = [folder for folder in _here() if folder not in sys.path]
    sys.path.extend(added)
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    finally:
        for folder in added:
            sys.path.remove(folder)
    if spec is None:
        return None
    places = [spec.origin] if spec.has_location and spec.origin else [*(spec.submodule_search_locations or ())]
    return Path(places[0]).resolve() if places else None


def study_around(place: Path | None) -> Path | None:
    """The folder of a study that a file or folder lies in; None if it lies in none."""
    return next((folder for folder in (place, *place.parents) if (folder / FILE_NAME).exists()), None) if place else None


def _here() -> list[str]:
    """The current folder, unless it was removed or is a study's: what lies there may be a stranger's."""
    try:
        here = Path.cwd()
    except OSError:
        return []
    return [] if study_around(here) else [str(here)]

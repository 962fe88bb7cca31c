"""Where studies went that were submitted from here: one small file each in the study home. Help for finding them again, and no truth."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from hpo import trust

FOLDER = ".detached"  # no study can be called so


@dataclass(frozen=True, slots=True)
class Pointer:
    """The study went to the job server at `jobs`, `job` is its last driver from here."""

    study: str
    jobs: str
    job: str


def write(home: Path, pointer: Pointer) -> None:
    """Replace the pointer to the study in one step; without room or permission there is none."""
    trust.vouch([trust.jobs(pointer.jobs)])
    folder = home / FOLDER
    temporary = folder / f".{pointer.study}.{os.getpid()}.tmp"
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(asdict(pointer)) + "\n", encoding="utf-8")
        temporary.replace(folder / f"{pointer.study}.json")


def read(home: Path) -> dict[str, Pointer]:
    """The pointers by their studies; left out is what cannot be read, or leads where this user sent nothing (a stranger's home)."""
    found = {}
    for path in sorted((home / FOLDER).glob("*.json")):
        with suppress(OSError, ValueError, TypeError):
            pointer = Pointer(**json.loads(path.read_bytes()))
            is_sound = path.stem == pointer.study and all(isinstance(text, str) for text in asdict(pointer).values())
            if is_sound and not trust.doubted([trust.jobs(pointer.jobs)]):
                found[pointer.study] = pointer
    return found

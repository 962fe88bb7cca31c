"""Which files of the current folder go along with a study that runs elsewhere: its source and small texts; no data, no secrets.

Looks and copies; runs nothing of it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from hpo.home import HomeError

SOURCE = (".py",)
TEXTS = (".yaml", ".yml", ".toml", ".json", ".txt", ".cfg", ".ini")
MOST_FILES = 2_000
MOST_BYTES = 10 * 2**20
LARGEST_TEXT = 64 * 2**10
NO_SOURCE = {"node_modules", "site-packages", "build", "dist"}  # folders; and those that begin with a dot or two underscores
SECRETS = {
    "secret", "secrets", "token", "tokens", "password", "passwords", "passwd", "credential", "credentials", "key", "keys", "apikey",
}  # fmt: skip
SECRET_MODULES = {"secrets.py", "credentials.py", "passwords.py"}
PRIVATE_KEY = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----")


class PackingError(HomeError):
    """What a study needs cannot go along with it: change what the text names, or the folder."""


@dataclass(frozen=True, slots=True)
class Package:
    """`files` beneath `root` go along, `size` bytes in all; `left_out` says why other sources and texts do not."""

    root: Path
    files: tuple[Path, ...] = ()
    size: int = 0
    left_out: dict[Path, str] = field(default_factory=dict)

    def copy_to(self, folder: Path) -> None:
        """Have the files in `folder`, as they lie here."""
        for file in self.files:
            target = folder / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.root / file, target)


def package(root: Path, *, besides: Path | None = None) -> Package:
    """What goes along of `root`, but nothing beneath `besides` (the study home). PackingError if it is too much."""
    files, size, left_out = [], 0, {}
    for file in _candidates(root, besides):
        if why := _unfit(root, file):
            left_out[file] = why
            continue
        files.append(file)
        size += (root / file).stat().st_size
        if len(files) > MOST_FILES or size > MOST_BYTES:
            raise PackingError(_too_much(root, files))
    return Package(root, tuple(files), size, left_out)


def _candidates(root: Path, besides: Path | None) -> Iterator[Path]:
    """The sources and texts beneath `root` by their names, in order; what git ignores is none."""
    found = _known_to_git(root) or _walked(root)
    apart = [root / file.parent for file in found if file.name == "pyvenv.cfg"] + ([besides] if besides else [])
    for file in sorted(found):
        if file.suffix not in SOURCE + TEXTS or file.name[0] == "." or any(map(_holds_no_source, file.parts[:-1])):
            continue
        if not any((root / file).is_relative_to(folder) for folder in apart):
            yield file


def _known_to_git(root: Path) -> list[Path]:
    """The files that git tracks, or would; none outside a checkout, or where git ignores all of it."""
    command = ["git", "-C", str(root), "-c", "core.fsmonitor=false", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, capture_output=True, timeout=60, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    files = [Path(os.fsdecode(name)) for name in listed.split(b"\0") if name]
    return [file for file in files if (root / file).is_file()]  # one that was removed is still tracked


def _walked(root: Path) -> list[Path]:
    files = []
    for folder, below, names in os.walk(root):
        here = Path(folder)
        below[:] = [] if "pyvenv.cfg" in names else [name for name in below if not _holds_no_source(name)]
        files += [(here / name).relative_to(root) for name in names]
        if len(files) > 100 * MOST_FILES:
            raise PackingError(f"{root} holds more than {100 * MOST_FILES:,} files; run it in the folder of your code alone")
    return files


def _holds_no_source(folder: str) -> bool:
    return folder.startswith((".", "__")) or folder in NO_SOURCE or folder.endswith(".egg-info")


def _unfit(root: Path, file: Path) -> str:
    """Why a file does not go along, in words that follow its name; empty if it does."""
    path = root / file
    if not path.resolve().is_relative_to(root.resolve()):
        return "is a link that leads out of the folder"
    if not path.is_file():
        return "is no file"
    is_text = file.suffix in TEXTS
    words = set(re.split(r"[^a-z]+", file.stem.lower()))
    if (is_text and words & SECRETS) or file.name.lower() in SECRET_MODULES:
        return "may hold secrets, by its name"
    if is_text and path.stat().st_size > LARGEST_TEXT:
        return f"is data: larger than {LARGEST_TEXT // 2**10} KiB"
    try:
        return "holds a private key" if PRIVATE_KEY.search(path.read_bytes()) else ""
    except OSError as error:
        raise PackingError(f"{path} cannot be read: {error.strerror}") from error


def _too_much(root: Path, files: list[Path]) -> str:
    sizes = sorted(((root / file).stat().st_size, str(file)) for file in files)
    largest = ", ".join(f"{name} ({size / 2**20:.1f} MiB)" for size, name in reversed(sizes[-3:]))
    return (
        f"{root} holds more source than may go along (at most {MOST_FILES:,} files and {MOST_BYTES // 2**20} MiB; the largest are "
        f"{largest}); run it in the folder of your trainer alone, have git ignore the rest, or install the code as a package on the cluster"
    )

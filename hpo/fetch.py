"""How a dataset's files get into the cache: from the official address, else from Debian's package. Checks every file."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from hpo.data import DataError, Dataset, File, read

TIMEOUT_S = 10  # to connect, and between two arriving pieces
APT_TIMEOUT_S = 600
PIECE = 1 << 16  # bytes

Advance = Callable[[int], None]  # told the number of bytes that arrived


def fetch(wanted: Dataset, folder: Path, progress: bool) -> Path:
    """Fetch every file of `wanted` into `folder` and return it; two processes at once fetch only once.

    Each file appears whole and checked or not at all. Raises DataError naming what was tried and what went wrong.
    """
    from filelock import FileLock

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            return _fetch_locked(wanted, folder, progress)
    except OSError as error:
        raise DataError(f"{folder} cannot be filled: {error}") from error


def _fetch_locked(wanted: Dataset, folder: Path, progress: bool) -> Path:
    missing = [file for file in wanted.files if not _is_whole(folder, file)]
    origins = [_download]
    if wanted.package and shutil.which("apt-get"):
        origins.append(_unpack_debian)
    failures = []
    for bring in origins if missing else ():
        try:
            with _bar(wanted, missing, progress) as advance:
                bring(wanted, missing, folder, advance)
            return folder
        except DataError as error:
            failures.append(str(error))
    if failures:
        raise DataError("; then ".join(failures))
    return folder


def _is_whole(folder: Path, file: File) -> bool:
    try:
        read(folder, file)
    except DataError:
        return False
    return True


def _download(wanted: Dataset, files: list[File], folder: Path, advance: Advance) -> None:
    import urllib.request
    from http.client import HTTPException
    from urllib.error import URLError

    for file in files:
        url = f"{wanted.address}{file.name}.gz"
        with _arriving(folder, file) as part:
            try:
                with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer, part.open("wb") as out:
                    _copy(answer.read, out.write, 2 * file.size, advance)
            except (URLError, HTTPException, TimeoutError, ConnectionError) as error:
                raise DataError(f"{url}: {error}") from error


def _copy(receive: Callable[[int], bytes], write: Callable[[bytes], object], limit: int, advance: Advance) -> None:
    """Copy until the end, or until more has come than any compression of the file could need: then it is another file."""
    total = 0
    while total <= limit and (piece := receive(PIECE)):
        write(piece)
        total += len(piece)
        advance(len(piece))


@contextlib.contextmanager
def _arriving(folder: Path, file: File) -> Iterator[Path]:
    """A temporary place for one file; what was put there is checked, then gets its name, and is gone if that fails."""
    with tempfile.TemporaryDirectory(prefix=".arriving-", dir=folder) as temporary:
        part = Path(temporary) / f"{file.name}.gz"
        yield part
        read(part.parent, file)
        part.replace(folder / part.name)


def _unpack_debian(wanted: Dataset, files: list[File], folder: Path, advance: Advance) -> None:
    """As any user: apt's own checks apply, but nothing is installed and the machine's package lists stay as they are."""
    assert wanted.package
    assert wanted.package_folder
    with tempfile.TemporaryDirectory(prefix="hpo-apt-") as name:
        temporary = Path(name)
        temporary.chmod(0o755)  # apt-get run by root downloads as its user _apt, who must get in
        private = ["-o", f"Dir::State::Lists={temporary}/lists", "-o", f"Dir::Cache={temporary}/cache"]
        (temporary / "lists" / "partial").mkdir(parents=True)
        (temporary / "cache" / "archives" / "partial").mkdir(parents=True)
        try:
            _apt(["download", wanted.package, *private[2:]], temporary)
        except DataError:  # no package lists, or outdated ones: fetch some of our own
            _apt(["update", *private], temporary)
            _apt(["download", wanted.package, *private], temporary)
        for package in temporary.glob("*.deb"):
            _run(["dpkg-deb", "-x", str(package), str(temporary / "root")], temporary)
        for file in files:
            with _arriving(folder, file) as part:
                source = temporary / "root" / wanted.package_folder.lstrip("/") / part.name
                if not source.is_file():
                    raise DataError(f"the package holds no {wanted.package_folder}/{part.name}")
                advance(shutil.copyfile(source, part).stat().st_size)


def _apt(arguments: list[str], folder: Path) -> None:
    _run(["apt-get", "-q", "-o", f"Acquire::http::Timeout={TIMEOUT_S}", "-o", "Acquire::Retries=1", *arguments], folder)


def _run(command: list[str], folder: Path) -> None:
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=APT_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DataError(f"{' '.join(command)}: {error}") from error
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.startswith(("E:", "Err"))] or done.stderr.splitlines()
        raise DataError(f"{command[0]} for Debian's package ended with {done.returncode}: {' '.join(said[:2])}")


@contextlib.contextmanager
def _bar(wanted: Dataset, files: list[File], progress: bool) -> Iterator[Advance]:
    """A bar on stderr over the bytes to come (compressed, so it may end early); silent without `progress`."""
    if not progress:
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

    columns = ("{task.description}", BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(wanted.name, total=sum(file.size for file in files))
        yield lambda count: bar.advance(task, count)

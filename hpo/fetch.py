"""How a dataset gets into the cache: from its official address, else from Debian's package. Downloads are `hpo/download.py`'s."""

from __future__ import annotations

import contextlib
import gzip
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from hpo import archives
from hpo.data import DataError, content, kept_as
from hpo.datasets_known import Archive, Dataset, File
from hpo.download import Advance, bring, into_place

TIMEOUT_S = 10  # of apt, to connect
APT_TIMEOUT_S = 600


def fetch(wanted: Dataset, folder: Path, progress: bool) -> Path:
    """Fetch all of `wanted` that `folder` lacks and return it; two processes at once fetch only once.

    Each file appears whole and checked or not at all; what a broken download brought is kept beside it as `.part` and
    goes on with the next attempt. Raises DataError naming what was tried and what went wrong.
    """
    from filelock import FileLock

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            if wanted.archives:
                _fetch_archive(wanted, folder, progress)
            else:
                _fetch_files(wanted, folder, progress)
            _sweep(folder)
            return folder
    except OSError as error:
        raise DataError(f"{folder} cannot be filled: {error}") from error


def _sweep(folder: Path) -> None:
    """Remove what broken downloads and killed processes left, now that everything is there."""
    for left in folder.glob("*.part"):
        left.unlink()
    for left in folder.glob(".arriving-*"):
        shutil.rmtree(left, ignore_errors=True)


def _fetch_archive(wanted: Dataset, folder: Path, progress: bool) -> None:
    """Any one archive is enough; a damaged one goes, and the one that has an address comes."""
    whole = [archive for archive in wanted.archives if _is_archive(folder / archive.name, archive)]
    for archive in wanted.archives:
        if archive.address and not whole:
            with _bar(wanted, archive.size, progress) as advance:
                _bring_archive(archive, folder, advance)


def _is_archive(path: Path, archive: Archive) -> bool:
    """Whether the file is there and whole; a damaged one is removed."""
    try:
        archives.check(archive, path)
    except DataError:
        path.unlink(missing_ok=True)
        return False
    return True


def _bring_archive(archive: Archive, folder: Path, advance: Advance) -> None:
    bring(archive.address, folder / archive.name, 2 * archive.size, partial(archives.check, archive), advance)


def _fetch_files(wanted: Dataset, folder: Path, progress: bool) -> None:
    missing = [file for file in wanted.files if not file.optional and not _is_whole(folder, file)]
    total = wanted.bundle.size if wanted.bundle else sum(file.size for file in missing)
    origins = [_unbundle if wanted.bundle else _download]
    if wanted.package and shutil.which("apt-get"):
        origins.append(_unpack_debian)
    failures = []
    for origin in origins if missing else ():
        try:
            with _bar(wanted, total, progress) as advance:
                origin(wanted, missing, folder, advance)
            return
        except DataError as error:
            failures.append(str(error))
    if failures:
        raise DataError("; then ".join(failures))


def _is_whole(folder: Path, file: File) -> bool:
    try:
        content(kept_as(folder, file), file)
    except DataError:
        return False
    return True


def _download(wanted: Dataset, files: list[File], folder: Path, advance: Advance) -> None:
    for file in files:
        path = kept_as(folder, file)
        bring(f"{wanted.address}{path.name}", path, 2 * file.size, partial(_check, file), advance)


def _check(file: File, part: Path) -> None:
    content(part, file)


def _unbundle(wanted: Dataset, files: list[File], folder: Path, advance: Advance) -> None:
    """Takes the files out of the bundle, which the user may have put there; it is removed when they are whole."""
    assert wanted.bundle
    bundle = folder / wanted.bundle.name
    if not _is_archive(bundle, wanted.bundle):
        _bring_archive(wanted.bundle, folder, advance)
    names = {f"{wanted.bundle_folder}/{file.name}": file for file in files}
    for name, member in archives.members(bundle, names.__contains__):
        with _arriving(folder, names.pop(name)) as part:
            part.write_bytes(gzip.compress(member, mtime=0))
    if names:
        raise DataError(f"{bundle}: holds no {' and no '.join(names)}")
    bundle.unlink()


@contextlib.contextmanager
def _arriving(folder: Path, file: File) -> Iterator[Path]:
    """A temporary place for one file; what was put there is checked, then gets its name, and is gone if that fails."""
    with tempfile.TemporaryDirectory(prefix=".arriving-", dir=folder) as temporary:
        part = kept_as(Path(temporary), file)
        yield part
        content(part, file)
        into_place(part, kept_as(folder, file))


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
def _bar(wanted: Dataset, total: int, progress: bool) -> Iterator[Advance]:
    """A bar on stderr over the bytes to come (`total` may be uncompressed, so it may end early); silent without `progress`."""
    if not progress:
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

    columns = ("{task.description}", BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(wanted.name, total=total)
        yield lambda count: bar.advance(task, count)

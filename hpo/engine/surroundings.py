"""What a trainer finds around it while its code runs, and what is put back behind it: prints, working directory, streams."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path

from hpo import durable
from hpo.engine.watchdog import Watchdog
from hpo.redacted_output import Lines


class Surroundings:
    """Entered whenever a trainer's code runs. With `log`, what it prints goes there instead of to the terminal."""

    def __init__(self, watchdog: Watchdog, log: Path | None) -> None:
        self._watchdog = watchdog
        self._output = OutputLog(log) if log else None
        self._process = os.getpid()
        self._there: Path | None = None  # where the trainer went with os.chdir, between two of its epochs

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """The trainer's working directory inside, the engine's behind it; prints and time watched over."""
        here = _working_directory()
        _go_to(self._there)
        try:
            with self._watchdog.watching(), self._printing():
                yield
        finally:
            if os.getpid() != self._process:
                os._exit(1)  # a child that the trainer forked and let run on: two engines would write one trial
            there = _working_directory()
            self._there = there if there != here else None
            if there != here:
                _go_to(here)
            _mend_streams()

    def close(self) -> None:
        """Write what was printed without an end of line."""
        if self._output is not None:
            with contextlib.suppress(OSError):  # a full disk, or a folder that the trainer removed
                self._output.finish()

    @contextlib.contextmanager
    def _printing(self) -> Iterator[None]:
        if self._output is None:
            yield
            return
        with contextlib.redirect_stdout(self._output), contextlib.redirect_stderr(self._output):
            yield


class OutputLog(io.TextIOBase):
    """Appends what is printed to a file, which exists only if something is. Where there are secrets to hide, whole lines.

    It is opened for every write: a logging handler or a thread that outlives its trial still writes into that trial's log,
    and never into a descriptor that has become somebody else's.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._lines = path, Lines()

    def write(self, text: str) -> int:
        self._append(self._lines.add(text))
        return len(text)

    def finish(self) -> None:
        """Write what was held back for the end of its line."""
        self._append(self._lines.rest())

    def _append(self, text: str) -> None:
        if not text:
            return
        content = text.encode(errors="backslashreplace")
        with durable.bytes_named(self._path, len(content)):
            durable.make_folder(self._path.parent)
            with self._path.open("ab") as file:
                file.write(content)

    def writable(self) -> bool:
        return True


def _working_directory() -> Path | None:
    """None where it was removed."""
    try:
        return Path.cwd()
    except OSError:
        return None


def _go_to(folder: Path | None) -> None:
    if folder is not None:
        with contextlib.suppress(OSError):  # it was removed meanwhile
            os.chdir(folder)


def _mend_streams() -> None:
    """Open what the trainer closed of descriptors 0, 1 and 2: the next file would get the number, and all prints with it."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # it gets the lowest free number, which is this one

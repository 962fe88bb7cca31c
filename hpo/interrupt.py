"""Ctrl-C, let through only where nothing is half done."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self


class Interrupts:
    """While entered, SIGINT and SIGTERM raise KeyboardInterrupt in the main thread, but never inside `shielded`.

    A second one that comes while the first is being handled ends the process at once.
    """

    def __init__(self) -> None:
        self._shields = 0
        self._pending = False
        self._previous: dict[int, object] = {}
        self.signal: int | None = None

    def __enter__(self) -> Self:
        self.install()
        return self

    def install(self) -> None:
        """Take the signals (again: Ray replaces the handler of SIGTERM when it starts)."""
        if threading.current_thread() is not threading.main_thread():
            return  # Python allows no handlers there; who started the thread stops it
        for number in (signal.SIGINT, signal.SIGTERM):
            previous = signal.signal(number, self._arrived)
            self._previous.setdefault(number, previous)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal returned it takes

    @contextmanager
    def shielded(self) -> Iterator[None]:
        """A part that is done as a whole; an interruption that comes meanwhile is raised behind it."""
        self._shields += 1
        try:
            yield
        finally:
            self._shields -= 1
        if self._pending and not self._shields:
            self._pending = False
            raise KeyboardInterrupt

    def _arrived(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if self.signal is not None:
            with suppress(OSError), Path("/dev/tty").open("wb", buffering=0) as terminal:
                terminal.write(b"\x1b[?25h")  # the cursor, which a live table hides
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.signal = number
        if self._shields:
            self._pending = True
        else:
            raise KeyboardInterrupt

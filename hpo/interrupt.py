"""Ctrl-C and SIGTERM, let through only where nothing is half done; the process is gone in time whatever it is doing."""

from __future__ import annotations

import _thread
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

EXIT_CODES: dict[int, int] = {signal.SIGINT: 130, signal.SIGTERM: 75}
LONGEST_S = 4.0  # from the first signal to the end of this process; five seconds are promised
AT_ONCE_S = 0.5  # the same from the second one
AGAIN_S = 0.05


class Interrupts:
    """While entered, SIGINT and SIGTERM raise KeyboardInterrupt in the main thread, but never inside `shielded`.

    `signal` is the first that came. A second one ends the process at once, and `LONGEST_S` after the first one a thread
    does, should the main thread be stuck where no exception reaches it: what is journaled is safe. Before such an end,
    and when an interruption leaves this context, each of `last_acts` is called: they end what must not outlive this
    process, fast, from any thread, perhaps more than once.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self.last_acts: list[Callable[[], None]] = []
        self._shields = 0
        self._pending = False
        self._previous: dict[int, object] = {}
        self._wakeup: socket.socket | None = None
        self._woken_before = -1
        self._unraisable_before = sys.unraisablehook
        self._again = False  # whether the next signal is the first one, raised again
        self._unheard = 0  # how many of those `_watch` has not seen yet

    @property
    def exit_code(self) -> int | None:
        """What the command exits with because of the signal: 130, or 75 for what can be resumed. None if none came."""
        return None if self.signal is None else EXIT_CODES[self.signal]

    def __enter__(self) -> Self:
        self.install()
        if self._previous:
            reading, self._wakeup = socket.socketpair()
            self._wakeup.setblocking(False)
            self._woken_before = signal.set_wakeup_fd(self._wakeup.fileno(), warn_on_full_buffer=False)
            sys.unraisablehook = self._swallowed
            os.register_at_fork(after_in_child=self._forked)
            threading.Thread(target=self._watch, args=(reading,), name="interrupts", daemon=True).start()
        return self

    def install(self) -> None:
        """Take the signals (again: Ray replaces the handler of SIGTERM when it starts)."""
        if threading.current_thread() is not threading.main_thread():
            return  # Python allows no handlers there; who started the thread stops it
        for number in EXIT_CODES:
            previous = signal.signal(number, self._arrived)
            self._previous.setdefault(number, previous)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._shields += 1  # for good: what comes now finds nothing to interrupt
        if self.signal is not None:
            self._forsake()
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal returned it takes
        if self._wakeup is not None:
            sys.unraisablehook = self._unraisable_before
            signal.set_wakeup_fd(self._woken_before)
            self._wakeup.close()
            self._wakeup = None

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

    def check(self) -> None:
        """Raise KeyboardInterrupt if a signal came, again if need be: a library may have swallowed the first one."""
        if self.signal is not None and not self._shields:
            raise KeyboardInterrupt

    def _arrived(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if self.signal is not None and not self._again:
            self._forsake()
            _show_cursor()
            if number != signal.SIGINT:
                os._exit(EXIT_CODES[number])
            signal.signal(number, signal.SIG_DFL)  # a shell that waits for us has to see that it was Ctrl-C
            signal.raise_signal(number)
        self.signal, self._again = self.signal or number, False
        if self._shields:
            self._pending = True
        else:
            raise KeyboardInterrupt

    def _swallowed(self, unraisable: sys.UnraisableHookArgs) -> None:
        """Python ignores what is raised in a finaliser, or around a fork: if that was our exception, it is raised again."""
        if self.signal is None or not issubclass(unraisable.exc_type, KeyboardInterrupt):
            self._unraisable_before(unraisable)
            return
        self._again = True
        self._unheard += 1
        threading.Timer(AGAIN_S, _thread.interrupt_main, [self.signal]).start()  # not here, where it would be ignored as well

    def _forked(self) -> None:
        """A child that runs Python before it becomes another program: what it gets is its own, not ours."""
        if self._wakeup is not None:
            signal.set_wakeup_fd(-1)
            for number in EXIT_CODES:
                signal.signal(number, signal.SIG_DFL)

    def _forsake(self) -> None:
        for act in tuple(self.last_acts):
            with suppress(Exception):  # the process ends: nothing may keep it, and nobody would read why
                act()

    def _watch(self, wakeup: socket.socket) -> None:
        """End the process when it should be gone. Python writes each signal's number to `wakeup` as it arrives, in C."""
        code, until = 0, None
        with wakeup:
            while select.select([wakeup], [], [], None if until is None else max(0.0, until - time.monotonic()))[0]:
                came = wakeup.recv(64)
                if not came:  # the context was left
                    return
                for number in filter(EXIT_CODES.__contains__, came):
                    if self._unheard:
                        self._unheard -= 1
                        continue
                    until = time.monotonic() + (LONGEST_S if until is None else AT_ONCE_S)
                    code = EXIT_CODES[number]
        self._forsake()
        _show_cursor()
        os._exit(code)


def _show_cursor() -> None:
    with suppress(OSError), Path("/dev/tty").open("wb", buffering=0) as terminal:
        terminal.write(b"\x1b[?25h")  # a live table hides it

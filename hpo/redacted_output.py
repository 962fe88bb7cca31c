"""What is printed, without secrets: line by line, so that a secret printed in pieces is seen, too."""

from __future__ import annotations

import io
import os
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from types import TracebackType
from typing import TextIO

from hpo.redaction import Redactor, hidden

LONGEST_LINE = 64 * 1024  # characters that are held back until a line is whole


class Lines:
    """A text that comes in pieces, given back line by line without secrets: one that comes in pieces is seen, too.

    While there are no secrets to hide nothing is held back.
    """

    def __init__(self, secrets: Redactor = hidden) -> None:
        self._secrets, self._held = secrets, ""
        self._process, self._lock = os.getpid(), threading.RLock()

    def add(self, text: str) -> str:
        """What may be written now."""
        if not (self._secrets or self._held):
            return text
        with self._alone():
            return self._add(text)

    def _alone(self) -> threading.RLock:
        """The lock between threads; of a child that was forked its own, and what was held back is its parent's to write."""
        if self._process != os.getpid():
            self._process, self._lock, self._held = os.getpid(), threading.RLock(), ""
        return self._lock

    def _add(self, text: str) -> str:
        text = self._held + text
        end = max(text.rfind("\n"), text.rfind("\r")) + 1
        if len(text) - end > LONGEST_LINE:  # a secret that has not come whole is in the half that is kept
            text = self._secrets(text)
            end = max(end, len(text) - LONGEST_LINE // 2)
        done, self._held = text[:end], text[end:]
        return self._secrets(done)

    def rest(self) -> str:
        """What was held back, now that nothing follows."""
        with self._alone():
            rest, self._held = self._held, ""
            return self._secrets(rest)


class Redacted(io.TextIOBase):
    """A stream that hands on to `stream` what is written, in whole lines and without secrets; `finish` hands on the rest."""

    def __init__(self, stream: TextIO, secrets: Redactor = hidden) -> None:
        self._stream, self._lines = stream, Lines(secrets)

    def write(self, text: str) -> int:
        if done := self._lines.add(text):
            self._stream.write(done)
        return len(text)

    def flush(self) -> None:
        self._stream.flush()

    def finish(self) -> None:
        """Nothing follows: hand on what was held back."""
        self._stream.write(self._lines.rest())
        self._stream.flush()

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()


@contextmanager
def redacted(output: TextIO | None = None) -> Iterator[None]:
    """Within, what Python prints in this process goes to `output`, or where it goes anyway, without secrets."""
    out, err = Redacted(output or sys.stdout), Redacted(output or sys.stderr)
    try:
        with redirect_stdout(out), redirect_stderr(err):
            yield
    finally:
        out.finish()
        err.finish()


def print_exception(error: BaseException) -> None:
    """Print a traceback as Python would, without secrets."""
    print(hidden("".join(traceback.format_exception(error))), end="", file=sys.stderr)


def excepthook(_kind: type[BaseException], error: BaseException, _trace: TracebackType | None) -> None:
    """`sys.excepthook` without secrets."""
    print_exception(error)

"""What went wrong in a trial, in words: which rule it broke and one line for the table; the traceback goes to its log."""

from __future__ import annotations

import errno
import traceback
from collections.abc import Iterator
from pathlib import Path

from hpo.checkpoints import CheckpointError
from hpo.data import DataError
from hpo.engine.assignment import Failure
from hpo.engine.watchdog import Hung
from hpo.objects import StorageError
from hpo.redaction import hidden
from hpo.references import SecretError
from hpo.trainer import MetricError, TrainerError

LONGEST = 300  # characters of an exception's text in a reason; its log has the rest
LONGEST_OURS = 1000
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


def failure_of(error: BaseException, log: Path) -> Failure:
    """Why a trial whose trainer, or whose worker, met with `error` cannot go on, without secrets; its traceback goes to `log`.

    A full disk, or a storage that refuses, is looked for behind the error, too: trainers wrap what they meet.
    """
    found = _failure_of(error, log)
    return Failure(found.rule, hidden(found.reason))


def _failure_of(error: BaseException, log: Path) -> Failure:
    full = next((e for e in _chain(error) if isinstance(e, StorageError) or (isinstance(e, OSError) and e.errno in NO_SPACE)), None)
    if full is not None:  # its log would only take of what is missing
        return Failure("disk", f"{full.filename}: {full.strerror}" if full.filename else one_line(full))
    match error:
        case Hung():
            return Failure("timeout", f"{error} ({_logged(error, log)})")
        case CheckpointError():
            return Failure("checkpoint", printable(str(error), LONGEST_OURS))
        case TrainerError():
            return Failure("metric" if isinstance(error, MetricError) else "error", printable(str(error), LONGEST_OURS))
        case DataError() | SecretError():  # says what is wrong with which file: no matter for a traceback
            return Failure("error", printable(str(error), LONGEST_OURS))
        case _:
            return Failure("error", f"{one_line(error)} ({_logged(error, log)})")


def one_line(error: BaseException) -> str:
    """What was raised and where, short enough for a table and safe on a terminal."""
    try:
        message = printable(str(error), LONGEST)
    except BaseException:  # an exception of a user's own that cannot even say what it is
        message = "(its text cannot be read)"
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{message and ': '}{message}{place}"


def printable(text: str, longest: int) -> str:
    """`text` on one line, without secrets and what a terminal would obey, cut after `longest` characters."""
    plain = " ".join("".join(c if c.isprintable() else " " for c in hidden(text)).split())
    return plain if len(plain) <= longest else plain[:longest] + "..."


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An exception and all that are behind it or inside it, each once."""
    waiting, seen = [error], set()
    while waiting:
        current = waiting.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        inside = current.exceptions if isinstance(current, BaseExceptionGroup) else ()
        waiting += [e for e in (current.__cause__, current.__context__, *inside) if e is not None]


def _logged(error: BaseException, log: Path) -> str:
    """Where the whole traceback is; or why no log could be written, which must not hide the error itself."""
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(hidden("".join(traceback.format_exception(error))), encoding="utf-8", errors="backslashreplace")
    except Exception as refused:  # a disk's refusal, or an exception of a user's own that cannot be formatted
        return f"no log could be written: {one_line(refused)}"
    return f"see {log}"

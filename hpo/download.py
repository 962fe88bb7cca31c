"""One file from one address: goes on where a broken download ended, checks what came, and only then gives it its name."""

from __future__ import annotations

import os
import re
import urllib.request
from collections.abc import Callable
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import BinaryIO
from urllib.error import HTTPError, URLError

from hpo.data import DataError

TIMEOUT_S = 10  # to connect, and between two arriving pieces
PIECE = 1 << 16  # bytes
MOST_ATTEMPTS = 20  # of one download; each but the last brought something before it broke off
PARTIAL, BAD_RANGE = 206, 416

Advance = Callable[[int], None]  # told the number of bytes that arrived
Check = Callable[[Path], object]  # raises DataError if the file is not what was meant


def bring(address: str, place: Path, limit: int, check: Check, advance: Advance) -> None:
    """Download `address` to `place`, at most `limit` bytes; whole and checked, or not at all.

    Until it is whole it is `place` with `.part` behind its name, kept when the connection breaks and gone on with by the
    next call. Where what was put together is wrong it is removed, and fetched once more from its start. Raises DataError
    naming the address; OSError where the disk is at fault.
    """
    part = place.with_name(f"{place.name}.part")
    went_on = part.exists()
    _download(address, part, limit, advance)
    try:
        check(part)
    except DataError as error:
        part.unlink()
        if went_on:
            bring(address, place, limit, check, advance)
            return
        raise DataError(f"{address}: what came was wrong and is removed: {error}") from error
    into_place(part, place)


def into_place(part: Path, place: Path) -> None:
    """Give a whole file its name; it is on disk before, so that a power cut leaves all of it or none."""
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(place)


def _download(address: str, part: Path, limit: int, advance: Advance) -> None:
    """Try until all has come, as long as each attempt brings something."""
    advance(_size(part))
    for attempt in range(1, MOST_ATTEMPTS + 1):
        before = _size(part)
        try:
            if _go_on(address, part, limit, advance):
                return
            problem = "the connection ended before the file"
        except (HTTPException, TimeoutError, ConnectionError) as error:
            problem = str(error) or type(error).__name__
        if _size(part) <= before or attempt == MOST_ATTEMPTS:
            kept = f"; {_size(part)} bytes are kept in {part}, and the next attempt goes on from there" if _size(part) else ""
            raise DataError(f"{address}: {problem}{kept}")


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _go_on(address: str, part: Path, limit: int, advance: Advance) -> bool:
    """Ask for what is missing and append it; whether all has come, as far as the server says how much that is.

    No If-Range is sent: the checksum at the end decides whether what came in pieces is one file.
    """
    have = _size(part)
    request = urllib.request.Request(address, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            start, whole = _extent(answer)
            if start in (0, have):
                with part.open("ab") as out:
                    out.truncate(start)
                    out.seek(start)  # or `tell` counts what was cut off
                    return _copy(answer, out, limit, whole, advance)
    except HTTPError as error:
        with error:
            if error.code != BAD_RANGE or not have:
                raise DataError(f"{address}: {error}") from error
            if error.headers.get("Content-Range") == f"bytes */{have}":
                return True
    except URLError as error:
        raise DataError(f"{address}: {error.reason}") from error
    if not have:
        raise DataError(f"{address}: asked for the whole file, was sent the part from {start}")
    part.unlink()  # the server has another file, or sends what was not asked for
    return _go_on(address, part, limit, advance)


def _extent(answer: HTTPResponse) -> tuple[int, int | None]:
    """Where in the file the answer starts, and how long that is in all (None if not said)."""
    told = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", ""))
    if answer.status == PARTIAL and told:
        return int(told[1]), None if told[2] == "*" else int(told[2])
    length = answer.headers.get("Content-Length", "")
    return 0, int(length) if length.isdigit() else None


def _copy(answer: HTTPResponse, out: BinaryIO, limit: int, whole: int | None, advance: Advance) -> bool:
    """Append until the end, or until more has come than the file could need: then it is another file."""
    while out.tell() <= limit and (piece := _received(answer)):
        out.write(piece)
        advance(len(piece))
    return out.tell() > limit or whole is None or out.tell() >= whole


def _received(answer: HTTPResponse) -> bytes:
    """The next piece; whatever goes wrong is the connection's fault, unlike what goes wrong when it is written."""
    try:
        return answer.read(PIECE)
    except (HTTPException, OSError) as error:
        raise ConnectionError(str(error) or type(error).__name__) from error

"""References to secrets in a spec, `${env:NAME}` and `${file:/absolute/path}`: found, checked, and replaced by what they name.

A spec, and all that is made of it, holds the reference; only the process that needs the secret reads it, and hides it from then on
in all that it writes.
"""

from __future__ import annotations

import os
import re
import socket
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote, unquote, urlsplit

from hpo.problem import Path, shown
from hpo.redaction import SHORTEST, hidden
from hpo.space import Value

OPENS = "${"
WAYS = "`${env:NAME}` or `${file:/absolute/path}`"
MOST_BYTES = 16 * 1024
ADDRESS = ("tracking", "uri")
SETTINGS = ("trainer", "settings")
_REFERENCE = re.compile(r"\$\{(?:(?P<env>env):(?P<name>[A-Za-z_][A-Za-z0-9_]*)|(?P<file>file):(?P<path>/[^{}]*))\}")


class SecretError(Exception):
    """A secret cannot be had: the text names its reference and the host, never what was found there."""


@dataclass(frozen=True, slots=True)
class Reference:
    """Where a secret is: in an environment variable, or in a file."""

    kind: Literal["env", "file"]
    name: str

    def __str__(self) -> str:
        return f"${{{self.kind}:{self.name}}}"


def references(text: str) -> list[Reference]:
    """The references in a text, each as often as it stands there."""
    return [_reference(found) for found in _REFERENCE.finditer(text)]


def is_reference(text: str) -> bool:
    """Whether the text is one reference and nothing else."""
    return _REFERENCE.fullmatch(text) is not None


def mistake(text: str) -> str:
    """What is wrong with the references in a text; empty if nothing is."""
    at = _REFERENCE.sub(lambda found: " " * len(found[0]), text).find(OPENS)
    if at >= 0:
        found = text[at : text.find("}", at) + 1 or len(text)]
        return f"found {shown(found)}; a secret is named by {WAYS}"
    for reference in references(text):
        if reference.kind == "file" and (".." in reference.name.split("/") or not reference.name.isprintable()):
            return f"found {shown(str(reference))}; the path of a secret's file is printable and has no `..`"
    return ""


def reference_mistakes(found: Any, path: Path = ()) -> Iterator[tuple[Path, str]]:
    """References in a spec's plain data that are malformed, or stand where what is written is recorded."""
    match found:
        case dict():
            for key, value in found.items():
                if OPENS in str(key):
                    yield (*path, key), f"found {shown(key)} as a key; {_PLACES}"
                yield from reference_mistakes(value, (*path, key))
        case list():
            for i, value in enumerate(found):
                yield from reference_mistakes(value, (*path, i))
        case str() if OPENS in found:
            wrong = mistake(found) if may_hold_secret(path) else f"found {shown(found)}; {_PLACES}"
            if wrong:
                yield path, wrong


_PLACES = "`${` begins a reference to a secret, and these may stand in texts of trainer.settings and in tracking.uri alone"


def may_hold_secret(path: Path) -> bool:
    """Whether a text at this place of a spec may refer to secrets."""
    return path == ADDRESS or (len(path) == 3 and path[:2] == SETTINGS)


def read(reference: Reference) -> str:
    """The secret, hidden in all that this process writes from now on; SecretError if it cannot be had here."""
    secret = _from_environment(reference) if reference.kind == "env" else _from_file(reference)
    if len(secret) < SHORTEST:
        raise _refusal(reference, f"has fewer than {SHORTEST} characters, too few to be told from other text in logs; use a longer secret")
    hidden.add(secret)
    return secret


def revealed(text: str) -> str:
    """The text with its secrets in the place of their references."""
    return _REFERENCE.sub(lambda found: read(_reference(found)), text)


def revealed_arguments(arguments: Mapping[str, Value]) -> dict[str, Value]:
    """A trainer's arguments with secrets in the place of references."""
    return {name: revealed(value) if isinstance(value, str) else value for name, value in arguments.items()}


def revealed_address(uri: str) -> str:
    """An address with its secrets: one that stands for a part of it is encoded as addresses need it, one that is all of it is not."""
    whole = is_reference(uri)
    address = _REFERENCE.sub(lambda found: read(_reference(found)) if whole else quote(read(_reference(found)), safe=""), uri)
    with suppress(ValueError):  # whoever uses it will say that it is no address
        password = urlsplit(address).password or ""
        hidden.add(*(each for each in {password, unquote(password)} if len(each) >= SHORTEST))
    return address


def masked(uri: str) -> tuple[str, list[str]]:
    """The text with each reference replaced by its number between two NUL characters, and the references."""
    found = [str(reference) for reference in references(uri)]
    numbers = iter(range(len(found)))
    return _REFERENCE.sub(lambda _: f"\0{next(numbers)}\0", uri), found


def unmasked(text: str, found: list[str]) -> str:
    """The inverse of `masked`, of whatever is left of its text."""
    return re.sub(r"\0([0-9]+)\0", lambda number: found[int(number[1])], text)


def _reference(found: re.Match[str]) -> Reference:
    return Reference("env", found["name"]) if found["env"] else Reference("file", found["path"])


def _refusal(reference: Reference, why: str) -> SecretError:
    return SecretError(f"{reference} on {socket.gethostname()} {why}")


def _from_environment(reference: Reference) -> str:
    found = os.environ.get(reference.name)
    if found is None:
        raise _refusal(reference, "is not set; set the variable there before hpo (or the node of the cluster) is started")
    return found


def _from_file(reference: Reference) -> str:
    try:
        with os.fdopen(os.open(reference.name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:  # else a pipe would wait
            about = os.fstat(file.fileno())
            if not stat.S_ISREG(about.st_mode):
                raise _refusal(reference, "is no file; name one that holds the secret and nothing else")
            if about.st_mode & stat.S_IRWXO:
                raise _refusal(reference, f"is open to everybody (mode {about.st_mode & 0o777:04o}); chmod 600 it, or 640 for a group")
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise _refusal(reference, f"cannot be read ({error.strerror})") from None
    if len(content) > MOST_BYTES:
        raise _refusal(reference, f"is larger than {MOST_BYTES // 1024} KiB; no secret is")
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise _refusal(reference, "is not UTF-8 text") from None
    return text.removesuffix("\n").removesuffix("\r")

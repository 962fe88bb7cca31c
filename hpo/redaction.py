"""Blots secrets out of what a process writes: those it was told of, and those its environment holds by name. Knows no spec.

A secret is looked for as it is and as programs write it: escaped, percent-encoded, in base64 or hexadecimal, in halves.
What tells it from chance is its length, so short ones are refused where they come in.
"""

from __future__ import annotations

import base64
import functools
import html
import json
import re
import threading
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

BLOT = "***"
SHORTEST = 6  # characters of a secret: what is shorter is found in other text by chance
SHORTEST_FOUND = 8  # of one that its variable's name gives away, of a line, and of a half
DEEPEST = 64  # of a state that is looked through
NAMES = re.compile(r"(?i)(PASSWORD|PASSWD|SECRET|TOKEN|API_?KEY|ACCESS_KEY|ACCESS_KEY_ID|SECRET_KEY|PRIVATE_KEY)$")
IN_ADDRESS = re.compile(r"://[^\s/@:]*:([^\s/@]+)@")  # a password


class _Form(NamedTuple):
    """A way in which a secret is written; no text without `anchor` has it, which is found a hundred times sooner."""

    anchor: str
    pattern: re.Pattern[str]


class _Half(NamedTuple):
    """The first or last half of a secret, which begins at its character `start`."""

    text: str
    whole: str
    start: int


class Redactor:
    """The secrets that one process knows of. Called with a text it returns that without them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: tuple[str, ...] = ()
        self._forms: tuple[_Form, ...] = ()
        self._halves: tuple[_Half, ...] = ()
        self.unknown: frozenset[str] = frozenset()  # references to secrets that others may write, and this process cannot know

    def __bool__(self) -> bool:
        """Whether there is anything to hide."""
        return bool(self._values)

    def add(self, *values: str) -> None:
        """Hide these from now on, and each line of one that has several."""
        with self._lock:
            new = {part for value in values for part in _parts(value)} - {*self._values}
            if new:  # longer ones first: a short one may be part of them
                known = sorted((*self._values, *new), key=lambda value: (-len(value), value))
                self._forms = tuple(form for value in known for form in _forms(value))
                self._halves = tuple(half for value in known for half in _halves(value))
                self._values = tuple(known)

    def add_environment(self, environment: Mapping[str, str]) -> None:
        """Hide what the environment calls a password, token or key, and passwords in addresses there."""
        named = [value for name, value in environment.items() if NAMES.search(name)]
        inside = [found for value in environment.values() for found in IN_ADDRESS.findall(value)]
        self.add(*(value for value in (*named, *inside) if len(value) >= SHORTEST_FOUND))

    def miss(self, reference: str) -> None:
        """Remember a reference to a secret that this process cannot know."""
        self.unknown |= {reference}

    def __call__(self, text: str) -> str:
        """The text without secrets, each replaced by `***`."""
        for anchor, pattern in self._forms:
            if anchor in text:
                text = pattern.sub(BLOT, text)
        for half in self._halves:
            if half.text in text:
                text = _without(half, text)
        return text

    def shows(self, text: str) -> bool:
        """Whether a secret is in the text."""
        return bool(self) and self(text) != text

    def place_in(self, state: Mapping[str, Any]) -> str:
        """Where in nested mappings and lists a text holds a secret, such as `settings[0]`; empty if nowhere. Numbers are none."""
        if not self or not self.shows("\n".join(text for _, text in _texts(state, "", 0))):
            return ""
        return next((place for place, text in _texts(state, "", 0) if self.shows(text)), "")


hidden = Redactor()  # this process's own


def _parts(value: str) -> Iterator[str]:
    if not value:
        return
    yield value
    if "\n" in value:
        yield from (line for line in map(str.strip, value.splitlines()) if len(line) >= SHORTEST_FOUND)


@functools.cache  # others are added to those that are known
def _forms(value: str) -> tuple[_Form, ...]:
    raw = value.encode(errors="surrogateescape")
    return tuple(map(_form, (value, *_in_base64(raw), raw.hex(), raw.hex().upper())))


def _form(text: str) -> _Form:
    runs = re.findall(r"[A-Za-z0-9]+", text)
    return _Form(max(runs, key=len, default=""), re.compile("".join(map(_written, text))))


def _written(character: str) -> str:
    """A pattern for a character as JSON, Python, a shell, HTML or an address may write it; letters and digits are never changed."""
    if character.isascii() and character.isalnum():
        return character
    backslash = r"\\+" if character in "\\\n\r\t" or not character.isascii() else r"\\*"
    plain = {re.escape(character), *(["[+]"] if character == " " else [])}
    percent = "".join(f"%{byte:02x}" for byte in character.encode(errors="surrogateescape"))
    escapes = [json.dumps(character)[1:-1], ascii(character)[1:-1], repr(character.encode(errors="surrogateescape"))[2:-1]]
    escaped = {re.escape(text.replace("\\", "\0")).replace("\0", backslash) for text in escapes if text != character}
    entities = {re.escape(html.escape(character)), f"&\\#{ord(character)};"}
    ways = [*sorted(escaped), f"(?i:{percent})", *sorted(entities - plain), *(rf"\\*{text}" for text in sorted(plain))]
    return f"(?:{'|'.join(ways)})"


def _in_base64(raw: bytes) -> Iterator[str]:
    """What base64 makes of the bytes wherever they begin in what is encoded, without the characters that neighbours have a part in."""
    for shift in range(3):
        coded = base64.b64encode(bytes(shift) + raw).decode()
        core = coded[-(-8 * shift // 6) : 8 * (shift + len(raw)) // 6]
        if len(core) >= SHORTEST:
            yield core
            if (for_addresses := core.translate(str.maketrans("+/", "-_"))) != core:
                yield for_addresses


def _halves(value: str) -> Iterator[_Half]:
    length = max(SHORTEST_FOUND, -(-len(value) // 2))
    if length < len(value):
        yield _Half(value[:length], value, 0)
        yield _Half(value[-length:], value, len(value) - length)


def _without(half: _Half, text: str) -> str:
    """The text without the half and what of the whole stands around it."""
    whole, done, at = half.whole, "", 0
    while (found := text.find(half.text, at)) >= 0:
        first, start = found, half.start
        while first > at and start > 0 and text[first - 1] == whole[start - 1]:
            first, start = first - 1, start - 1
        end, stop = found + len(half.text), half.start + len(half.text)
        while end < len(text) and stop < len(whole) and text[end] == whole[stop]:
            end, stop = end + 1, stop + 1
        done, at = done + text[at:first] + BLOT, end
    return done + text[at:]


def _texts(value: Any, place: str, depth: int) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, Mapping) and depth < DEEPEST:
        for key, inside in value.items():
            yield f"a key of {place or 'the state'}", str(key)  # first, so that no place is told by a key that is a secret
            yield from _texts(inside, f"{place}[{key!r}]" if place else str(key), depth + 1)
    elif isinstance(value, list | tuple) and depth < DEEPEST:
        for number, inside in enumerate(value):
            yield from _texts(inside, f"{place}[{number}]", depth + 1)

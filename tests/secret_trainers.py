"""Trainers that show their secrets in every way in which a trainer's output is kept."""

from __future__ import annotations

import base64
import json
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

from hpo.trainer import RunningTrial


class Refused(Exception):
    """What a client raises that quotes its own request."""


def _printed(secret: str) -> None:
    print("token is", secret)
    sys.stderr.write(f"Authorization: Bearer {secret}\n")


def _in_pieces(secret: str) -> None:
    for piece in (secret[:3], secret[3:9], secret[9:], "\n"):
        print(piece, end="", flush=True)


def _letter_by_letter(secret: str) -> None:
    for letter in secret:
        sys.stdout.write(letter)


def _warned(secret: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn(f"deprecated token {secret}", stacklevel=1)


def _logged(secret: str) -> None:
    handler = logging.StreamHandler(sys.stderr)
    logger = logging.getLogger("secret_trainers")
    logger.addHandler(handler)
    logger.error("cannot log in with %s", secret)
    logger.removeHandler(handler)


def _encoded(secret: str) -> None:
    print("Basic", base64.b64encode(f"user:{secret}".encode()).decode())
    print(f"GET https://host/?key={quote(secret, safe='')}&x=1")
    print(json.dumps({"headers": {"token": secret}}), repr(secret), secret.encode().hex())


def _raised(secret: str) -> None:
    raise Refused(f"401 for {secret}")


def _chained(secret: str) -> None:
    try:
        raise KeyError(secret)
    except KeyError as error:
        again = Refused("cannot log in")
        again.add_note(f"tried {secret}")
        raise again from error


def _grouped(secret: str) -> None:
    raise ExceptionGroup("all of it", [ValueError(secret), Refused(f"and {secret!r}")])


def _unreadable_file(secret: str) -> None:
    with open(f"/nowhere/{secret}"):  # noqa: PTH123
        pass


def _exit(secret: str) -> None:
    sys.exit(f"bye {secret}")


SHOWN: dict[str, Callable[[str], None]] = {
    "printed": _printed,
    "in pieces": _in_pieces,
    "letter by letter": _letter_by_letter,
    "warned": _warned,
    "logged": _logged,
    "encoded": _encoded,
}
RAISED: dict[str, Callable[[str], None]] = {
    "raised": _raised,
    "chained": _chained,
    "grouped": _grouped,
    "unreadable file": _unreadable_file,
    "exit": _exit,
}


def showing(trial: RunningTrial, *, x: float, token: str = "", kind: str = "printed") -> Iterator[dict[str, Any]]:
    """Shows `token` at its second epoch, in the way `kind`."""
    import torch

    for epoch in range(1, trial.max_epochs + 1):
        state: dict[str, Any] = {"model": {"weight": torch.full((2, 2), x)}, "example": torch.zeros(2, 2), "epoch": epoch}
        metrics: dict[str, Any] = {"value": x + epoch}
        state |= {"headers": {"token": token}} if kind == "state from the beginning" else {}
        if epoch == 2:
            SHOWN.get(kind, RAISED.get(kind, str))(token)
            state |= {"state": {"headers": {"token": token}}, "state's key": {"seen": {token: 1}}}.get(kind, {})
            metrics |= {"metric's name": {f"loss of {token}": 1.0}, "metric": {"loss": token}}.get(kind, {})
        trial.save(**state)
        yield metrics


def given(trial: RunningTrial, *, x: float, token: str, address: str = "", plain: str = "") -> Iterator[dict[str, float]]:
    """Says in numbers whether it was given what it should be, and shows it in every way that does not end it."""
    expected = json.loads(os.environ["HPO_TEST_EXPECTED"])
    for show in SHOWN.values():
        show(token)
        show(address)
    right = {"token": token == expected["token"], "address": address == expected["address"], "plain": plain == "as it is"}
    for _ in range(trial.max_epochs):
        yield {"value": x, **{name: float(is_right) for name, is_right in right.items()}}
        time.sleep(0.05)

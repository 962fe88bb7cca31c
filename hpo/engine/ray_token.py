"""The token that keeps strangers out of a Ray: every Ray that we start or join demands one. Imports no ray.

Ray takes $RAY_AUTH_TOKEN, else the file $RAY_AUTH_TOKEN_PATH, else ~/.ray/auth_token, which it makes readable for everybody.
"""

from __future__ import annotations

import importlib
import os
import secrets
import stat
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

_own: set[str] = set()  # tokens that this process made for a Ray of its own
MODE, TOKEN, TOKEN_FILE = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
BYTES = 32


class TokenError(Exception):
    """There is no token that could be used: get one from whoever started the cluster, or mend its file."""


def file() -> Path:
    """Where a token is looked for, unless $RAY_AUTH_TOKEN holds it."""
    return Path(os.environ.get(TOKEN_FILE) or Path.home() / ".ray" / "auth_token")


def demand() -> None:
    """Have every Ray that this process starts or joins from now on demand a token."""
    os.environ[MODE] = "token"
    if "ray" in sys.modules:  # a user's program may have imported it first, and it read the mode then
        with suppress(ImportError, AttributeError):
            raylet: Any = importlib.import_module("ray._raylet")
            raylet.Config.initialize("")
            raylet.AuthenticationTokenLoader.instance().reset_cache()


def have_own() -> None:
    """A token for a Ray that this process starts for itself: that of the environment, or one that nobody else knows and no file holds."""
    if not os.environ.get(TOKEN):
        os.environ[TOKEN] = secrets.token_hex(BYTES)
        _own.add(os.environ[TOKEN])
    demand()


def have_given() -> None:
    """The token of a cluster that others started; TokenError if there is none, or if anybody could change it."""
    _forget_own()
    if not os.environ.get(TOKEN):
        path = file()
        if not path.is_file():
            raise TokenError(
                f"no token of the Ray cluster: neither {TOKEN} nor {path} is there; copy the file from the node that "
                "runs `hpo node --head` (keep it to yourself: chmod 600), or name it by RAY_AUTH_TOKEN_PATH"
            )
        keep_private(path)
    demand()


def have_or_make() -> Path | None:
    """The token for the head of a new cluster, made where there is none; its file, or None if the environment holds it."""
    _forget_own()
    if os.environ.get(TOKEN):
        demand()
        return None
    path = file()
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(FileExistsError):
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as written:
                written.write(secrets.token_hex(BYTES))
    keep_private(path)
    demand()
    return path


def _forget_own() -> None:
    """Be no longer who has a Ray of his own: that token is nobody else's."""
    if os.environ.get(TOKEN) in _own:
        del os.environ[TOKEN]


def keep_private(path: Path) -> None:
    """Have nobody but its owner read the file; TokenError where that is somebody else who lets others write it, or where it is empty."""
    found = path.stat()
    if found.st_mode & 0o077 and found.st_uid == os.geteuid():
        with suppress(OSError):  # a read-only file system, such as a mounted secret
            path.chmod(0o600)
            found = path.stat()
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise TokenError(f"{path} can be changed by others than its owner; take a file of your own: chmod 600")
    if not path.read_text(encoding="ascii", errors="replace").strip():
        raise TokenError(f"{path} is empty; copy it again from the node that runs `hpo node --head`")

"""Which storage a study's checkpoints are kept in: the study's own folder, a shared folder, or a URI. Says what is allowed.

Below a storage each study has a folder of its own, `NAME-<12 random hex digits>`, which its journal's first line names; nothing is
ever written beside it, and studies of the same name from any home keep apart.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hpo import objects
from hpo.events import Created
from hpo.journal_format import JournalError
from hpo.objects import ObjectPath, StorageError
from hpo.places import OWN, Place, SharedPath, shared_errors
from hpo.problem import shown

SCHEMES = ("file", "s3", "gs")
WAYS = "an absolute path of a folder that all nodes reach, or a URI such as s3://BUCKET/FOLDER"
_URI = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(.*)", re.DOTALL)
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]")
_PART = re.compile(r"[A-Za-z0-9_=+.-]+")


def checked(text: str) -> str:
    """A storage as it is kept: a folder's absolute path, or an object store's URI without a slash at its end.

    ValueError says what is wrong and what is allowed.
    """
    if mistake := _mistake(text):
        is_open = any(sign in text for sign in "@?#")  # where people put credentials
        raise ValueError(f"found {'what is not repeated here' if is_open else shown(text)}; {mistake}")
    path = text.removeprefix("file://") if text.startswith("file:") else text
    return os.path.normpath(path) if path.startswith("/") else text.rstrip("/")


def _mistake(text: str) -> str:
    if not text.isprintable() or "\\" in text:
        return f"{WAYS} is needed, of printable characters, without backslashes"
    uri = _URI.fullmatch(text)
    return _uri_mistake(uri[1], uri[2]) if uri else _path_mistake(text)


def _uri_mistake(scheme: str, rest: str) -> str:
    if scheme not in SCHEMES:
        return f"{WAYS} is needed; schemes are {', '.join(SCHEMES)}"
    if not rest.startswith("//"):
        return f"a URI begins with {scheme}://"
    if "?" in rest or "#" in rest:
        return "a URI of a storage has no query and no fragment; how the store is reached is the environment's (AWS_*, GOOGLE_*)"
    if "@" in rest:
        return "credentials are no part of a storage: give them to each node's environment, or give the nodes a role"
    return _path_mistake(rest[2:]) if scheme == "file" else _object_mistake(rest[2:])


def _path_mistake(path: str) -> str:
    if path.startswith("~"):
        return "`~` is another folder for each user; write the absolute path"
    if not path.startswith("/") or path.startswith("//"):
        return f"{WAYS} is needed"
    if ".." in path.split("/"):
        return "a path goes through no `..`"
    return "" if os.path.normpath(path) != "/" else "a folder below / is needed"


def _object_mistake(rest: str) -> str:
    bucket, *parts = rest.rstrip("/").split("/") if not rest.endswith("//") else [rest]
    if not _BUCKET.fullmatch(bucket) or ".." in bucket:
        return "the name of a bucket is needed behind ://, of 3 to 63 lower-case letters, digits and any of `._-`"
    if all(_PART.fullmatch(part) and part not in (".", "..") for part in parts):
        return ""
    return "folders in a bucket have names of letters, digits and any of `_=+.-`, and none is `..`"


def of_new_study(storage: str | None, name: str) -> str | None:
    """The folder of a new study called `name` in a storage that `checked` passed, for the first line of its journal."""
    return None if storage is None else f"{storage}/{name}-{secrets.token_hex(6)}"


def of_study(folder: Path, created: Created) -> Place:
    """Where the checkpoints of the study in `folder` are; JournalError where its first line names no place that hpo makes."""
    return kept_in(folder, created.storage, created.spec)


def kept_in(folder: Path, storage: str | None, spec: Mapping[str, Any]) -> Place:
    """The same by what the first line says: the study's own `storage`, which is one step below that of the `spec`."""
    if storage is None:
        return folder
    above, _, own = storage.rpartition("/")
    try:
        is_ours = above == spec["checkpoints"]["storage"] == checked(above) and checked(storage) == storage and OWN.fullmatch(own)
    except (LookupError, TypeError, ValueError):
        is_ours = False
    if not is_ours:
        raise JournalError(f"{folder}: its first line keeps the checkpoints in {shown(storage)}; no version of hpo writes that")
    return ObjectPath(storage) if "://" in storage else SharedPath(storage)


def make_ready(root: Place, *, is_new: bool) -> None:
    """Make the folder of a study that has no trial yet in a shared folder; of another StorageError where it is missing."""
    if not isinstance(root, SharedPath):
        return
    with shared_errors(root, absence=True):
        if is_new:
            root.mkdir(exist_ok=True)
        root.stat()


def unreachable(storage: str | None) -> str:
    """Why nothing can be kept in a storage from here, by one look; empty if that may go well.

    A shared folder must be there: where it is not mounted, one that we made would lie on this machine's own disk.
    """
    if storage is None:
        return ""
    if storage.startswith("/"):
        folder = Path(storage)
        if not folder.is_dir():
            return f"{storage} is no folder here; mount or make it on all nodes"
        return "" if os.access(folder, os.W_OK | os.X_OK) else f"{storage} cannot be written by this user"
    if missing := objects.missing_library(storage.partition(":")[0]):
        return missing
    try:
        objects.names(ObjectPath(storage) / "hpo")  # a folder that nobody makes: no more is asked than whether we may ask
    except StorageError as error:
        return f"{error.filename}: {error.strerror}"
    return ""

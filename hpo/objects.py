"""Objects in S3 and Google Cloud Storage, one request for each thing done. Knows no trial; the only place that imports obstore.

A PUT is atomic and durable: an object is the old one or the new one, whole. Listings are asked for anew each time and show every
PUT that was answered before (both stores promise that).
"""

from __future__ import annotations

import errno
import functools
import os
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from obstore.store import GCSStore, S3Store

EXTRAS = {"s3": "s3", "gs": "gs"}  # which extra of ours brings what a scheme needs
WAIT_S = 60.0  # for a store that does not answer, or says that it is busy
BRIEFLY_S = 3.0
_wait_s: ContextVar[float | None] = ContextVar("wait_s", default=None)
_silent_until: dict[str, float] = {}  # buckets that gave no answer to who asked briefly
LARGEST = 5 * 10**9  # bytes of an object that can be copied by one request
_CODE, _SAID = re.compile(r"<Code>([^<]+)</Code>"), re.compile(r"<Message>([^<]+)</Message>")
_STATUS = re.compile(r"status code: (\d+ [A-Za-z ]+)")
_INSTANCE = "169.254.169.254"  # where machines of a cloud are asked for their credentials


class StorageError(OSError):
    """The storage of the checkpoints cannot be reached, or refuses: nothing is lost; mend that, then resume."""

    def __str__(self) -> str:
        return f"{self.filename}: {self.strerror}"


@dataclass(frozen=True, slots=True, order=True)
class ObjectPath:
    """An object, or what the names of several begin with: `s3://bucket/some/name`. Names nothing but its URI, so it is light to send."""

    uri: str

    def __str__(self) -> str:
        return self.uri

    def __truediv__(self, name: str) -> ObjectPath:
        return ObjectPath(f"{self.uri}/{name}")

    @property
    def name(self) -> str:
        return self.uri.rpartition("/")[2]

    @property
    def parent(self) -> ObjectPath:
        return ObjectPath(self.uri.rpartition("/")[0])

    def with_name(self, name: str) -> ObjectPath:
        """What lies beside it under that name."""
        return self.parent / name

    @property
    def key(self) -> str:
        """Its name within its bucket."""
        return self.uri.split("/", 3)[3] if self.uri.count("/") > 2 else ""

    @property
    def bucket(self) -> str:
        """The URI of its bucket."""
        return "/".join(self.uri.split("/", 3)[:3])


def missing_library(scheme: str) -> str:
    """What has to be installed before objects of that scheme can be reached; empty if nothing has to."""
    return "" if find_spec("obstore") else f"{scheme}:// needs a library that is not installed here: pip install 'hpo[{EXTRAS[scheme]}]'"


def write(path: ObjectPath, content: bytes) -> None:
    """Put `content` in the place of the object in one step; it is durable once this returns."""
    what = f"{len(content):,} bytes could not be written"
    if len(content) > LARGEST:
        raise StorageError(errno.EFBIG, f"{what}: one object holds {LARGEST:,} at most; use a shared folder", str(path))
    with _asking(path, what):
        _obstore(path).put(_store(path.bucket), path.key, content)


def read(path: ObjectPath) -> bytes:
    """What the object holds; FileNotFoundError if there is none."""
    with _asking(path, "cannot be read"):
        return bytes(_obstore(path).get(_store(path.bucket), path.key).bytes())


def size(path: ObjectPath) -> int | None:
    """How many bytes the object has; None if there is none."""
    try:
        with _asking(path, "cannot be looked for"):
            return int(_obstore(path).head(_store(path.bucket), path.key)["size"])
    except FileNotFoundError:
        return None


def names(folder: ObjectPath) -> list[str]:
    """The next part of all names that go on behind `folder/`, each once, in order."""
    with _asking(folder, "cannot be listed"):
        found = _obstore(folder).list_with_delimiter(_store(folder.bucket), folder.key or None)
    return sorted(str(path).rpartition("/")[2] for path in (*found["common_prefixes"], *(meta["path"] for meta in found["objects"])))


def below(folder: ObjectPath) -> list[ObjectPath]:
    """All objects whose names go on behind `folder/`, in order; a request for each thousand."""
    with _asking(folder, "cannot be listed"):
        found = _obstore(folder).list(_store(folder.bucket), folder.key or None).collect()
    return sorted(ObjectPath(f"{folder.bucket}/{meta['path']}") for meta in found)


def remove(paths: Iterable[ObjectPath]) -> None:
    """Remove these objects of one bucket, those that exist, with a request for each thousand."""
    doomed = list(paths)
    if doomed:
        with _asking(doomed[0].parent, f"{len(doomed)} of its objects could not be removed"):
            _obstore(doomed[0]).delete(_store(doomed[0].bucket), [path.key for path in doomed])


def copy(source: ObjectPath, target: ObjectPath) -> None:
    """Put the content of `source` in the place of `target` in one step, within one bucket; it does not pass through here."""
    with _asking(target, f"could not become a copy of {source.name}"):
        _obstore(source).copy(_store(source.bucket), source.key, target.key)


def _obstore(path: ObjectPath) -> ModuleType:
    scheme = path.uri.partition(":")[0]
    try:
        import obstore
    except ImportError:
        raise StorageError(errno.ENOPKG, missing_library(scheme), str(path)) from None
    return obstore


@contextmanager
def briefly() -> Iterator[None]:
    """Within, nobody waits long for a store that does not answer, nor again for half a minute: what is asked is not worth it."""
    token = _wait_s.set(BRIEFLY_S)
    try:
        yield
    finally:
        _wait_s.reset(token)


def _store(bucket: str) -> S3Store | GCSStore:
    return _opened(bucket, _wait_s.get() or WAIT_S)


@functools.cache
def _opened(bucket: str, wait_s: float) -> S3Store | GCSStore:
    """Credentials, region and endpoint are the environment's, as the cloud's own tools read it."""
    from obstore.store import from_url

    # plain HTTP only where the operator's own endpoint says so, such as a MinIO beside it
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    is_plain = bucket.startswith("s3:") and endpoint.startswith("http://")
    return from_url(  # type: ignore[return-value]  # of these two schemes it is one of these two
        bucket,
        client_options={
            "connect_timeout": "5s",
            "read_timeout": timedelta(seconds=min(60, wait_s)),
            "timeout": "1h",
            "allow_http": is_plain,
        },
        retry_config={
            "max_retries": 100,
            "retry_timeout": timedelta(seconds=wait_s),
            "backoff": {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=5), "base": 2},
        },
    )


@contextmanager
def _asking(path: ObjectPath, what: str) -> Iterator[None]:
    """Errors of the library become ours, with what the store said and nothing of what it was sent."""
    base_error, is_brief = _obstore(path).exceptions.BaseError, _wait_s.get() is not None
    if is_brief and time.monotonic() < _silent_until.get(path.bucket, 0.0):
        raise StorageError(errno.EREMOTEIO, f"{what}: the store gave no answer a moment ago", str(path))
    try:
        yield
    except FileNotFoundError as error:
        if "NoSuchBucket" in str(error):
            raise StorageError(errno.ENXIO, f"{what}: there is no bucket {path.bucket}", str(path)) from None
        raise FileNotFoundError(errno.ENOENT, "there is no such object", str(path)) from None
    except base_error as error:
        if is_brief:
            _silent_until[path.bucket] = time.monotonic() + 30
        raise StorageError(errno.EREMOTEIO, f"{what}: {_said(path, str(error))}", str(path)) from None


def _said(path: ObjectPath, text: str) -> str:
    """What the store answered, in a line. Its whole answer may repeat the request's signature."""
    text = text.partition("\n\nDebug source")[0]
    scheme = path.uri.partition(":")[0]
    if _INSTANCE in text or "metadata.google" in text:
        how = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" if scheme == "s3" else "GOOGLE_APPLICATION_CREDENTIALS"
        return f"no credentials were found; give this machine a role, or set {how}"
    status = ": ".join(found[1] for found in (_STATUS.search(text), _CODE.search(text), _SAID.search(text)) if found)
    return status or " ".join(text.rpartition(" - ")[2].split())[:200]

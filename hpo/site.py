"""Where searches run and keep their checkpoints, as whoever operates the machines says it: a file, the environment, an option.

The file is $HPO_CONFIG, else `hpo/config.yaml` in the user's configuration folder; there need be none. A spec says what is
searched and is the same on every machine; what differs between machines stands here.
"""

from __future__ import annotations

import getpass
import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from hpo.problem import Place, SpecError, shown
from hpo.schema import Reader, Rule, Text, keys_of
from hpo.storage import checked
from hpo.tracking import public
from hpo.yaml_source import read_document

FILE = "HPO_CONFIG"
ADDRESS = "RAY_ADDRESS"
OWNER = "HPO_OWNER"
LOCAL = "local"
_HOST_PORT = re.compile(r"(?P<host>[A-Za-z0-9_.-]+|\[[0-9a-fA-F:]+\]):(?P<port>[0-9]{1,5})")


def address_mistake(address: str) -> str:
    """Why no Ray cluster can be joined at `address`; empty if one may."""
    if address.startswith("ray://"):
        return "is an address of Ray's client, whose driver lives on the cluster; submit the study instead: hpo launch --detach"
    found = _HOST_PORT.fullmatch(address)
    if address in ("auto", LOCAL) or (found and 0 < int(found["port"]) < 65_536):
        return ""
    return "is no address of a Ray cluster; write auto (this machine's), HOST:PORT, or local (a Ray of the search's own)"


def _address(address: str) -> str:
    if mistake := address_mistake(address):
        raise ValueError(f"found {shown(address)}, which {mistake}")
    return address


def _jobs(uri: str) -> str:
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc or parts.query:
        raise ValueError(f"found {shown(public(uri))}; the address of Ray's jobs is http://HOST:8265 or https://HOST")
    return uri.rstrip("/")


def jobs_address(uri: str, given_by: str) -> str:
    """The address of a cluster's job server as an option or a variable gave it; SpecError where it is none."""
    try:
        return _jobs(uri)
    except ValueError as error:
        raise SpecError.at(Place(given_by), "", str(error)) from None


@dataclass(frozen=True, slots=True)
class Cluster:
    """The Ray cluster that searches join (`address`: auto, HOST:PORT, or None: each has a Ray of its own), the address of its jobs,
    and the `storage` of their checkpoints, a folder or URI that all nodes reach, for specs that name none.
    """

    address: Annotated[Text, Rule(_address)] | None = None
    storage: Annotated[Text, Rule(checked)] | None = None
    jobs: Annotated[Text, Rule(_jobs)] | None = None


@dataclass(frozen=True, slots=True)
class Site:
    """All that the file says."""

    cluster: Cluster = field(default_factory=Cluster)


def file() -> Path:
    """The operator's file, which need not exist."""
    base = os.environ.get("XDG_CONFIG_HOME", "")
    folder = Path(base) if Path(base).is_absolute() else Path("~/.config").expanduser()
    return Path(os.environ.get(FILE) or folder / "hpo" / "config.yaml")


def site(address: str | None = None) -> Site:
    """What holds for this command: `address` (the option) before $RAY_ADDRESS before the file. SpecError with every mistake."""
    found = _read(file())
    for name, given in (("--address", address), (ADDRESS, os.environ.get(ADDRESS) or None)):
        if given is not None:
            if mistake := address_mistake(given):
                raise SpecError.at(Place.option(name, given), "", mistake)
            found = replace(found, cluster=replace(found.cluster, address=given))
            break
    if found.cluster.address == LOCAL:
        found = replace(found, cluster=replace(found.cluster, address=None))
    return found


def owner() -> str:
    """Whose searches this process runs: $HPO_OWNER, else the name of its user."""
    if named := os.environ.get(OWNER, "").strip():
        return named if named.isprintable() else repr(named)
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        return str(os.geteuid())


def _read(path: Path) -> Site:
    if not path.exists() and not os.environ.get(FILE):
        return Site()
    document = read_document(path)
    reader = Reader(document)
    if reader.mapping(()) is None:
        raise SpecError(document.problems)
    reader.known_keys((), keys_of(Site))
    cluster: Cluster | None = reader.read(Cluster, ("cluster",)) if "cluster" in document.data else Cluster()
    if document.problems or cluster is None:
        raise SpecError(document.problems)
    return Site(cluster)

"""Which addresses of MLflow there may be: schemes, hosts, drivers and queries on lists of what is allowed. Words about text; asks nobody.

Whoever reads an address must see where it leads, so what programs read differently is refused: two @, dots that go up, numbers in
the place of a host, letters that look like others. A database's query may load libraries and files, so it holds what is known.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from collections.abc import Iterator
from urllib.parse import parse_qsl

DRIVERS = {
    "http": ("",),
    "https": ("",),
    "sqlite": ("", "pysqlite"),
    "postgresql": ("", "psycopg", "psycopg2", "pg8000"),
    "mysql": ("", "pymysql", "mysqldb", "mysqlconnector"),
    "mssql": ("", "pyodbc", "pymssql"),
    "databricks": ("",),
}
SCHEMES = tuple(DRIVERS)
QUERIES = {
    "postgresql": (
        "user", "password", "host", "port", "sslmode", "sslrootcert", "sslcert", "sslkey", "application_name", "target_session_attrs",
        "connect_timeout", "tcp_user_timeout", "keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count",
    ),
    "mysql": ("charset", "connect_timeout", "ssl_ca", "ssl_cert", "ssl_key"),
    "mssql": ("driver", "charset", "timeout", "Encrypt", "TrustServerCertificate"),
}  # fmt: skip
LONGEST = 2000
SUFFIXES = (".db", ".sqlite", ".sqlite3")  # a database under another name would be taken for what that says, and be run perhaps
NO_ADDRESS = "is no address; in a user's name or password write %2F for /, %40 for @, %3A for :, %2E for . and %5B for ["
NO_FILE = (
    f"is no SQLite database: write sqlite:///FILE or sqlite:////FOLDER/FILE, which ends in {' or '.join(SUFFIXES)}, "
    "without `..`, `~`, `?` and encoded letters"
)
NO_PORT = "is no address: a port is a number from 1 to 65535"
NO_HOST = "names no host that can be told: a name, or an address of four numbers or in brackets, is needed"
_AUTHORITY = re.compile(
    r"(?:(?P<user>[\w+~!$&'*,;=%-]+)(?P<password>:[^\s/?#@\[\]]*)?@)?(?P<host>[^\s:/?#@]*|\[[0-9A-Fa-f:.]+\])(?P<port>:[0-9]*)?"
)
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9_-]*[A-Za-z0-9])?)*\.?")
_PATH = re.compile(r"(?:/[A-Za-z0-9._~-]+)*/?")
_DATABASE = re.compile(r"(?:/[A-Za-z0-9_.-]*)?")
_ENCODED = re.compile("%[0-9A-Fa-f]{2}")
_PROFILE = re.compile(r"[A-Za-z0-9_-]+(?::[A-Za-z0-9_-]+)?")
_ODBC = re.compile(r"[A-Za-z0-9 .-]+")  # the name of an installed driver; a path would be loaded as a library


def mistake(uri: str) -> str:
    """Why MLflow is not looked for at `uri`; empty if it may be. Never quotes it, for it may hold a password."""
    return next(_mistakes(uri), "")


def _mistakes(uri: str) -> Iterator[str]:
    """What is wrong; only the first may be relied on."""
    scheme, slashes, rest = uri.partition("://")
    kind, plus, driver = scheme.partition("+")
    if len(uri) > LONGEST or not uri.isprintable() or "\\" in uri or unicodedata.normalize("NFKC", uri) != uri:
        yield f"is no address: one has at most {LONGEST} plain characters, and no backslash"
    if not slashes or kind not in DRIVERS:
        found = uri.partition(":")[0] if ":" in uri else ""
        yield f"has the scheme {found[:20]!r}; MLflow is reached by {', '.join(SCHEMES)}"
    if plus and (not driver or driver not in DRIVERS[kind]):
        yield f"has a driver that is not known; {kind} has {', '.join(filter(None, DRIVERS[kind])) or 'none'}"
    match kind:
        case "sqlite" if not _is_file(rest):
            yield NO_FILE
        case "databricks" if not _PROFILE.fullmatch(rest):
            yield "names no profile; write databricks://PROFILE"
        case "http" | "https":
            yield from _server(kind, rest)
        case "postgresql" | "mysql" | "mssql":
            yield from _database(kind, rest)


def _is_file(rest: str) -> bool:
    path = rest.removeprefix("/")
    parts = path.removeprefix("/").split("/")
    plain = rest.startswith("/") and not set(path) & set("?#") and not _ENCODED.search(path) and not path.startswith(("~", "file:"))
    return plain and path.endswith(SUFFIXES) and not {"", ".", ".."} & set(parts) and parts[-1] not in SUFFIXES


def _server(kind: str, rest: str) -> Iterator[str]:
    authority, slash, path = rest.partition("/")
    found = _AUTHORITY.fullmatch(authority)
    if not authority or (found and not found["host"]):
        yield f"names no host; write {kind}://HOST:PORT"
    if "?" in rest or "#" in rest:
        yield "has a query or a fragment, and MLflow takes none"
    if found is None or not authority.isascii() or (found["user"] and not found["password"]):
        yield NO_ADDRESS
        return
    if not _is_port(found["port"]):
        yield NO_PORT
    if not _is_host(found["host"]):
        yield NO_HOST
    if not _PATH.fullmatch(slash + path) or {".", ".."} & set(path.split("/")):
        yield "has a path that is not plain: letters, digits and any of `._~-` are, without `..`"


def _database(kind: str, rest: str) -> Iterator[str]:
    place, _, query = rest.partition("?")
    authority, slash, name = place.partition("/")
    found, asked = _AUTHORITY.fullmatch(authority), parse_qsl(query, keep_blank_values=True)
    if found is None or not place.isascii() or not _DATABASE.fullmatch(slash + name) or ".." in name:
        yield NO_ADDRESS
        return
    allowed = QUERIES[kind]
    if not _is_port(found["port"]):
        yield NO_PORT
    if "#" in query or any(key not in allowed for key, _ in asked) or (query and len(asked) != query.count("&") + 1):
        yield f"has a query with what is not allowed there; {kind} may have {', '.join(allowed)}"
    if any(key == "driver" and not _ODBC.fullmatch(value) for key, value in asked):
        yield "has a driver that is no name of an installed one, such as ODBC Driver 18 for SQL Server"
    if not found["host"] and not (kind == "postgresql" and any(key == "host" and value for key, value in asked)):
        yield f"names no host; write {kind}://HOST/NAME"
    if found["host"] and not _is_host(found["host"]):
        yield NO_HOST


def _is_host(host: str) -> bool:
    bare = host.strip("[]")
    if host.startswith("[") or bare.rstrip(".").rpartition(".")[2].isdecimal() or re.search(r"(?:^|\.)0[xX]", bare):
        try:
            return (ipaddress.ip_address(bare).version == 6) is host.startswith("[")
        except ValueError:
            return False
    return bool(_HOST.fullmatch(host)) and len(host) <= 253


def _is_port(port: str | None) -> bool:
    return port is None or (port[1:].isdecimal() and 0 < int(port[1:]) < 65_536)

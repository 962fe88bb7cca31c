"""What it takes to reach MLflow's record straight in a database, without a server: a driver, and an end to waiting. Imports no mlflow."""

from __future__ import annotations

from importlib.util import find_spec
from urllib.parse import parse_qsl, urlencode

DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
POSTGRESQL = "postgresql"
DRIVER = "psycopg"  # of PostgreSQL; which one a bare `postgresql://` means depends on SQLAlchemy's version
# libpq's own words. Without them a host that went away with its link is waited for a quarter of an hour, in every call.
TIME_LIMITS = {
    "connect_timeout": "10",
    "tcp_user_timeout": "10000",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
}


def is_database(uri: str) -> bool:
    """Whether MLflow itself works in the store at `uri`; otherwise a server does."""
    return _kind(uri) in DATABASES


def missing_driver(uri: str) -> str:
    """What to install before the database at `uri` can be reached; empty if nothing is missing that is known of here."""
    if _kind(uri) != POSTGRESQL:
        return ""
    driver = uri.partition("://")[0].partition("+")[2] or DRIVER
    if driver.isidentifier() and find_spec(driver):
        return ""
    install = "pip install 'hpo[postgres]'" if driver == DRIVER else f"install it, or write {POSTGRESQL}://"
    return f"PostgreSQL's driver {driver} is not installed: {install}"


def patient(uri: str) -> str:
    """The address with an end to all waiting for a host that is gone, and with the driver that takes it; others as they are."""
    scheme, _, address = uri.partition("://")
    if scheme not in (POSTGRESQL, f"{POSTGRESQL}+{DRIVER}", f"{POSTGRESQL}+psycopg2"):
        return uri
    who, at, where = address.rpartition("@")  # a password may hold what would begin the query
    place, _, query = where.partition("?")
    asked = dict(parse_qsl(query, keep_blank_values=True))
    driver = f"{POSTGRESQL}+{DRIVER}" if scheme == POSTGRESQL else scheme
    return f"{driver}://{who}{at}{place}?{urlencode(TIME_LIMITS | asked)}"


def _kind(uri: str) -> str:
    return uri.partition("://")[0].partition("+")[0]

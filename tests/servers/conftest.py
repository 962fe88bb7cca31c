"""One PostgreSQL and one MLflow server over it for all tests here; without PostgreSQL they are skipped, and say what to install."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpo.opening import open_store
from hpo.tracking import environment, surroundings
from tests.servers.mlflow_server import GuardedServer
from tests.servers.postgres import ROLE, Postgres, why_not

SERVED, STRAIGHT = "served", "straight"  # the server's database, and one that studies write to without a server


@pytest.fixture(scope="session", autouse=True)
def _quiet() -> Iterator[None]:
    """MLflow here as in every process of ours; a request that is not answered soon is given up."""
    with surroundings(environment() | {"MLFLOW_HTTP_REQUEST_TIMEOUT": "5", "MLFLOW_TRACKING_URI": ""}):
        os.environ.pop("MLFLOW_TRACKING_URI")
        yield


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """It has two databases with MLflow's tables."""
    if why := why_not():
        pytest.skip(why)
    with Postgres() as found:
        open_store(found.create(SERVED), "Default", found.folder)
        found.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", ROLE)
        found.create(STRAIGHT, SERVED)
        yield found


@pytest.fixture(scope="session")
def server(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuardedServer]:
    """With users."""
    with GuardedServer(tmp_path_factory.mktemp("server"), postgres, SERVED) as found:
        yield found


@pytest.fixture(scope="session")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of all studies here."""
    return tmp_path_factory.mktemp("studies")

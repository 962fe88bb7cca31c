"""Opens MLflow's stores: a database made whole or not at all, an experiment with its artifacts' place, a client that does not wait."""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from urllib.parse import quote
from uuid import uuid4

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from hpo import mlflow_http
from hpo.databases import is_database, missing_driver, patient
from hpo.sending import Refused
from hpo.store import MlflowStore
from hpo.tracking import ARTIFACTS, sqlite_file

KIND = {"mlflow.experimentKind": "custom_model_development"}  # else the UI opens it as a collection of chats


def open_store(uri: str, experiment: str, home: Path | None = None) -> MlflowStore:
    """The experiment in the store at `uri`, made if need be; a SQLite database is made or opened by one process at a time.

    Its artifacts are in a folder beside it, those of another database in one of the study home, unless
    MLFLOW_DEFAULT_ARTIFACT_ROOT names a place; where a server keeps them is the server's business.
    """
    file = sqlite_file(uri)
    with alone(file.with_name(f".{file.stem}.lock")) if file else nullcontext():
        if file and not file.exists():
            _make(file)
        client = _client(uri)
        return MlflowStore(client, _experiment_id(client, experiment, _artifacts(file.parent if file else home, uri)))


def existing_store(uri: str, experiment: str) -> MlflowStore | None:
    """As `open_store`, but to be read: None where there is no such database or experiment."""
    file = sqlite_file(uri)
    if file and not file.exists():
        return None
    client = _client(uri)
    found = client.get_experiment_by_name(experiment)
    return MlflowStore(client, str(found.experiment_id)) if found else None


def _client(uri: str) -> MlflowClient:
    """MLflow's client, which does not wait on its own: for a database that does not let it in it would sleep 100 s.

    Nor does it print a stack for every call that fails, since it raises that, and a database may be away for days.
    """
    if is_database(uri):
        if missing := missing_driver(uri):
            raise Refused(missing)
        from mlflow.store.db import utils

        utils.MAX_RETRY_COUNT = 1
        logging.getLogger(utils.__name__).setLevel(logging.CRITICAL)
    mlflow_http.use_for(uri)
    return MlflowClient(patient(uri))


def _make(file: Path) -> None:
    """Make MLflow's database, whole or not at all: one that was cut off in its first migration is refused for ever."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    file.parent.mkdir(parents=True, exist_ok=True)
    for left in file.parent.glob(f".{file.name}.*.new*"):  # of a process that was killed here, with SQLite's side files
        left.unlink()
    new = file.with_name(f".{file.name}.{uuid4().hex}.new")  # MLflow keeps connections by name, those of a failed attempt too
    try:
        store = SqlAlchemyStore(f"sqlite:///{new}", _folder(file.parent))  # type: ignore[no-untyped-call]
        store.engine.dispose()  # no connection may outlive the name
        new.replace(file)
    finally:
        new.unlink(missing_ok=True)


def _artifacts(home: Path | None, uri: str) -> str | None:
    """Where the artifacts of a new experiment go; None is what the server says, or MLflow."""
    elsewhere = os.environ.get("MLFLOW_DEFAULT_ARTIFACT_ROOT") if sqlite_file(uri) is None else None
    return (elsewhere or _folder(home)) if home and is_database(uri) else None


def _folder(home: Path) -> str:
    return (home.resolve() / ARTIFACTS).as_uri()


def _experiment_id(client: MlflowClient, name: str, artifacts: str | None) -> str:
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name, artifacts and f"{artifacts}/{quote(name, safe='')}", KIND))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = client.get_experiment_by_name(name)
    if found is None or found.lifecycle_stage != "active":
        raise Refused(f"experiment {name!r} is deleted in MLflow: restore it, or set tracking.experiment to another name")
    return str(found.experiment_id)


@contextmanager
def alone(lock: Path) -> Iterator[None]:
    """Wait until no other process is inside with the same lock file."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield

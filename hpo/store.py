"""MLflow as a `Store`: one experiment, through MLflow's client, and the sending rules' words for its errors."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import quote

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException

from hpo.projection import Point, Status
from hpo.sending import KnownRun, Refused
from hpo.tracking import ARTIFACTS, database_uri

KIND = {"mlflow.experimentKind": "custom_model_development"}  # else the UI opens it as a collection of chats
FINAL_REFUSALS = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_DOES_NOT_EXIST", "PERMISSION_DENIED")


class MlflowStore:
    """One experiment of an MLflow store, made if need be."""

    def __init__(self, client: MlflowClient, experiment: str, artifacts: str | None) -> None:
        self._client = client
        self.experiment_id = _experiment_id(client, experiment, artifacts)

    def find(self, study_id: str) -> Mapping[str, KnownRun]:
        """As in `Store`; of several copies of a run, which a server that froze may make, all but the fullest are deleted."""
        copies: dict[str, list[Run]] = {}
        token = None
        while token != "":
            page = self._client.search_runs([self.experiment_id], f"tags.`hpo.study_id` = '{study_id}'", max_results=1000, page_token=token)
            for run in page:
                copies.setdefault(run.data.tags["hpo.trial"], []).append(run)
            token = page.token or ""
        found = {}
        for key, runs in copies.items():
            fullest, *others = sorted(runs, key=lambda run: -len(run.data.tags) - len(run.data.params) - len(run.data.metrics))
            found[key] = KnownRun(fullest.info.run_id, Status(fullest.info.status), fullest.data.tags.get("hpo.state", ""))
            for run in others:
                self._client.delete_run(run.info.run_id)
        return found

    def create(self, name: str, started_ms: int, tags: Mapping[str, str]) -> str:
        """As in `Store`."""
        with _refusals():
            return str(self._client.create_run(self.experiment_id, started_ms, dict(tags), name).info.run_id)

    def log(self, run_id: str, params: Mapping[str, str], points: Sequence[Point], tags: Mapping[str, str]) -> None:
        """As in `Store`."""
        with _refusals():
            self._client.log_batch(
                run_id,
                metrics=[Metric(p.name, p.value, p.at_ms, p.step) for p in points],
                params=[Param(name, value) for name, value in params.items()],
                tags=[RunTag(name, value) for name, value in tags.items()],
            )

    def close(self, run_id: str, status: Status, ended_ms: int) -> None:
        """As in `Store`."""
        with _refusals():
            if status is Status.RUNNING:
                self._client.update_run(run_id, status)
            else:
                self._client.set_terminated(run_id, status, ended_ms)

    def attach(self, run_id: str, document: Mapping[str, Any], name: str) -> None:
        """Keep a JSON document with a run, replacing an earlier one."""
        self._client.log_dict(run_id, dict(document), name)


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except MlflowException as error:
        if error.error_code in FINAL_REFUSALS:
            raise Refused(str(error)) from error
        raise


def open_store(uri: str, experiment: str, home: Path) -> MlflowStore:
    """The experiment in the store at `uri`; the database of a study home is made or migrated by one process at a time."""
    local = uri == database_uri(home)
    with alone(home / ".mlflow.lock") if local else nullcontext():
        return MlflowStore(MlflowClient(uri), experiment, (home.resolve() / ARTIFACTS).as_uri() if local else None)


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
    with lock.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield

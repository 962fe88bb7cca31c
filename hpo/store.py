"""MLflow as a `Record`: one experiment, through MLflow's client, and the sending rules' words for its errors."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.store.entities import PagedList
from sqlalchemy.exc import SQLAlchemyError

from hpo.mlflow_runs import Point, Status
from hpo.sending import KnownRun, Refused, StoredModel, StoredRun

ALIAS = "champion"
PAGE = 200  # runs: half a second of a server's time, far from every time-out
TRIES, QUICK_S = 5, 1.0
FAILURES = (MlflowException, SQLAlchemyError, OSError)  # what a call raises that may be made again
FINAL_REFUSALS = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_DOES_NOT_EXIST", "PERMISSION_DENIED")
# MLflow calls all that a database refuses a bad request. By SQLAlchemy's codes only what is said of the values is final: integrity,
# data, programming and statement errors. A database that can only be read, as in a recovery, or has no connection left, will change.
PASSING = re.compile(r"sqlalche\.me/e/\w+/(?!gkpj|9h9h|f405|cd3x)\w+\)?\s*$")


class MlflowStore:
    """One experiment of an MLflow store.

    `writes` counts the calls that changed something and were answered, `deleted` the copies of runs that were removed.
    """

    def __init__(self, client: MlflowClient, experiment_id: str) -> None:
        self._client, self.experiment_id = client, experiment_id
        self.writes = self.deleted = 0

    def find(self, study_id: str, key: str | None = None) -> Mapping[str, KnownRun]:
        """As in `Store`; of several copies of a run, which a server that froze may make, all but the fullest are deleted."""
        copies: dict[str, list[Run]] = {}
        for run in self._search(study_id, key):
            copies.setdefault(run.data.tags.get("hpo.trial", ""), []).append(run)
        found = {}
        for name, runs in copies.items():
            fullest, *others = sorted(runs, key=lambda run: -len(run.data.tags) - len(run.data.params) - len(run.data.metrics))
            state = fullest.data.tags.get("hpo.state", "")
            tags = fullest.data.tags
            found[name] = KnownRun(fullest.info.run_id, Status(fullest.info.status), state, fullest.info.end_time or 0, tags)
            for run in others:
                self.delete(run.info.run_id)
        return found

    def create(self, name: str, started_ms: int, tags: Mapping[str, str]) -> str:
        """As in `Store`."""
        with self._writing():
            return str(self._client.create_run(self.experiment_id, started_ms, dict(tags), name).info.run_id)

    def log(self, run_id: str, params: Mapping[str, str], points: Sequence[Point], tags: Mapping[str, str]) -> None:
        """As in `Store`."""
        with self._writing():
            self._client.log_batch(
                run_id,
                metrics=[Metric(p.name, p.value, p.at_ms, p.step) for p in points],
                params=[Param(name, value) for name, value in params.items()],
                tags=[RunTag(name, value) for name, value in tags.items()],
            )

    def close(self, run_id: str, status: Status, ended_ms: int) -> None:
        """As in `Store`."""
        with self._writing():
            if status is Status.RUNNING:
                self._client.update_run(run_id, status)
            else:
                self._client.set_terminated(run_id, status, ended_ms)

    def runs(self, study_id: str) -> list[StoredRun]:
        """As in `Record`: a call for `PAGE` of them."""
        return [
            StoredRun(
                run_id=run.info.run_id,
                key=run.data.tags.get("hpo.trial", ""),
                name=run.info.run_name or "",
                status=Status(run.info.status),
                started_ms=run.info.start_time,
                ended_ms=run.info.end_time or 0,
                params=run.data.params,
                tags=run.data.tags,
                metrics=tuple(run.data.metrics),
            )
            for run in self._search(study_id)
        ]

    def history(self, run_id: str, metric: str) -> list[Point]:
        """As in `Record`; takes 0.7 ms from a database, 4 ms from a server (MLflow's bulk calls take longer)."""
        return [Point(m.key, m.value, m.step, m.timestamp) for m in self._client.get_metric_history(run_id, metric)]

    def delete(self, run_id: str) -> None:
        """As in `Record`: MLflow keeps it among its deleted runs."""
        with self._writing():
            self._client.delete_run(run_id)
        self.deleted += 1

    def models(self, name: str) -> list[StoredModel]:
        """As in `Record`."""
        found = self._client.search_model_versions(f"name = {quoted(name)}", max_results=1000)
        if not found:
            return []
        champion = int(self._client.get_registered_model(name).aliases.get(ALIAS, 0))
        models = [StoredModel(int(v.version), v.run_id or "", v.tags, int(v.version) <= champion) for v in found]
        return sorted(models, key=lambda model: model.version)

    def attach(self, run_id: str, document: Mapping[str, Any], name: str) -> None:
        """Keep a JSON document with a run, unless it has one of that name."""
        if name not in {file.path for file in self._client.list_artifacts(run_id)}:
            self._client.log_dict(run_id, dict(document), name)
            self.writes += 1

    def offer(self, tag: str, content: str) -> None:
        """Give the experiment a tag, unless it has that."""
        if tag not in self._client.get_experiment(self.experiment_id).tags:
            self._client.set_experiment_tag(self.experiment_id, tag, content)

    def put(self, run_id: str, file: Path, folder: str) -> None:
        """Keep a file with a run, in the place of an earlier one."""
        self._client.log_artifact(run_id, str(file), folder)
        self.writes += 1

    def has(self, run_id: str, file: str) -> bool:
        """Whether a file is kept with a run."""
        folder = file.rpartition("/")[0]
        return file in {found.path for found in self._client.list_artifacts(run_id, folder or None)}

    def _search(self, study_id: str, key: str | None = None) -> Iterator[Run]:
        wanted = f"tags.`hpo.study_id` = '{study_id}'" + (f" and tags.`hpo.trial` = '{key}'" if key is not None else "")
        token = None
        while token != "":
            page = self._page(wanted, token)
            yield from page
            token = page.token or ""

    def _page(self, wanted: str, token: str | None) -> PagedList[Run]:
        """One call's runs. A lost answer, which is noticed at once, is asked for again: else no long list would ever be whole."""
        for _ in range(TRIES - 1):
            began = time.monotonic()
            try:
                return self._client.search_runs([self.experiment_id], wanted, max_results=PAGE, page_token=token)
            except FAILURES:
                if time.monotonic() - began > QUICK_S:
                    raise
        return self._client.search_runs([self.experiment_id], wanted, max_results=PAGE, page_token=token)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except MlflowException as error:
            if error.error_code in FINAL_REFUSALS and not PASSING.search(str(error)):
                raise Refused(str(error)) from error
            raise
        self.writes += 1


def quoted(text: str) -> str:
    """The text as MLflow's searches take it; with an apostrophe and a quotation mark both they take it in no way."""
    return f'"{text}"' if "'" in text else f"'{text}'"

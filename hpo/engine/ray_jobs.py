"""The jobs of a running Ray cluster, over its HTTP API: submitted, listed, read, stopped; and commands that are run on its head.

The token goes into each request's header and nowhere else. Nothing here joins the cluster.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobSubmissionClient

from hpo.engine import ray_settings, ray_token
from hpo.errors import ClusterError
from hpo.submissions import QUESTION, Answer, Job, JobState, answer, job_of, question

LONGEST_S = (5.0, 60.0)  # to be connected, and between two bytes of an answer
ANSWERED_S = 120.0
LOOK_S = 0.1
SETTLED_MS = 10_000  # by then Ray has noticed that a job is over: one that is deleted sooner comes back as a ghost
STOP_S = "10"  # Ray's own wait is 3 s, and a driver may need five
LOGGERS = ("ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk", "ray._private.runtime_env.packaging")
OVERRIDES = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")  # which the client would take before its argument


class IdTaken(ClusterError):
    """A job of that id was submitted meanwhile, by somebody else."""


class _Client(JobSubmissionClient):
    """Ray's client, with an end to its patience."""

    def _do_request(self, method: str, endpoint: str, **options: Any) -> Any:
        return super()._do_request(method, endpoint, **{"timeout": LONGEST_S, **options})


class Jobs:
    """The jobs of the cluster whose job server is at `address`. All raise ClusterError, TokenError where there is no token."""

    def __init__(self, address: str) -> None:
        self.address = address
        ray_token.have_given()
        for name in LOGGERS:
            logging.getLogger(name).setLevel(logging.ERROR)
        elsewhere = {name: value for name, value in os.environ.items() if name not in OVERRIDES}
        with self._explained(), ray_settings.replaced(os, environ=elsewhere):
            self._client = _Client(address)

    @property
    def where(self) -> str:
        """The cluster's name for people."""
        return urlsplit(self.address).netloc

    def all(self) -> list[Job]:
        """All drivers of studies that the cluster knows of, those that are over too; the order is Ray's."""
        with self._explained():
            found = [_job(details) for details in self._client.list_jobs()]
        return [job for job in found if job is not None]

    def submit(self, job: str, line: str, metadata: Mapping[str, str], folder: Path) -> None:
        """Have the shell's `line` run on the head, in a copy of `folder`. IdTaken where there is a job of that id."""
        with self._explained():
            self._client.submit_job(
                entrypoint=line,
                submission_id=job,
                metadata=dict(metadata),
                runtime_env={"working_dir": str(folder), "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": STOP_S}},
            )

    def job(self, job: str) -> Job:
        """How a driver stands now."""
        with self._explained():
            found = _job(self._client.get_job_info(job))
        if found is None:
            raise ClusterError(f"{job} on {self.where} is no driver of a study")
        return found

    def stop(self, job: str) -> None:
        """Have Ray end a job by SIGTERM, and by SIGKILL if that takes longer than `STOP_S`."""
        with self._explained():
            self._client.stop_job(job)

    def log(self, job: str) -> str:
        """What the job has written until now."""
        with self._explained():
            return str(self._client.get_job_logs(job))

    def follow(self, job: str) -> Iterator[str]:
        """What the job has written and writes, part by part, until it is over."""
        parts, loop = self._client.tail_job_logs(job), asyncio.new_event_loop()
        try:
            while True:
                with self._explained():
                    part = loop.run_until_complete(anext(parts, None))
                if part is None:
                    return
                yield part
        finally:
            with suppress(RuntimeError):
                loop.run_until_complete(parts.aclose())  # type: ignore[attr-defined]  # it is a generator
            loop.close()

    def ask(self, words: Sequence[str]) -> Answer:
        """Run `hpo WORDS` on the head, with the studies of its home, and return what it wrote."""
        mark = secrets.token_hex(8)
        job = f"{QUESTION}{mark}"
        with self._explained():
            self._client.submit_job(entrypoint=question(words, mark), submission_id=job)
            details = self._ended(job)
            found = answer(self._client.get_job_logs(job), mark, details.driver_exit_code or 0)
            self._sweep(details.end_time or 0)
        if found is None:
            raise ClusterError(f"{self.where} cannot run `hpo {words[0]}`: {(details.message or str(details.status)).strip()}")
        return found

    def _ended(self, job: str) -> JobDetails:
        until = time.monotonic() + ANSWERED_S
        while not (details := self._client.get_job_info(job)).status.is_terminal():
            if time.monotonic() >= until:
                raise ClusterError(f"{self.where} has not run {job} within {ANSWERED_S:g} s; it may have no room for its jobs")
            time.sleep(LOOK_S)
        return details

    def _sweep(self, now_ms: int) -> None:
        """Forget the questions that were answered some time ago, anybody's."""
        for details in self._client.list_jobs():
            job, ended = details.submission_id or "", details.end_time
            if job.startswith(QUESTION) and ended is not None and ended < now_ms - SETTLED_MS:
                with suppress(RuntimeError):  # another client was faster
                    self._client.delete_job(job)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Raise what the client raises as ClusterError, with the way out."""
        try:
            yield
        except AuthenticationError:
            raise ClusterError(
                f"the job server at {self.address} refuses this token; copy its own from the node that runs `hpo node --head --jobs` "
                f"(to {ray_token.file()}, or name it by {ray_token.TOKEN_FILE})"
            ) from None
        except (requests.exceptions.RequestException, aiohttp.ClientError, ConnectionError, TimeoutError) as error:
            raise ClusterError(
                f"no job server answers at {self.address} ({type(error).__name__}); `hpo node --head --jobs` runs one, on the head's "
                "own loopback: from another machine forward it, `ssh -L 8265:127.0.0.1:8265 HEAD`, and give --jobs http://127.0.0.1:8265"
            ) from None
        except RuntimeError as error:
            if "already exists" in str(error):
                raise IdTaken(f"the job server at {self.address} has a job of that id already") from None
            raise ClusterError(f"the job server at {self.address} answers: {_last_line(str(error))}") from None


def _job(details: JobDetails) -> Job | None:
    began = datetime.fromtimestamp(details.start_time / 1000, UTC) if details.start_time else None
    state = JobState(details.status.value)
    kept = details.metadata
    return job_of(
        details.submission_id or "", kept, state=state, began=began, exit_code=details.driver_exit_code, message=details.message or ""
    )


def _last_line(text: str) -> str:
    """Of a traceback what was raised."""
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return lines[-1].strip() if lines else "nothing"

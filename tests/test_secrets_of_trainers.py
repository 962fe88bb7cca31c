"""A trainer is given its secrets, and nothing that is kept of it shows them."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from hpo import trial_files
from hpo.engine import ray_deaths
from hpo.engine.assignment import Assignment
from hpo.engine.ray_deaths import Death, death
from hpo.engine.worker import TrialRun
from hpo.preparing import check_surroundings
from hpo.redaction import Redactor, hidden
from hpo.spec import SpecError, parse_spec
from tests import secret_trainers
from tests.test_worker import FOREVER, assignment, epochs

SECRET = "tok-3n/QW+8 z&\"r'y"
HERE = "tests.secret_trainers"
WARNED = "warned"  # of which pytest makes something of its own: see test_secrets_slow


@pytest.fixture(autouse=True)
def _secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPO_TEST_TOKEN", SECRET)


def showing(folder: Path, kind: str, **changes: object) -> Assignment:
    return assignment(folder, f"{HERE}:showing", 3, arguments={"x": 0.5, "token": "${env:HPO_TEST_TOKEN}", "kind": kind}, **changes)


def written(folder: Path) -> str:
    """All that is in a folder, names too."""
    return "\n".join(f"{path}\n{path.read_bytes().decode(errors='replace') if path.is_file() else ''}" for path in folder.rglob("*"))


def shows(text: str) -> bool:
    """Whether the secret is in the text, in part or encoded; asked of one that never was told anything else."""
    alone = Redactor()
    alone.add(SECRET)
    return alone.shows(text) or any(part in text for part in ("3n/QW", "z&", "tok-3"))


@pytest.mark.parametrize("kind", [kind for kind in secret_trainers.SHOWN if kind != WARNED])
def test_what_is_printed_is_kept_without_secrets(kind: str, tmp_path: Path) -> None:
    run = TrialRun(showing(tmp_path, kind))
    report = run.advance(FOREVER)
    run.close()
    assert epochs(report) == [1, 2, 3]
    assert report.failure is None
    assert "***" in (tmp_path / "00000" / "output.log").read_text()
    assert not shows(written(tmp_path) + repr(report))


@pytest.mark.parametrize("kind", secret_trainers.RAISED)
def test_what_is_raised_is_kept_without_secrets(kind: str, tmp_path: Path) -> None:
    report = TrialRun(showing(tmp_path, kind)).advance(FOREVER)
    assert report.failure is not None
    assert report.failure.rule == "error"
    assert "***" in (tmp_path / "00000" / "error.log").read_text()
    assert not shows(written(tmp_path) + repr(report))


@pytest.mark.parametrize(
    ("kind", "rule", "reason"),
    [
        ("metric's name", "metric", "epoch 2 reported a metric whose name shows a secret"),
        ("metric", "metric", "loss was str"),
        ("state", "error", "trial.save: headers['token'] shows a secret; leave it out"),
        ("state's key", "error", "trial.save: a key of seen shows a secret; leave it out"),
    ],
)
def test_what_would_be_recorded_is_refused(kind: str, rule: str, reason: str, tmp_path: Path) -> None:
    run = TrialRun(showing(tmp_path, kind, checkpoint_every_s=0.0))
    report = run.advance(FOREVER)
    run.close()
    assert report.failure is not None
    assert (report.failure.rule, report.failure.reason[: len(reason)]) == (rule, reason)
    assert not shows(written(tmp_path) + repr(report))
    assert trial_files.newest(tmp_path / "00000", "last") is not None  # of the epoch before


def test_a_state_that_is_never_written_is_looked_at_once(tmp_path: Path) -> None:
    run = TrialRun(showing(tmp_path, "state from the beginning", checkpoint_every_s=600.0, keep_below=-99.0))
    report = run.advance(FOREVER)
    assert report.failure is not None
    assert report.failure.reason.startswith("trial.save: headers['token'] shows a secret; leave it out")
    assert epochs(report) == [1]


def test_a_trainer_is_given_what_its_references_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "secret"
    file.write_text("f1le-s3cret\n")
    file.chmod(0o600)
    expected = {"token": SECRET, "address": f"s3://me:f1le-s3cret@{SECRET}"}
    monkeypatch.setenv("HPO_TEST_EXPECTED", json.dumps(expected))
    monkeypatch.delitem(secret_trainers.SHOWN, WARNED)
    address = f"s3://me:${{file:{file}}}@${{env:HPO_TEST_TOKEN}}"
    arguments = {"x": 0.5, "token": "${env:HPO_TEST_TOKEN}", "address": address, "plain": "as it is"}
    run = TrialRun(assignment(tmp_path / "trials", f"{HERE}:given", 2, arguments=arguments))
    report = run.advance(FOREVER)
    run.close()
    assert [dict(m.metrics) for m in report.measurements] == 2 * [{"value": 0.5, "token": 1.0, "address": 1.0, "plain": 1.0}]
    assert not shows(written(tmp_path / "trials") + repr(report))
    assert "f1le" not in written(tmp_path / "trials")


def test_a_secret_that_is_missing_fails_the_trial_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HPO_TEST_TOKEN")
    failure = TrialRun(showing(tmp_path, "printed")).advance(FOREVER).failure
    assert failure is not None
    assert failure.rule == "error"
    assert failure.reason.startswith(f"${{env:HPO_TEST_TOKEN}} on {socket.gethostname()} is not set; ")
    assert not (tmp_path / "00000").exists()


def test_what_the_environment_calls_a_secret_is_one_for_trainers_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "env-only-s3cret")
    run = TrialRun(assignment(tmp_path, f"{HERE}:showing", 2, arguments={"x": 0.5, "token": "env-only-s3cret", "kind": "printed"}))
    run.advance(FOREVER)
    run.close()
    assert (tmp_path / "00000" / "output.log").read_text() == "token is ***\nAuthorization: Bearer ***\n"


# What Ray keeps of a dead worker


def test_a_dead_workers_log_is_kept_without_secrets(tmp_path: Path) -> None:
    hidden.add(SECRET)
    logs, kept = tmp_path / "logs", tmp_path / "00000" / "worker.log"
    logs.mkdir()
    (logs / "worker-a-7.out").write_text(f"{'.' * ray_deaths.LOG_BYTES}{SECRET}\nlast words: {SECRET}\n")
    (logs / "worker-a-7.err").write_text(f"Fatal Python error: no {SECRET}\n")
    found = ray_deaths.with_log(Death("worker process 7 was killed", 7), logs, kept)
    assert found.reason == f"worker process 7 crashed: no *** (see {kept})"
    assert kept.read_text() == "Fatal Python error: no ***\nlast words: ***\n"  # a line that was cut may begin in a secret


def test_a_log_that_may_show_what_is_not_known_here_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hidden, "unknown", frozenset({"${env:ELSEWHERE}"}))
    logs, kept = tmp_path / "logs", tmp_path / "00000" / "worker.log"
    logs.mkdir()
    (logs / "worker-a-7.out").write_text("who knows\n")
    found = ray_deaths.with_log(Death("worker process 7 was killed", 7), logs, kept)
    assert found.reason.startswith("worker process 7 was killed (its log is not kept: it may show ${env:ELSEWHERE}")
    assert not kept.exists()


def test_why_a_worker_died_is_told_without_secrets() -> None:
    hidden.add(SECRET)
    assert death(f"something new\nRuntimeError: {SECRET}", 7).reason == "worker process 7 died: RuntimeError: ***"


# Before the launch

SPEC = """name: secrets
trainer: {{name: mlp, settings: {{dataset: fashion-mnist}}}}
objective: {{metric: val_accuracy, direction: maximize}}
space:
  learning_rate: {{type: float, low: 1e-4, high: 1e-1, log: true}}
budget: {{trials: 3}}
tracking: {{uri: '{uri}'}}
"""


@pytest.mark.parametrize("workers_here", [True, False])
def test_a_launch_looks_for_secrets_where_they_are_needed(workers_here: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hidden, "unknown", frozenset())
    monkeypatch.setattr("hpo.preparing._check_dataset", lambda _: None)
    spec = parse_spec(SPEC.format(uri="http://me:${env:HPO_TEST_NOWHERE}@host"), "a.yaml")
    settings = {**spec.trainer.settings, "token": "a ${env:HPO_TEST_MISSING}", "key": "${env:HPO_TEST_TOKEN}"}
    spec = replace(spec, trainer=replace(spec.trainer, settings=settings))
    with pytest.raises(SpecError) as refused:
        check_surroundings(spec, workers_here=workers_here)
    where = f"on {socket.gethostname()} is not set"
    told = [str(problem).partition(";")[0] for problem in refused.value.problems]
    theirs = [f"spec: trainer.settings.token: ${{env:HPO_TEST_MISSING}} {where}"] if workers_here else []
    assert told == [*theirs, f"spec: tracking.uri: ${{env:HPO_TEST_NOWHERE}} {where}"]
    assert hidden(f"<{SECRET}>") == "<***>"
    assert hidden.unknown == {"${env:HPO_TEST_MISSING}"}  # what a worker prints may show it


@pytest.mark.parametrize(("value", "problem"), [("http://host:5000", None), ("who-knows", "holds no address of MLflow")])
def test_an_address_that_is_a_secret_is_looked_at(value: str, problem: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPO_TEST_URI", value)
    monkeypatch.setattr("hpo.preparing._check_dataset", lambda _: None)
    spec = parse_spec(SPEC.format(uri="${env:HPO_TEST_URI}"), "a.yaml")
    with contextlib.nullcontext() if problem is None else pytest.raises(SpecError, match=problem):
        check_surroundings(spec)
    assert spec.to_dict()["tracking"]["uri"] == "${env:HPO_TEST_URI}"
    assert os.environ["HPO_TEST_URI"] == value

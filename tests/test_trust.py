"""What a study asks for outside its folder, and whose word counts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from hpo import own_code, trust
from hpo.spec import Spec, load_spec, parse_spec
from hpo.trust import Untrusted, demands, doubted, require, vouch
from tests.conftest import ROOT

SPEC = """
name: a
trainer: {name: mlp, settings: {dataset: digits}}
objective: {metric: val_accuracy, direction: maximize}
space: {learning_rate: {type: float, low: 1e-4, high: 1e-1, log: true}}
budget: {trials: 3}
"""


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing is trusted yet; where it will be kept."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(trust, "_said", set())
    return tmp_path / "state" / "hpo" / "vouched.jsonl"


def plain(more: str = "") -> Spec:
    return parse_spec(SPEC + more, "a.yaml")


def of_code(trainer: str) -> Spec:
    return load_spec(ROOT / "tests" / "specs" / "plain.yaml", trainer_override=trainer)


@pytest.mark.parametrize(
    ("spec", "asked"),
    [
        (plain(), []),
        (plain("tracking: {uri: 'http://host:5000'}"), [("mlflow", "http://host:5000")]),
        (plain("tracking: {uri: 'http://me:${env:PASSWORD}@host'}"), [("mlflow", "http://me:${env:PASSWORD}@host")]),
        (plain("tracking: {uri: 'sqlite:///x.db'}"), [("mlflow", f"sqlite:///{Path.cwd() / 'x.db'}")]),
        (plain("checkpoints: {storage: 's3://bucket/x'}"), [("storage", "s3://bucket/x")]),
        (of_code("tests.small_trainers:quadratic"), [("code", str(ROOT / "tests" / "__init__.py"))]),
        (of_code("nowhere.at.all:train"), [("code", "")]),
        (of_code("sys:exit"), [("code", "")]),
    ],
)
def test_what_a_study_asks_for(spec: Spec, asked: list[tuple[str, str]]) -> None:
    assert [(demand.kind, demand.what) for demand in demands(spec)] == asked


def test_a_secret_for_its_trainer_is_asked_for_too() -> None:
    spec = of_code("tests.small_trainers:quadratic")
    settings = {**spec.trainer.settings, "key": "${env:KEY}"}
    found = demands(replace(spec, trainer=replace(spec.trainer, settings=settings)))
    assert [demand.kind for demand in found] == ["code", "secret"]
    assert str(found[1]) == "give ${env:KEY} to tests.small_trainers:quadratic as its key"


def test_what_was_vouched_for_is_known_and_nothing_else(state: Path) -> None:
    known, other = trust.mlflow("http://host:5000"), trust.mlflow("http://host:5001")
    vouch([known, known])
    assert doubted([known, other]) == [other]
    assert [json.loads(line) for line in state.read_text().splitlines()] == [{"mlflow": "http://host:5000"}]
    assert state.stat().st_mode & 0o777 == 0o600
    with pytest.raises(Untrusted, match=r"study a wants to talk to MLflow at http://host:5001\..*`hpo trust a`"):
        require([known, other], "a")
    require([known], "a")


def test_a_password_is_not_kept(state: Path) -> None:
    vouch([trust.mlflow("http://me:hunter2@host")])
    assert "hunter2" not in state.read_text()
    assert doubted([trust.mlflow("http://me:another@host")]) == []


def test_what_is_not_to_be_found_is_vouched_for_by_nobody(state: Path) -> None:
    vouch([trust.code("nowhere:train")])
    assert not state.exists()
    assert doubted([trust.code("nowhere:train")])


def test_code_of_the_same_name_elsewhere_is_other_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("mine", "theirs"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "some_code_of_mine.py").touch()
    monkeypatch.chdir(tmp_path / "mine")
    vouch([trust.code("some_code_of_mine:train")])
    assert doubted([trust.code("some_code_of_mine:another")]) == []
    monkeypatch.chdir(tmp_path / "theirs")
    assert doubted([trust.code("some_code_of_mine:train")])


@pytest.mark.parametrize("mode", [0o602, 0o620, 0o666])
def test_a_list_that_others_can_write_counts_for_nothing(mode: int, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vouch([trust.mlflow("http://host")])
    monkeypatch.setattr(trust, "_said", set())
    assert doubted([trust.mlflow("http://host")]) == []
    state.chmod(mode)
    assert doubted([trust.mlflow("http://host")])


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[]\n", b'{"mlflow": "http://hos"}\n', b'{"mlflow": "http://host"'])
def test_a_list_that_says_something_else_does_not_count(content: bytes, state: Path) -> None:
    state.parent.mkdir(parents=True)
    state.write_bytes(content)
    assert doubted([trust.mlflow("http://host")])


def test_where_nothing_can_be_kept_this_process_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    vouch([trust.mlflow("http://host")])
    assert doubted([trust.mlflow("http://host")]) == []


def test_nobody_writes_through_a_link(state: Path, tmp_path: Path) -> None:
    state.parent.mkdir(parents=True)
    (tmp_path / "mine").write_text("mine")
    state.symlink_to(tmp_path / "mine")
    vouch([trust.mlflow("http://host")])
    assert (tmp_path / "mine").read_text() == "mine"


# --- where code is looked for -----------------------------------------------------------------------------------------------


def test_to_find_code_runs_none_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "loud_package").mkdir()
    for name in ("loud_package/__init__.py", "loud_package/sub.py", "loud_module.py"):
        (tmp_path / name).write_text("raise SystemExit('imported')\n")
    (tmp_path / "bare").mkdir()
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    assert own_code.location("loud_module:train") == tmp_path / "loud_module.py"
    assert own_code.location("loud_package.sub:train") == tmp_path / "loud_package" / "__init__.py"
    assert own_code.location("bare.sub:train") == tmp_path / "bare"
    assert own_code.folders("bare.sub:train") == [str(tmp_path)]
    assert own_code.folders("loud_package.sub:train") == [str(tmp_path)]
    assert own_code.folders("mlp") == []
    assert sys.path == before


def test_a_worker_looks_where_the_code_was_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside a script, say, which is not in the current folder."""
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "code_of_a_script.py").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path / "scripts")
    assert own_code.folders("code_of_a_script:train") == [str(tmp_path / "scripts"), str(tmp_path)]


def test_nothing_is_looked_for_in_a_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = tmp_path / "runs" / "a"
    (study / "trials" / "00000").mkdir(parents=True)
    (study / "journal.jsonl").touch()
    for folder in (study, study / "trials" / "00000"):
        (folder / "code_in_a_study.py").touch()
        monkeypatch.chdir(folder)
        assert own_code.location("code_in_a_study:train") is None
        assert own_code.folders("code_in_a_study:train") == []
        assert own_code.study_around(folder / "code_in_a_study.py") == study
    monkeypatch.chdir(tmp_path / "runs")
    assert own_code.folders("code_in_a_study:train") == [str(tmp_path / "runs")]


def test_the_command_has_no_current_folder_on_its_path(tmp_path: Path) -> None:
    (tmp_path / "hpo.py").write_text("raise SystemExit('a stranger')\n")
    command = [str(Path(sys.executable).with_name("hpo")), "--help"]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    assert subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, check=False).returncode == 0

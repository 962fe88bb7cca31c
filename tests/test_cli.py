"""The command line: help, JSON, exit codes, and errors that say what to do."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import urllib.request
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from rich.console import Console

from hpo import show
from hpo.cli import cli
from hpo.declarations import builtins
from tests.conftest import ROOT, Done, hpo_command, needs_two_processors, run_hpo

FASHION = str(ROOT / "search_spaces" / "fashion.yaml")
PLAIN = str(ROOT / "tests" / "specs" / "plain.yaml")
TRAINER = ("--trainer", "tests.small_trainers:quadratic")


def leaves(group: click.Group, prefix: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], click.Command]]:
    found: list[tuple[tuple[str, ...], click.Command]] = []
    for name, command in group.commands.items():
        found += leaves(command, (*prefix, name)) if isinstance(command, click.Group) else [((*prefix, name), command)]
    return found


COMMANDS = leaves(cli)


def test_the_commands_are_all_there() -> None:
    names = {" ".join(words) for words, _ in COMMANDS}
    assert names == {
        "validate", "plan", "launch", "resume", "stop", "status", "report", "trials", "best", "explain", "verify", "replay", "track",
        "delete", "export", "compare", "ui", "data list", "data get", "data path", "trainers", "doctor", "list", "logs", "node",
        "trust",
    }  # fmt: skip


@pytest.mark.parametrize("words", [words for words, _ in COMMANDS], ids=" ".join)
def test_every_command_has_help_with_an_example_and_json(words: tuple[str, ...]) -> None:
    shown = CliRunner().invoke(cli, [*words, "--help"])
    assert shown.exit_code == 0
    assert f"Example:\n    hpo {' '.join(words)}" in shown.output
    assert "--json" in shown.output


@pytest.mark.parametrize("words", [words for words, _ in COMMANDS], ids=" ".join)
def test_readme_mentions_every_command(words: tuple[str, ...]) -> None:
    assert f"`hpo {' '.join(words)}" in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["lanch", FASHION], 2, "no command is called 'lanch'; did you mean `launch`?"),
        (["launch"], 2, "Missing argument 'FILE'"),
        (["launch", "nowhere.yaml"], 2, "nowhere.yaml: not found"),
        (["launch", FASHION, "--set", "sampler.name=tpee"], 2, "--set sampler.name=tpee: sampler.name: "),
        (["launch", FASHION, "--time", "30"], 2, "--time 30: budget.time: found 30 without a unit"),
        (["launch", FASHION, "--name", "../x"], 2, "--name ../x: name: "),
        (["launch", FASHION, "--set", "resources.cpus=999"], 2, "resources.cpus: a trial asks for 999 CPUs, this machine has "),
        (["plan", FASHION, "--set", "resources.gpus=64"], 2, "resources.gpus: a trial asks for 64 GPUs, this machine has "),
        (["launch", PLAIN], 2, "trainer.name: missing"),
        (
            ["launch", PLAIN, "--trainer", "no_such:train"],
            2,
            "--trainer no_such:train: no trainer at no_such:train: No module named 'no_such'",
        ),
        (["launch", PLAIN, "--trainer", "tests.small_trainers:no_generator"], 2, "is not a generator function"),
        (["launch", PLAIN, "--trainer", "tests.small_trainers:misbehaving"], 2, "kind"),
        (["launch", PLAIN, "--trainer", "tests.broken_module:train"], 2, "cannot be imported: RuntimeError: boom at broken_module.py:3"),
        (["launch", FASHION, "--set", "tracking.uri=nonsense://x"], 2, "tracking.uri: found the text 'nonsense://x', which has the scheme"),
        (["launch", FASHION, "--set", "tracking.uri=http://"], 2, "names no host; write http://HOST:PORT"),
        (["status", "fashion"], 2, "no study is called 'fashion' in "),
        (["trials", "fashion"], 2, "start one with `hpo launch FILE`"),
        (["best", ".."], 2, "no study is called '..' in "),
        (["delete", "../..", "--yes"], 2, "no study is called '../..' in "),
        (["data", "get", "fashon"], 2, "no dataset is called 'fashon'; did you mean `fashion-mnist`?"),
        (["ui", "--port", "0"], 2, "Invalid value for '--port'"),
    ],
    ids=lambda value: " ".join(map(str, value)).replace(str(ROOT), "") if isinstance(value, list) else None,
)
def test_a_mistake_is_one_clear_message_and_starts_nothing(empty: Path, words: list[str], code: int, said: str) -> None:
    done = run_hpo(empty, *words)
    assert (done.code, done.out) == (code, "")
    assert said in done.err
    assert "Traceback" not in done.err
    assert not list(empty.glob("*/journal.jsonl"))


def test_without_data_the_message_names_all_four_ways(empty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpo.data._holds", lambda *_: False)
    from hpo.data import DataError, locate

    with pytest.raises(DataError) as error:
        locate("fashion-mnist")
    for way in ("HPO_DATA", "hpo data get fashion-mnist", "download", "dataset-fashion-mnist"):
        assert way in str(error.value)


def test_validate_as_json_lists_every_problem(empty: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("name: x\nbugdet: {trials: 3}\nseed: -1\n")
    done = run_hpo(empty, "validate", str(bad), "--json")
    assert done.code == 2
    assert {problem["path"] for problem in done.json["problems"]} >= {"bugdet", "seed", "space", "trainer", "objective", "budget"}
    good = run_hpo(empty, "validate", FASHION, "--json")
    assert (good.code, good.json["valid"], good.json["spec"]["name"]) == (0, True, "fashion")


@needs_two_processors
def test_a_plan_is_the_same_for_people_and_machines(empty: Path) -> None:
    text, plain = run_hpo(empty, "plan", FASHION), run_hpo(empty, "plan", FASHION, "--json").json
    assert plain["trials"] == 200
    assert plain["rungs"] == [1, 4]
    assert f"at most {plain['epochs_worst']:,}" in text.out
    assert "2 trials at a time" in text.out
    assert not empty.exists()  # a plan starts nothing


def test_an_impossible_tracking_address_is_refused_before_the_search(empty: Path) -> None:
    done = run_hpo(empty, "launch", PLAIN, *TRAINER, "--local", MLFLOW_TRACKING_URI="file:///tmp/x")
    assert (done.code, "MLFLOW_TRACKING_URI: 'file:///tmp/x' has the scheme 'file'" in done.err) == (2, True)
    assert not list(empty.glob("*"))


def test_a_password_is_shown_nowhere(empty: Path) -> None:
    words = ["--local", "--trials", "1", "--set", "tracking.patience=1s"]
    done = run_hpo(empty, "launch", PLAIN, *TRAINER, *words, MLFLOW_TRACKING_URI="http://user:s3cret@127.0.0.1:1")
    assert done.code == 0
    assert "MLflow does not have all of it" in done.out
    written = "".join(path.read_text(errors="replace") for path in empty.rglob("*") if path.is_file())
    assert "s3cret" not in done.out + done.err + written


def test_closed_streams_put_no_output_into_the_journal(empty: Path) -> None:
    command = [*hpo_command("launch", PLAIN, *TRAINER, "--local", "--trials", "2")]
    closed = subprocess.run(
        ["/bin/sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *command],
        env=os.environ | {"HPO_HOME": str(empty)},
        cwd=ROOT,
        timeout=200,
        check=False,
    )
    assert closed.returncode == 0
    assert run_hpo(empty, "status", "plain", "--json").json[0]["trials"]["complete"] == 2


def test_an_unusable_home_is_named_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = run_hpo(tmp_path / "file", "launch", PLAIN, *TRAINER, "--local")
    assert (done.code, "set HPO_HOME" in done.err) == (2, True)


def launched_locally(empty: Path, *words: str) -> Done:
    return run_hpo(empty, "launch", PLAIN, *TRAINER, "--local", *words)


def test_a_local_study_from_launch_to_delete(empty: Path) -> None:
    done = launched_locally(empty)
    assert done.code == 0, done.err
    assert "plain is done: 6 complete" in done.out
    for command in ("hpo trials plain", "hpo best plain", "hpo ui"):
        assert command in done.out
    again = launched_locally(empty, "--name", "plain")
    assert again.code == 2
    assert "exists already: it is done, with 6 trials; go on with it by `hpo resume plain`" in again.err
    assert [row["study"] for row in run_hpo(empty, "status", "--json").json] == ["plain"]
    table = run_hpo(empty, "trials", "plain")
    assert table.out.count("trained all 6 epochs") == 6
    best = run_hpo(empty, "best", "plain", "--json").json
    rows = run_hpo(empty, "trials", "plain", "--json").json
    assert best["value"] == pytest.approx(max(row["value"] for row in rows))
    assert Path(best["checkpoint"]).is_dir()
    refused = run_hpo(empty, "delete", "plain")
    assert (refused.code, "aborted" in refused.err) == (130, True)
    assert run_hpo(empty, "delete", "plain", "--yes").code == 0
    assert json.loads(run_hpo(empty, "status", "--json").out) == []


def test_what_trainers_take_is_readable_at_eighty_columns(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(show, "out", lambda: Console(width=80, highlight=False))
    show.trainers(builtins())
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    (depth,) = [at for at, line in enumerate(lines) if line.startswith("  depth ")]
    assert [" ".join(line.split()) for line in lines[depth : depth + 2]] == [
        "depth 2 number of hidden layers; a whole number from 0 to",
        "16",
    ]
    defaults = dict(line.split()[:2] for line in lines if line[:3].strip() and line.startswith("  "))
    shown = {name: defaults[name] for name in ("widths", "batch_norm", "activation", "learning_rate")}
    assert shown == {"widths": "null", "batch_norm": "false", "activation": "relu", "learning_rate": "0.001"}  # as a spec has them


def test_trainers_doctor_and_data_answer_people_and_machines(empty: Path) -> None:
    assert "mlp" in run_hpo(empty, "trainers").out
    (trainer,) = [t for t in run_hpo(empty, "trainers", "--json").json if t["name"] == "mlp"]
    assert {"learning_rate", "weight_decay", "dropout", "width"} <= trainer["hyperparameters"].keys()
    checks = {check["name"]: check for check in run_hpo(empty, "doctor", "--json").json}
    assert {"python", "torch", "ray", "optuna", "mlflow", "devices", "tracking", "data fashion-mnist", "study home"} <= checks.keys()
    assert all(checks[name]["ok"] for name in ("python", "torch", "ray", "optuna", "mlflow"))
    assert re.search(r"default [\d,]+ GFLOP/s, error \de-\d\d; .*one thread", checks["arithmetic"]["found"])
    wrong = run_hpo(empty, "doctor", MLFLOW_TRACKING_URI="http://user:secret@127.0.0.1:1")
    assert wrong.code == 1
    assert "wrong  tracking" in wrong.out
    assert "secret" not in wrong.out
    assert run_hpo(empty, "data", "get", "digits", "--json").json["licence"] == "CC BY 4.0"


def test_the_ui_serves_the_study_home_until_it_is_stopped(empty: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        busy = run_hpo(empty, "ui", "--port", str(port))
    assert (busy.code, f"port {port} on 127.0.0.1 cannot be used" in busy.err) == (1, True)
    empty.mkdir(exist_ok=True)
    server = subprocess.Popen(
        hpo_command("ui", "--port", str(port)),
        env=os.environ | {"HPO_HOME": str(empty)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        cwd=ROOT,
    )
    try:
        for line in server.stderr:  # the server says when it is up
            if "Uvicorn running" in line:
                break
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=30) as answer:
            assert answer.status == 200
    finally:
        os.killpg(server.pid, signal.SIGINT)
        server.communicate(timeout=60)

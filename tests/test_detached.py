"""Studies that are sent to a cluster: what goes along and what never does, names, ids, words, pointers, and the list of all."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from hpo import listing, packing, pointers
from hpo.detached import DetachError, server, servers
from hpo.events import Created, from_json, to_json
from hpo.journal_format import Record
from hpo.listing import Listed, side_by_side, there
from hpo.packing import PackingError, package
from hpo.pointers import Pointer
from hpo.problem import SpecError
from hpo.projection import Projection
from hpo.sendable import code_of, refuse_local_files, text_of
from hpo.site import jobs_address
from hpo.spec import load_spec
from hpo.submissions import (
    Answer,
    Job,
    JobState,
    answer,
    driver,
    free_name,
    job_of,
    latest,
    launch_words,
    metadata,
    next_id,
    question,
    resuming_driver,
)
from hpo.submitting import _name
from tests.conftest import ROOT, run_hpo

PLAIN = ROOT / "tests" / "specs" / "plain.yaml"
KEY = "-----BEGIN RSA PRIVATE KEY-----\nMII\n"


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def in_git(root: Path) -> None:
    subprocess.run(["git", "init", "-q", str(root)], check=True)


WITHOUT_GIT = {  # what goes along (True), what is passed over in silence (None), and what is named as left out
    "train.py": True,
    "nets/__init__.py": True,
    "nets/deep/conv.py": True,
    "settings.yaml": True,
    "vocabulary.txt": True,
    "pyproject.toml": True,
    "tokenizer.json": True,  # no token
    "keyboard.json": True,  # no key
    "README.md": None,
    "data.csv": None,
    "images.npy": None,
    "model.safetensors": None,
    "state.pkl": None,
    "run.sh": None,
    ".env": None,
    ".env.yaml": None,
    ".git/config.txt": None,
    ".hidden/code.py": None,
    ".venv/lib/python3.11/site-packages/torch/code.py": None,
    "environment/pyvenv.cfg": None,
    "environment/lib/code.py": None,
    "node_modules/x/code.json": None,
    "__pycache__/train.py": None,
    "build/lib/train.py": None,
    "mine.egg-info/top_level.txt": None,
    "runs/study/spec.json": None,  # the study home
    "secrets.yaml": "may hold secrets",
    "my_token.txt": "may hold secrets",
    "db-password.ini": "may hold secrets",
    "API_KEY.txt": "may hold secrets",
    "aws/credentials.json": "may hold secrets",
    "secrets.py": "may hold secrets",
    "tokens.py": True,  # source that is about tokens
    "large.json": "is data",
    "notes.txt": "private key",
    "odd.py": "private key",
    "outside.py": "leads out",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    special = {"large.json": " " * (packing.LARGEST_TEXT + 1), "notes.txt": KEY, "odd.py": f'key = """{KEY}"""'}
    root = tree(tmp_path / "project", {name: special.get(name, "x = 1\n") for name in WITHOUT_GIT if name != "outside.py"})
    (tmp_path / "elsewhere.py").write_text("x = 1\n")
    (root / "outside.py").symlink_to(tmp_path / "elsewhere.py")
    return root


def test_what_goes_along_and_what_never_does(folder: Path) -> None:
    found = package(folder, besides=folder / "runs")
    gone = {str(file) for file in found.files}
    assert gone == {name for name, wanted in WITHOUT_GIT.items() if wanted is True}
    left_out = {str(file): why for file, why in found.left_out.items()}
    named = {name: words for name, words in WITHOUT_GIT.items() if isinstance(words, str)}
    assert left_out.keys() == named.keys()
    assert all(words in left_out[name] for name, words in named.items())
    assert found.size == sum((folder / name).stat().st_size for name in gone)


def test_the_copy_is_what_was_packed(folder: Path, tmp_path: Path) -> None:
    found = package(folder, besides=folder / "runs")
    found.copy_to(tmp_path / "copy")
    assert {path.relative_to(tmp_path / "copy") for path in (tmp_path / "copy").rglob("*") if path.is_file()} == set(found.files)
    assert (tmp_path / "copy" / "nets" / "deep" / "conv.py").read_text() == "x = 1\n"


def test_in_a_checkout_what_git_ignores_stays(folder: Path) -> None:
    in_git(folder)
    (folder / ".gitignore").write_text("vocabulary.txt\nnets/deep/\n")
    gone = {str(file) for file in package(folder, besides=folder / "runs").files}
    assert gone == {name for name, wanted in WITHOUT_GIT.items() if wanted is True} - {"vocabulary.txt", "nets/deep/conv.py"}
    (folder / "train.py").unlink()
    assert "train.py" not in {str(file) for file in package(folder).files}


@pytest.mark.parametrize(("most_files", "most_bytes"), [(3, 10**6), (10**6, 40)])
def test_too_much_code_is_refused_with_the_largest_files(
    folder: Path, monkeypatch: pytest.MonkeyPatch, most_files: int, most_bytes: int
) -> None:
    (folder / "huge.py").write_text("x = 1\n" * 100)
    monkeypatch.setattr(packing, "MOST_FILES", most_files)
    monkeypatch.setattr(packing, "MOST_BYTES", most_bytes)
    with pytest.raises(PackingError, match=r"more source than may go along .* huge.py .*install the code as a package"):
        package(folder)


CODE = {"mine.py": "def train(trial, *, x: float):\n    yield {}\n", "parts/__init__.py": "", "parts/net.py": ""}


@pytest.mark.parametrize(
    ("trainer", "files", "said"),
    [
        ("mlp", 0, ""),  # declared: installed on the cluster, too
        ("hpo.typical:curve", 0, ""),  # installed
        ("mine:train", 3, ""),
        ("parts.net:train", 3, ""),
        ("missing:train", None, "missing:train is not to be found from"),
        ("unseen:train", None, "unseen.py is ignored by git"),
        ("credentials:train", None, "credentials.py may hold secrets"),
    ],
)
def test_the_trainers_code_goes_along_if_it_lies_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trainer: str, files: int | None, said: str
) -> None:
    tree(tmp_path, CODE | {"unseen.py": "", "credentials.py": "", ".gitignore": "unseen.py\n"})
    in_git(tmp_path)
    monkeypatch.chdir(tmp_path)
    if files is None:
        with pytest.raises(PackingError, match=said):
            code_of(trainer, tmp_path / "runs")
    else:
        assert len(code_of(trainer, tmp_path / "runs").files) == files


@pytest.mark.parametrize("file", sorted((ROOT / "search_spaces").glob("*.yaml")), ids=lambda file: file.stem)
def test_a_spec_that_is_sent_is_the_same_study(file: Path, tmp_path: Path) -> None:
    spec = load_spec(file, overrides=["budget.time=90m", "finals=none"])
    (tmp_path / "sent.yaml").write_text(text_of(spec, "other"))
    assert load_spec(tmp_path / "sent.yaml") == replace(spec, name="other")


def test_a_spec_that_is_sent_names_no_code_and_reveals_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_PASSWORD", "correct horse battery")
    uri = "postgresql://hpo:${env:DATABASE_PASSWORD}@db.example/mlflow"
    spec = load_spec(
        PLAIN, trainer_override="mine:train", overrides=[f"tracking.uri={uri}", "trainer.settings.api=${env:DATABASE_PASSWORD}"]
    )
    text = text_of(spec, spec.name)
    assert "mine" not in text
    assert "correct horse" not in text
    (tmp_path / "sent.yaml").write_text(text)
    assert load_spec(tmp_path / "sent.yaml", trainer_override="mine:train") == spec


@pytest.mark.parametrize(
    ("settings", "wrong"),
    [
        (["path=/shared/my.csv", "target=species"], []),
        (["path=my.csv", "target=species"], ["trainer.settings.path"]),
        (["path=/shared/x.npy", "target=y.npy"], ["trainer.settings.target"]),
        (["path=../x.npy", "target=y.npy"], ["trainer.settings.path", "trainer.settings.target"]),
    ],
)
def test_data_of_this_machine_is_refused(settings: list[str], wrong: list[str]) -> None:
    spec = load_spec(ROOT / "search_spaces" / "digits.yaml")
    chosen = dict(spec.trainer.settings) | {"dataset": "file"} | dict(text.split("=") for text in settings)
    spec = replace(spec, trainer=replace(spec.trainer, settings=chosen))
    if not wrong:
        refuse_local_files(spec)
        return
    with pytest.raises(SpecError) as error:
        refuse_local_files(spec)
    assert [problem.path for problem in error.value.problems] == wrong


def job(name: str, state: JobState = JobState.RUNNING, exit_code: int | None = None, study: str = "", **more: str) -> Job:
    return Job(name, study or name.removeprefix("hpo-").rpartition("-")[0], "ada", state, exit_code=exit_code, **more)


@pytest.mark.parametrize(
    ("study", "known", "expected"),
    [
        ("a", [], "hpo-a-1"),
        ("a", ["hpo-a-1"], "hpo-a-2"),
        ("a", ["hpo-a-2-1", "hpo-b-7"], "hpo-a-1"),  # those are of a-2 and b
        ("a-2", ["hpo-a-2-1"], "hpo-a-2-2"),
        ("a", ["hpo-a-9", "hpo-a-10"], "hpo-a-11"),
    ],
)
def test_every_driver_of_a_study_has_an_id_of_its_own(study: str, known: list[str], expected: str) -> None:
    assert next_id(study, map(job, known)) == expected


@pytest.mark.parametrize(("taken", "expected"), [([], "a"), (["b"], "a"), (["a"], "a-2"), (["a", "a-2", "a-4"], "a-3"), (["a-2"], "a")])
def test_a_name_that_is_taken_gets_a_number(taken: list[str], expected: str) -> None:
    assert free_name("a", taken) == expected


@pytest.mark.parametrize(
    ("state", "taken"),
    [("running", True), ("budget", True), (listing.STARTING, True), (listing.UNREADABLE, True), (listing.FAILED, False)],
)
def test_a_demanded_name_is_refused_if_a_study_has_it(state: str, taken: bool) -> None:
    rows = [Listed("a", state, owner="ada", where="head:8265")]
    if not taken:
        assert _name("a", rows, exactly=True) == "a"
        return
    with pytest.raises(DetachError, match=r"study a exists on head:8265 already \(ada's\): .*; go on with it by `hpo resume a`, or choose"):
        _name("a", rows, exactly=True)
    assert _name("a", rows, exactly=False) == "a-2"


def test_what_the_cluster_keeps_of_a_job_comes_back(tmp_path: Path) -> None:
    mine = Job("hpo-a-3", "a", "Ada L.", JobState.PENDING, "laptop", "mine:train")
    kept = metadata(mine)
    assert kept == {"study": "a", "owner": "Ada L.", "host": "laptop", "trainer": "mine:train"}
    assert job_of("hpo-a-3", kept, state=JobState.PENDING) == mine
    assert latest("a", [mine, replace(mine, id="hpo-a-12"), replace(mine, id="hpo-a-4")]).number == 12


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("raysubmit_x", None),
        ("raysubmit_x", {}),
        ("hpo-a-1", None),  # Ray's ghost of a job that was deleted
        ("hpo-a-1", {"study": "b"}),
        ("hpo-a-x", {"study": "a"}),
        ("hpo-a-1-1", {"study": "a"}),
        ("hpo.question-00", {"study": "a"}),
    ],
)
def test_jobs_of_others_are_no_studies(name: str, kept: dict[str, str] | None) -> None:
    assert job_of(name, kept, state=JobState.RUNNING) is None


def test_what_others_write_into_a_jobs_metadata_is_safe_to_print() -> None:
    found = job_of("hpo-a-1", {"study": "a", "owner": "\x1b]0;owned\x07eve\n"}, state=JobState.RUNNING)
    assert found is not None
    assert found.owner == "]0;ownedeve"


@pytest.mark.parametrize(
    ("state", "exit_code", "words"),
    [
        (JobState.PENDING, None, "starts"),
        (JobState.RUNNING, None, "runs"),
        (JobState.SUCCEEDED, 0, "ended (exit code 0)"),
        (JobState.FAILED, 75, "was stopped (exit code 75)"),
        (JobState.FAILED, 2, "was refused (exit code 2)"),
        (JobState.FAILED, 3, "ended without a trial that succeeded (exit code 3)"),
        (JobState.FAILED, 65, "found a damaged file (exit code 65)"),
        (JobState.FAILED, -9, "was killed (SIGKILL"),
        (JobState.FAILED, 137, "was killed (SIGKILL"),
        (JobState.FAILED, -11, "was ended by signal 11"),
        (JobState.FAILED, 127, "finds no `hpo` on its PATH (exit code 127)"),
        (JobState.STOPPED, None, "was stopped"),
        (JobState.FAILED, None, "died: Job supervisor actor died"),
    ],
)
def test_how_a_driver_ended_is_said(state: JobState, exit_code: int | None, words: str) -> None:
    assert words in job("hpo-a-1", state, exit_code, message="Job supervisor actor died\nby the node").ending


def ran(line: str, tmp_path: Path, hpo: str, **environment: str) -> str:
    """What the shell writes that runs the line of a job, its `hpo` being a script."""
    program = tmp_path / "bin" / "hpo"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f"#!/bin/sh\n{hpo}\n")
    program.chmod(0o755)
    env = {"PATH": f"{program.parent}:{os.environ['PATH']}", "HOME": "/home/ray", **environment}
    done = subprocess.run(["/bin/sh", "-c", line], capture_output=True, text=True, env=env, check=False, timeout=30)
    return f"{done.stdout}{done.stderr}exit {done.returncode}"


@pytest.mark.parametrize(
    ("home", "expected"), [(None, "/home/ray/runs"), ("", "/home/ray/runs"), ("/data/runs", "/data/runs"), ("mine", "/home/ray/mine")]
)
def test_a_driver_has_its_owner_and_a_home_that_lasts(tmp_path: Path, home: str | None, expected: str) -> None:
    given = {} if home is None else {"HPO_HOME": home}
    line = driver(launch_words("a", "mine:train"), "Ada; rm -rf /")
    written = ran(line, tmp_path, 'echo "$HPO_OWNER|$HPO_HOME|$HPO_ON_HEAD|$*"; exit 75', **given)
    assert written == f"Ada; rm -rf /|{expected}|1|launch hpo-study.yaml --name a --or-resume --trainer mine:train\nexit 75"


def test_a_resumed_driver_trusts_the_code_that_came_along(tmp_path: Path) -> None:
    line = resuming_driver("a", ["--trials", "9"], "ada")
    assert ran(line, tmp_path, '[ "$1" = trust ] || echo "$*"') == "resume --trials 9 -- a\nexit 0"
    assert ran(line, tmp_path, 'echo "$*" >&2; exit 2') == "trust --yes --code -- a\nexit 2"


@pytest.mark.parametrize(
    "out", ["", "[]\n", "two\nlines\n", "no newline", "deadbeef:a:b\n", "\x1b[1m:colons:\n" * 1000], ids=lambda text: text[:8]
)
def test_a_question_is_answered_exactly(tmp_path: Path, out: str) -> None:
    (tmp_path / "out").write_text(out)
    log = ran(question(["status", "--json", "--", "a b"], "deadbeef"), tmp_path, f'echo "$#:$4" >&2; cat {tmp_path / "out"}; exit 65')
    header = "Running entrypoint for job hpo.question-deadbeef: deadbeef:x:y\n"
    for noisy in (header + log, log + "\n" + header):  # Ray's own line comes where it likes
        assert answer(noisy, "deadbeef", 65) == Answer(out, "4:a b\n", 65)
    assert log.endswith("exit 65")


@pytest.mark.parametrize("log", ["", "no such thing", "deadbeef:!:!", f"other:{base64.b64encode(b'x').decode()}:"])
def test_a_log_without_an_answer_has_none(log: str) -> None:
    assert answer(log, "deadbeef", 0) is None


def test_pointers_are_replaced_in_one_step_and_hold_no_truth(tmp_path: Path) -> None:
    pointers.write(tmp_path, Pointer("a", "http://one:8265", "hpo-a-1"))
    pointers.write(tmp_path, Pointer("a", "http://two:8265", "hpo-a-2"))
    pointers.write(tmp_path, Pointer("b", "http://two:8265", "hpo-b-1"))
    folder = tmp_path / pointers.FOLDER
    (folder / "torn.json").write_text('{"study": "torn", ')
    (folder / "renamed.json").write_text((folder / "a.json").read_text())
    (folder / "odd.json").write_text('{"study": "odd", "jobs": 3, "job": null}')
    assert pointers.read(tmp_path) == {
        "a": Pointer("a", "http://two:8265", "hpo-a-2"),
        "b": Pointer("b", "http://two:8265", "hpo-b-1"),
    }
    assert {path.name for path in folder.iterdir()} == {"a.json", "b.json", "torn.json", "renamed.json", "odd.json"}
    (tmp_path / "file").touch()
    pointers.write(tmp_path / "file", Pointer("a", "http://one:8265", "hpo-a-1"))  # nowhere to keep it: no reason to fail


def test_where_a_study_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPO_CONFIG", str(tmp_path / "config.yaml"))
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    (tmp_path / "config.yaml").write_text("cluster: {}\n")
    assert server(None, tmp_path, "a") is None
    assert servers(None, tmp_path) == []
    pointers.write(tmp_path, Pointer("a", "http://sent:8265", "hpo-a-1"))
    assert server(None, tmp_path, "a") == "http://sent:8265"
    assert server(None, tmp_path, "b") is None
    assert servers(None, tmp_path) == ["http://sent:8265"]
    (tmp_path / "config.yaml").write_text("cluster: {jobs: http://site:8265}\n")
    assert server(None, tmp_path, "a") == "http://site:8265"
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://ray:8265/")
    assert server(None, tmp_path, "a") == "http://ray:8265"
    assert server("https://given", tmp_path, "a") == "https://given"
    monkeypatch.setenv("HPO_ON_HEAD", "1")  # there a question must not lead to another
    assert server(None, tmp_path, "a") is None


@pytest.mark.parametrize("address", ["head:8265", "ray://head:10001", "http://", "http://me:pa55word@head:8265", "http://head?x=1", "auto"])
def test_an_address_that_is_none_is_refused_without_its_password(address: str) -> None:
    with pytest.raises(SpecError, match=r"--jobs: found .* the address of Ray's jobs is http://HOST:8265") as error:
        jobs_address(address, "--jobs")
    assert "pa55word" not in str(error.value)


DONE, STOPPED, RUNNING = (Listed("a", state, "ada", host="head", folder="/runs/a") for state in ("budget", "stopped", "running"))
KILLED, ENDED, STARTS = job("hpo-a-1", JobState.FAILED, -9), job("hpo-a-1", JobState.SUCCEEDED, 0), job("hpo-a-2", JobState.PENDING)


@pytest.mark.parametrize(
    ("rows", "jobs", "expected"),
    [
        ([], [], []),
        ([DONE], [], [("a", "budget", "")]),  # launched on the head, or before Ray was started anew
        ([DONE], [ENDED], [("a", "budget", "hpo-a-1")]),
        ([RUNNING], [job("hpo-a-1")], [("a", "running", "hpo-a-1")]),
        ([STOPPED], [KILLED], [("a", "stopped", "hpo-a-1")]),
        ([STOPPED], [KILLED, STARTS], [("a", "starting", "hpo-a-2")]),  # resumed this moment
        ([DONE], [ENDED, STARTS], [("a", "budget", "hpo-a-2")]),
        ([], [STARTS], [("a", "starting", "hpo-a-2")]),
        ([], [job("hpo-a-1", JobState.FAILED, 2)], [("a", "failed", "hpo-a-1")]),
        ([], [KILLED], [("a", "failed", "hpo-a-1")]),
        ([], [ENDED], []),  # it ended, and was deleted
        ([], [job("hpo-a-1", JobState.FAILED, 75)], []),
        ([DONE], [job("hpo-b-1")], [("a", "budget", ""), ("b", "starting", "hpo-b-1")]),
    ],
)
def test_the_studies_of_a_cluster(rows: list[Listed], jobs: list[Job], expected: list[tuple[str, str, str]]) -> None:
    found = there(rows, jobs, "head:8265")
    assert [(row.study, row.state, row.job) for row in found] == expected
    assert {row.where for row in found} <= {"head:8265"}
    assert all(row.owner == "ada" for row in found)


def test_a_driver_that_was_killed_is_named_with_the_way_on() -> None:
    (row,) = there([STOPPED], [KILLED], "head:8265")
    assert "its driver was killed (SIGKILL" in row.note
    assert row.note.endswith("go on with it by `hpo resume a`")


def test_studies_of_here_and_there_stand_side_by_side_each_once() -> None:
    a, x = (Listed(name, "budget", host="head", folder=f"/runs/{name}", began="2026-12-01") for name in "ax")
    here = replace(a, where="head:8265", job="hpo-a-1")
    others = [replace(a, where="head:8265", host="other"), replace(x, where="head:8265", began="2026-12-02")]  # of the same name
    begun = Listed("new", "starting", where="head:8265")
    found = side_by_side([a, x], [here, *others, begun])
    assert found == [replace(a, job="hpo-a-1"), x, *others, begun]  # this machine is the head, and has `a` once


def test_the_owner_is_in_the_journal_and_in_mlflow_and_older_journals_have_none() -> None:
    created = Created("a", load_spec(ROOT / "search_spaces" / "digits.yaml").to_dict(), {}, owner="Ada L.")
    assert from_json(to_json(created)) == created
    older = {name: value for name, value in to_json(created).items() if name != "owner"}
    assert from_json(older) == replace(created, owner="")
    for event, tags in ((created, {"mlflow.user": "Ada L.", "hpo.owner": "Ada L."}), (from_json(older), {})):
        shown = Projection()
        shown.apply(Record(1, datetime(2026, 12, 1, tzinfo=UTC), event))
        (run,) = shown.runs.values()
        assert {name: value for name, value in run.tags.items() if name in ("mlflow.user", "hpo.owner")} == tags


def test_a_row_of_another_version_is_read() -> None:
    row = Listed("a", "running", best=0.5)
    assert listing.from_json(json.loads(json.dumps(row.to_json() | {"later": 1}))) == row
    with pytest.raises(TypeError):
        listing.from_json({"state": "running"})


def test_the_list_of_a_home_has_owners_states_and_what_cannot_be_read(tmp_path: Path) -> None:
    home = tmp_path / "home"
    words = ["--trainer", "tests.small_trainers:quadratic", "--local", "--trials", "2"]
    assert run_hpo(home, "list").out == "no studies yet: start one with `hpo launch FILE`\n"
    assert run_hpo(home, "launch", str(PLAIN), *words, HPO_OWNER="Ada").code == 0
    (home / "broken").mkdir()
    (home / "broken" / "journal.jsonl").write_text('{"crc":"00000000",}\n')
    shown, plain = run_hpo(home, "list"), run_hpo(home, "list", "--here", "--json")
    assert shown.code == plain.code == 65
    whole, broken = plain.json
    assert (whole["study"], whole["owner"], whole["state"], whole["where"]) == ("plain", "Ada", "budget", "this machine")
    assert (whole["done"], whole["most"], whole["metric"], whole["trainer"]) == (2, 2, "value", "tests.small_trainers:quadratic")
    assert whole["best"] == run_hpo(home, "best", "plain", "--json").json["value"]
    assert (broken["study"], broken["state"]) == ("broken", "unreadable")
    assert "is damaged" in broken["note"]
    assert [line.split()[:5] for line in shown.out.splitlines()[1:2]] == [["plain", "Ada", "this", "machine", "done"]]
    assert run_hpo(home, "status", "plain", "--json").json[0]["owner"] == "Ada"
    assert "Ada" in run_hpo(home, "status", "plain").out


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["launch", str(PLAIN), "--detach"], 2, "trainer.name: missing"),  # the spec's mistakes first
        (["launch", str(PLAIN), "--detach", "--trainer", "no_such:train"], 2, "no trainer at no_such:train"),
        (["launch", str(PLAIN), "--detach", "--trainer", "tests.small_trainers:quadratic", "--local"], 2, "leave --local out"),
        (["launch", str(PLAIN), "--detach", "--trainer", "tests.small_trainers:quadratic", "--address", "auto"], 2, "leave --address out"),
        (["launch", str(PLAIN), "--jobs", "http://127.0.0.1:1", "--trainer", "tests.small_trainers:quadratic"], 2, "give both"),
        (["launch", str(PLAIN), "--detach", "--trainer", "tests.small_trainers:quadratic"], 2, "no cluster is known: give the address"),
        (["launch", "search_spaces/digits.yaml", "--detach", "--jobs", "head:8265"], 2, "--jobs: found the text 'head:8265'"),
        (
            ["launch", "search_spaces/digits.yaml", "--detach", "--jobs", "http://127.0.0.1:1"],
            2,
            "no job server answers at http://127.0.0.1:1",
        ),
        (["status", "a", "--jobs", "http://127.0.0.1:1"], 2, "no study is called 'a' in "),
        (["stop", "a", "--jobs", "http://127.0.0.1:1"], 2, "and it may be on a cluster, but no job server answers"),
        (["resume", "a", "--jobs", "http://127.0.0.1:1"], 2, "no job server answers at http://127.0.0.1:1"),
        (["logs", "a", "--jobs", "http://127.0.0.1:1"], 2, "no job server answers at http://127.0.0.1:1"),
        (["logs", "a"], 2, "no study is called 'a' in "),
        (["list", "--jobs", "http://127.0.0.1:1"], 1, "no job server answers at http://127.0.0.1:1"),
    ],
    ids=lambda value: " ".join(value).replace(str(ROOT), "") if isinstance(value, list) else None,
)
def test_a_mistake_is_one_clear_message_and_sends_nothing(tmp_path: Path, words: list[str], code: int, said: str) -> None:
    known = {"HPO_CONFIG": str(tree(tmp_path, {"config.yaml": "cluster: {}\n"}) / "config.yaml"), "RAY_AUTH_TOKEN": "0" * 64}
    done = run_hpo(tmp_path / "home", *words, RAY_API_SERVER_ADDRESS="", **known)
    assert done.code == code, done.err
    assert said in done.err
    assert "Traceback" not in done.err
    assert not (tmp_path / "home").exists()


def test_without_a_token_it_is_said_how_to_get_one(tmp_path: Path) -> None:
    words = ["launch", str(ROOT / "search_spaces" / "digits.yaml"), "--detach", "--jobs", "http://127.0.0.1:1"]
    done = run_hpo(tmp_path / "home", *words, RAY_AUTH_TOKEN="", RAY_AUTH_TOKEN_PATH=str(tmp_path / "none"))
    assert done.code == 2
    assert f"neither RAY_AUTH_TOKEN nor {tmp_path / 'none'} is there" in done.err

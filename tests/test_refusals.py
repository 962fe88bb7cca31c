"""Names and paths that would leave their roots, and addresses that no list allows: refused with exit code 2, a reason, and no trace."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hpo import names, tracking
from hpo.cli import main
from hpo.events import Created
from hpo.home import HomeError, begin, find
from hpo.journal import FILE_NAME
from hpo.opening import _folder
from hpo.problem import SpecError
from hpo.spec import load_spec
from tests.canaries import forge
from tests.hostile import ADDRESSES, NAMES

SPEC = """
name: a
trainer: {name: mlp, settings: {dataset: digits, max_epochs: 2}}
objective: {metric: val_accuracy, direction: maximize}
space: {learning_rate: {type: float, low: 1e-4, high: 1e-1, log: true}}
budget: {trials: 1}
resources: {gpus: 0}
finals: none
"""
ALL = list(dict.fromkeys([*NAMES, *ADDRESSES]))
GIVEN = [text for text in ALL if text]  # an empty option is none


def test_there_are_enough_of_them() -> None:
    assert len(set(NAMES)) >= 200
    assert len(set(ADDRESSES)) >= 200


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A study home in a folder of its own, and a study in it."""
    folder = tmp_path_factory.mktemp("refusals")
    (folder / "spec.yaml").write_text(SPEC)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("HPO_HOME", str(folder / "runs"))
        patch.setenv("HOME", str(folder))
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        for name in ("MLFLOW_TRACKING_URI", "RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "HPO_CONFIG", "XDG_CONFIG_HOME"):
            patch.delenv(name, raising=False)
        with begin(folder / "runs", "known", exactly=True) as journal:
            journal.append([Created("known", load_spec(folder / "spec.yaml").to_dict(), {})])
        yield folder / "runs"


def tree(home: Path) -> list[str]:
    return sorted(str(path) for path in home.parent.rglob("*") if path.suffix != ".lock")


@pytest.fixture
def run(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """`hpo WORDS` in this process: its exit code, and what it said of it."""

    def run(*words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["hpo", *words])
        try:
            main()
        except SystemExit as end:
            return int(end.code or 0), "".join(capsys.readouterr())
        return 0, "".join(capsys.readouterr())

    return run


Run = Callable[..., tuple[int, str]]


def accepted(home: Path, override: Callable[[str], str]) -> list[str]:
    """The texts with which a spec is one."""
    found = []
    for text in ALL:
        with contextlib.suppress(SpecError):
            load_spec(home.parent / "spec.yaml", overrides=[override(text)])
            found.append(text)
    return found


def refuses(run: Run, home: Path, words: list[str], texts: list[str]) -> None:
    """The command ends with 2 and a reason for each text in the place of `TEXT`; nothing is made, here or anywhere near."""
    before = tree(home)
    for text in texts:
        code, said = run(*(word.replace("TEXT", text) for word in words))
        assert code == 2, (text, said)
        assert said.strip(), text
        assert "Traceback" not in said, text
    assert tree(home) == before


# --- names ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["name", "trainer.name"])
def test_a_spec_has_no_such_name(place: str, home: Path) -> None:
    before = tree(home)
    assert accepted(home, lambda text: f"{place}={json.dumps(text)}") == []
    assert tree(home) == before


@pytest.mark.parametrize("command", [["validate"], ["plan"], ["launch", "--local"]])
def test_nor_does_the_option(command: list[str], run: Run, home: Path) -> None:
    refuses(run, home, [*command, "spec.yaml", "--name=TEXT"], GIVEN)
    refuses(run, home, ["compare", "spec.yaml", "--samplers", "random,tpe", "--local", "--name=TEXT"], GIVEN)


OF_A_STUDY = [
    ["status"], ["trials"], ["best"], ["report"], ["explain", "0"], ["verify"], ["verify", "--repair"], ["replay"], ["track"],
    ["trust", "--yes"], ["resume", "--local"], ["stop"], ["delete", "--yes"], ["export", "exported"], ["compare", "known"], ["logs"],
]  # fmt: skip


@pytest.mark.parametrize("command", OF_A_STUDY, ids=" ".join)
def test_no_command_finds_a_study_of_such_a_name(command: list[str], run: Run, home: Path) -> None:
    name, *rest = command
    options, arguments = [word for word in rest if word.startswith("-")], [word for word in rest if not word.startswith("-")]
    order = [*arguments, "TEXT"] if name == "compare" else ["TEXT", *arguments]
    refuses(run, home, [name, *options, "--", *order], GIVEN)


def test_no_trial_is_called_so(run: Run, home: Path) -> None:
    refuses(run, home, ["explain", "--", "known", "TEXT"], ALL)


def test_no_comparison_is_called_so(run: Run, home: Path) -> None:
    forge(home / "known", home / "other", {"sampler": {"name": "tpe"}})
    refuses(run, home, ["compare", "known", "other", "--name=TEXT"], GIVEN)


@pytest.mark.parametrize("command", [["data", "get"], ["data", "path"]], ids=" ".join)
def test_no_dataset_is_called_so(command: list[str], run: Run, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPO_DATA", str(home.parent / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home.parent / "cache"))
    refuses(run, home, [*command, "--", "TEXT"], ALL)


@pytest.mark.parametrize("setting", ["dataset", "optimizer"])
def test_nor_in_a_spec(setting: str, home: Path) -> None:
    assert accepted(home, lambda text: f"trainer.settings.{setting}={json.dumps(text)}") == []


def test_nor_is_a_problem_of_proben1(run: Run, home: Path) -> None:
    found = accepted(home, lambda text: f"trainer.settings={{dataset: proben1, problem: {json.dumps(text)}}}")
    assert set(found) <= {"com1", "lpt1"}  # words with a number, which a launch does not know
    for text in found:
        code, said = run("launch", "spec.yaml", "--local", "--set", f"trainer.settings={{dataset: proben1, problem: {text}}}")
        assert (code, text in said) == (2, True)


@pytest.mark.parametrize("field", ["experiment", "registered_model"])
def test_what_mlflow_calls_something_is_refused_or_stays_where_it_belongs(field: str, home: Path) -> None:
    """What is allowed, as a name in another script, is one folder below that of the artifacts, under its own name."""
    allowed = accepted(home, lambda text: f"tracking.{field}={json.dumps(text)}")
    assert len(ALL) - len(allowed) > 380
    root = Path("/home/runs/mlartifacts")
    for text in allowed:
        assert not set(text) & set("\\:\0\n")
        assert (root / quote(text, safe="")).resolve().parent == root, text  # as `hpo.store` makes it


# --- addresses --------------------------------------------------------------------------------------------------------------


def test_a_spec_names_no_such_address(home: Path) -> None:
    before = tree(home)
    assert accepted(home, lambda text: f"tracking.uri={json.dumps(text)}") == []
    assert tree(home) == before


def test_no_record_is_moved_there(run: Run, home: Path) -> None:
    refuses(run, home, ["track", "known", "--uri=TEXT"], GIVEN)


@pytest.mark.parametrize("command", [["launch", "spec.yaml", "--local"], ["resume", "known", "--local"], ["track", "known"]], ids=" ".join)
def test_nor_does_the_environment(command: list[str], run: Run, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = tree(home)
    for text in GIVEN:
        if "\0" not in text:
            monkeypatch.setenv("MLFLOW_TRACKING_URI", text)
            code, said = run(*command)
            assert (code, "MLFLOW_TRACKING_URI" in said) == (2, True), (text, said)
    assert [path for path in tree(home) if not path.endswith("tracking.log")] == before


@pytest.mark.parametrize("uri", ADDRESSES)
def test_no_file_of_a_study_names_one(uri: str, tmp_path: Path) -> None:
    tracking.write_state(tmp_path, tracking.TrackingState("http://host", moved_to=uri))
    assert tracking.read_state(tmp_path) is None


def test_no_ray_is_joined_there(run: Run, home: Path) -> None:
    clusters = {"127.0.0.1:5000", "localhost:5000"}
    refuses(run, home, ["launch", "spec.yaml", "--address=TEXT"], [text for text in GIVEN if text not in clusters])


STORED = {"/etc/passwd", "/tmp/x", "/proc/self/environ", "/dev/null", "/dev/stdin", "s3://bucket/x", "gs://bucket/x"}  # where they say


def test_no_checkpoints_are_kept_there(home: Path) -> None:
    before, allowed = tree(home), accepted(home, lambda text: f"checkpoints.storage={json.dumps(text)}")
    assert [place for place in allowed if not place.startswith(("/", "file:///", "s3://", "gs://")) or ".." in place.split("/")] == []
    assert set(allowed) >= STORED
    assert len(ALL) - len(allowed) > 400
    assert tree(home) == before


# --- laws -------------------------------------------------------------------------------------------------------------------


def test_the_artifacts_are_in_the_home(tmp_path: Path) -> None:
    assert _folder(tmp_path) == (tmp_path / "mlartifacts").as_uri()


@given(st.one_of(st.text(max_size=80), st.text("./\\~-_a\uff0e%2eE:\0 \n", max_size=12)))
@example("a")
@example("..a")
def test_a_name_that_is_taken_is_a_child_of_the_home(name: str) -> None:
    with contextlib.suppress(ValueError):
        assert names.study(name) == name
        _is_a_child(name)


def _is_a_child(name: str) -> None:
    home = Path("/srv/runs")
    for number in ("", "-2", "-9999"):
        folder = (home / f"{name}{number}").resolve()
        assert (folder.parent, folder.name) == (home, f"{name}{number}")
    assert name.isascii()
    assert name.isprintable()


@given(st.one_of(st.text(max_size=80), st.text("./\\~-_a\uff0e%2eE:\0 \n", max_size=12)))
def test_a_study_is_found_in_its_home_or_not_at_all(name: str) -> None:
    home = Path(__file__).parent / "specs"  # which holds no study
    with pytest.raises(HomeError):
        find(home, name)


def test_a_name_with_a_number_behind_it_is_a_child_too(tmp_path: Path) -> None:
    for _ in range(3):
        begin(tmp_path / "runs", "a" * 64, exactly=False).close()
        (tmp_path / "runs" / "x").mkdir(exist_ok=True)
        for folder in (tmp_path / "runs").glob("aaa*"):
            (folder / "report").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    assert {path.parent for path in tmp_path.rglob(FILE_NAME)} == {tmp_path / "runs" / f"{'a' * 64}{number}" for number in ("", "-2", "-3")}

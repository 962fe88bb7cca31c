"""`hpo compare` as a user meets it: help, JSON, files, errors with their codes."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from hpo import show_contest
from hpo.cli.compare import compare
from hpo.contest import of_tournament
from hpo.contest_words import as_plain, markdown, sentences, tables
from hpo.errors import exit_code
from hpo.home import HomeError
from hpo.problem import SpecError
from hpo.significance import significance
from hpo.tournament import tournament
from hpo.tournament_rounds import play
from hpo.verdict import verdict
from tests.tournaments import Simulator, task, use


@pytest.fixture
def simulated_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study home in which tournaments are simulated."""
    use(Simulator(), monkeypatch)
    monkeypatch.setenv("HPO_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pictures, which take a second."""
    monkeypatch.setattr("hpo.pictures_of_contest.save", lambda _, folder: [folder / "curves.png", folder / "curves.svg"])


def invoke(*words: object) -> Result:
    return CliRunner().invoke(compare, [str(word) for word in words])


def plain(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_help_has_examples_of_both_forms() -> None:
    shown = invoke("--help").output
    assert "Example:\n    hpo compare search_spaces/fashion.yaml --samplers grid,random,tpe" in shown
    assert "hpo compare fashion-random fashion-tpe" in shown
    assert "--json" in shown


def test_json_is_json_and_the_same_lies_in_the_home(simulated_home: Path, tmp_path: Path) -> None:
    found = plain(invoke(task(tmp_path), "--samplers", "grid,random,tpe", "--repeats", 3, "--json"))
    assert [arm["label"] for arm in found["arms"]] == ["grid", "random", "tpe"]
    assert found["decides"] in ("value", "replicated")
    assert len(found["on_value"]["pairs"]) == 3
    folder = Path(found.pop("folder"))
    assert folder == simulated_home / "compare-task"
    assert json.loads((folder / "table.json").read_text()) == found
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (folder / "curves.svg").read_text()[:1000]
    words = (folder / "table.md").read_text()
    assert "![Best value so far against epochs](curves.png)" in words
    assert all(f"| {arm} |" in words for arm in ("grid", "random", "tpe"))


@pytest.mark.usefixtures("undrawn")
def test_people_read_table_notes_and_sentences_and_where_the_files_are(simulated_home: Path, tmp_path: Path) -> None:
    shown = invoke(task(tmp_path), "--samplers", "random,tpe", "--repeats", 2, "--out", tmp_path / "there", "--name", "mine")
    assert shown.exit_code == 0
    for words in (
        "best at 25%",
        "P(first beats second)",
        "budget.trials is lifted",
        "too few for any claim",
        f"are in {tmp_path / 'there'}",
    ):
        assert words in shown.stdout
    assert "mine: 2 rounds of 2 searches, each 90 epochs (the file's budget.epochs)" in shown.stderr
    assert (tmp_path / "there" / "table.md").exists()
    assert sorted(path.name for path in simulated_home.iterdir()) == ["mine-random-r1", "mine-random-r2", "mine-tpe-r1", "mine-tpe-r2"]


@pytest.mark.usefixtures("simulated_home")
def test_a_terminal_of_eighty_columns_breaks_no_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = tournament(task(tmp_path), "grid,sweep,random+promote,qmc", 2)
    found = of_tournament(plan, play(plan).studies)
    narrow = Console(width=80, record=True, file=io.StringIO())
    monkeypatch.setattr(show_contest, "out", lambda: narrow)
    show_contest.contest(found, tmp_path)
    words = set(narrow.export_text().split())
    cells = [cell for table in tables(found) for row in table.rows for cell in row]
    assert len(cells) > 60
    assert {word for cell in cells for word in cell.split() if any(map(str.isdigit, word))} <= words


@pytest.mark.usefixtures("undrawn")
def test_studies_that_exist_are_compared_by_name(simulated_home: Path, tmp_path: Path) -> None:
    plain(invoke(task(tmp_path), "--samplers", "random,tpe", "--repeats", 2, "--json"))
    names = ["task-tpe-r1", "task-tpe-r2", "task-random-r1", "task-random-r2"]
    found = plain(invoke(*names, "--json"))
    assert [(arm["label"], len(arm["runs"])) for arm in found["arms"]] == [("tpe", 2), ("random", 2)]
    assert Path(found["folder"]).parent == simulated_home


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "Missing argument"),
        (["one"], "one: one study is compared with nothing"),
        (["one", "two", "--repeats", "3"], "--repeats is for a tournament over a FILE"),
        (["one", "two", "--set", "a=b"], "--set is for a tournament over a FILE"),
        (["one", "two.yaml"], "two.yaml is a file: name one file alone, or studies alone"),
        (["nowhere.yaml"], "name the arms, such as --samplers grid,random,tpe"),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(simulated_home: Path, words: list[str], said: str) -> None:
    result = invoke(*words)
    assert result.exit_code == 2
    assert said in result.output


@pytest.mark.parametrize(
    ("words", "error", "said"),
    [
        (["nowhere.yaml", "--samplers", "random,tpe"], SpecError, "nowhere.yaml: not found"),
        (
            ["TASK", "--samplers", "random,tpee", "--repeats", "0"],
            SpecError,
            "--repeats 0: at least 1 is needed\n--samplers random,tpee: no",
        ),
        (["one", "two"], HomeError, "no study is called 'one'"),
    ],
)
def test_every_foreseen_error_ends_with_2(
    simulated_home: Path, tmp_path: Path, words: list[str], error: type[Exception], said: str
) -> None:
    result = invoke(*[str(task(tmp_path)) if word == "TASK" else word for word in words])
    assert isinstance(result.exception, error)
    assert said in str(result.exception)
    assert exit_code(result.exception) == 2


@pytest.mark.usefixtures("undrawn")
def test_a_study_is_not_written_into(simulated_home: Path, tmp_path: Path) -> None:
    plain(invoke(task(tmp_path), "--samplers", "random,tpe", "--repeats", 1, "--json"))
    result = invoke("task-random-r1", "task-tpe-r1", "--out", simulated_home / "task-tpe-r1")
    assert isinstance(result.exception, HomeError)
    assert "holds a study; choose another folder with --out" in str(result.exception)


@pytest.mark.usefixtures("undrawn")
def test_where_nothing_comes_of_any_search_it_says_so_and_ends_with_3(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, simulated_home: Path
) -> None:
    play = Simulator()
    use(play, monkeypatch)
    plain(invoke(task(tmp_path), "--samplers", "random,tpe", "--repeats", 1, "--json"))
    for name in play.launched:
        journal = simulated_home / name / "journal.jsonl"
        journal.write_bytes(journal.read_bytes().splitlines(keepends=True)[0])
    result = invoke(*play.launched, "--json")
    assert result.exit_code == 3
    assert "no search found anything" in result.stderr
    assert json.loads(result.stdout)["arms"][0]["best"]["1"] is None


CLEAR = {"bad": [3.0, 3.1, 3.2, 3.3, 3.4, 3.5, 3.6], "good": [1.0, 1.2, 1.1, 1.4, 1.3, 1.5, 1.7]}
MEDIANS = {"bad": 3.3, "good": 1.3}


@pytest.mark.parametrize(
    ("losses", "said"),
    [
        (CLEAR, ["told apart on accuracy: good is better than bad (in 100% of repeats, 95 % interval 59% to 100%)"]),
        (
            {arm: values[:3] for arm, values in CLEAR.items()},
            [
                "good has the best median of accuracy, but is not told apart from bad "
                "(ahead in 100% of repeats; at least 3 more repeats would be needed, 6 in all)",
                "3 repeats are too few for any claim: Wilcoxon's test needs at least 6 to reach 5% for 2 arms",
            ],
        ),
        (
            {"bad": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], "good": [2.0, 1.0, 4.0, 3.0, 6.0, 5.0]},
            [
                "good has the best median of accuracy, but is not told apart from bad "
                "(ahead in 50% of repeats; no number of repeats within reason would tell them apart)",
                "so no claim that one arm is better than another (Wilcoxon's signed-rank test, 6 repeats)",
            ],
        ),
        (
            {"bad": [1.0], "good": [None], "gone": [None]},
            ["no value at all: good, gone", "nothing can be compared: fewer than two arms have a value in the same round"],
        ),
    ],
)
def test_the_answer_in_plain_words_claims_no_more_than_the_rule_does(losses: dict[str, list[float | None]], said: list[str]) -> None:
    assert verdict(significance(losses), MEDIANS, "accuracy") == said


def test_one_family_of_claims_is_made_and_the_finals_decide_where_there_are_some(
    simulated_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seven rounds in which the searches' own values are far apart, and the winners trained again are not."""
    import dataclasses

    from hpo import contest as contests

    plan = tournament(task(tmp_path, finals="none"), "random,tpe", 7)
    studies, real = play(plan, home=simulated_home).studies, contests.run_of

    def staged(study: Any, epochs: int, *, replicated: bool) -> contests.Run:
        run, better = real(study, epochs), "tpe" in study.name
        noise = (study.spec.seed % 97) / 1e4
        return dataclasses.replace(run, value=0.5 + 0.2 * better + noise, replicated=0.5 + noise * (-1) ** better if replicated else None)

    monkeypatch.setattr(contests, "run_of", lambda study, epochs: staged(study, epochs, replicated=False))
    without = contests.of_tournament(plan, studies)
    assert (without.on_replicated, without.deciding.pairs[0].better) == (None, "tpe")
    assert "told apart on the best value after 90 epochs" in sentences(without)[0]

    monkeypatch.setattr(contests, "run_of", lambda study, epochs: staged(study, epochs, replicated=True))
    found = contests.of_tournament(plan, studies)
    assert found.on_replicated is not None
    assert found.deciding is found.on_replicated
    assert found.on_values.pairs[0].better is None
    assert found.on_values.pairs[0].p == without.on_values.pairs[0].p
    assert as_plain(found)["decides"] == "replicated"
    assert "value of the winner, trained again with fresh seeds" in sentences(found)[0]
    assert "For orientation: best value of the search" in markdown(found, "curves.png")

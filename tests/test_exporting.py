"""The chosen model as files, and when the test split may be opened for it: on studies without Ray, trained in this process."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hpo import events, show_choice
from hpo.choice import choice, tags
from hpo.events import Unsealed
from hpo.exporting import export
from hpo.home import HomeError
from hpo.journal import FILE_NAME, Journal
from hpo.results import StoredStudy
from hpo.session import Session
from hpo.unsealing import why_sealed
from tests.conftest import Done, run_hpo
from trainers.mlp import build

SPEC = """
name: small
trainer: {{name: mlp, settings: {{dataset: digits, max_epochs: 2, train_size: 200, depth: 1}}}}
objective: {{metric: val_accuracy, direction: maximize}}
space:
  learning_rate: {{type: float, low: 1e-3, high: 1e-1, log: true}}
  width:         {{type: int,   low: 4,    high: 32,  log: true}}
sampler: {{name: random}}
pruner:  {{name: none}}
budget:  {{trials: 14}}
finals:  {finals}
"""


def launched(home: Path, finals: str, name: str) -> Done:
    (home / "small.yaml").write_text(SPEC.format(finals=finals))
    nobody = "http://127.0.0.1:1"  # MLflow is not what is tried
    return run_hpo(
        home, "launch", str(home / "small.yaml"), "--local", "--name", name, "--set", f"tracking={{uri: '{nobody}', patience: 0.1s}}"
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    for name, finals in [("judged", "{top: 2, seeds: 2}"), ("untested", "{top: 2, test: false}"), ("plain", "none")]:
        done = launched(folder, finals, name)
        assert done.code == 0, done.err
        (folder / f"{name}.out").write_text(done.out)
    return folder


def test_an_exported_model_is_the_champion_and_says_how_good_it_is(home: Path, tmp_path: Path) -> None:
    study = StoredStudy.open(home / "judged")
    files = export(study, tmp_path / "model")
    assert [file.name for file in files] == ["model.safetensors", "model.json", "parameters.json", "README.md"]
    assert not [file for file in (tmp_path / "model").iterdir() if file not in files]
    described = json.loads(files[1].read_text())
    network = build(**described["arguments"])
    network.load_state_dict(load_file(files[0]))
    with torch.no_grad():
        assert network.eval()(torch.zeros(3, 64)).shape == (3, 10)
    found = choice(study)
    assert found is not None
    assert described["input_shape"] == [None, 64]
    assert described["choice"]["mean"] == found.mean == (study.judged.winner.mean if study.judged else None)
    assert json.loads(files[2].read_text()) == dict(found.params)
    card = files[3].read_text()
    for words in ("optimistic", "opened once", "test_accuracy", found.run, str(found.seed), "safetensors", "digits"):
        assert words in card, words


def test_the_way_to_load_it_on_the_card_loads_it(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export(StoredStudy.open(home / "judged"), tmp_path / "model")
    monkeypatch.chdir(tmp_path / "model")
    code = (tmp_path / "model" / "README.md").read_text().partition("```python\n")[2].partition("```")[0]
    found: dict[str, object] = {}
    exec(code, found)  # what the card tells a person to run
    network = found["network"]
    assert isinstance(network, torch.nn.Module)
    assert network(torch.zeros(3, 64)).shape == (3, 10)


def test_what_is_known_goes_with_the_registered_model(home: Path) -> None:
    found = choice(StoredStudy.open(home / "judged"))
    assert found is not None
    assert found.run.startswith("final-")
    assert found.test_openings == 1
    assert len(found.fresh) == 2
    assert not set(found.fresh_seeds) & {trial.seed for trial in StoredStudy.open(home / "judged").trials}
    named = tags(found)
    assert {
        "hpo.choice.mean",
        "hpo.choice.selected_on",
        "hpo.choice.test.test_accuracy",
        "hpo.choice.looks",
        "hpo.choice.split.dataset",
    } <= named.keys()
    assert all(isinstance(value, str) and value for value in named.values())


def test_without_finals_the_value_is_marked_and_nothing_is_opened(home: Path) -> None:
    found, study = choice(StoredStudy.open(home / "plain")), StoredStudy.open(home / "plain")
    assert found is not None
    assert found.mean is None
    assert "better than the model is" in found.note
    assert "about a point" in (home / "plain.out").read_text()
    assert study.study.unsealed == []
    assert study.study.finals == []
    untested = StoredStudy.open(home / "untested").study
    assert untested.chosen is not None
    assert untested.unsealed == []
    assert "sealed: the test split was not opened" in (home / "untested.out").read_text()


@pytest.mark.parametrize(
    ("study", "folder", "words"),
    [("nobody", "m", "no study is called 'nobody'"), ("judged", "taken", "is not empty"), ("judged", "small.yaml", "is not empty")],
)
def test_what_cannot_be_exported_is_said_and_nothing_is_written(home: Path, study: str, folder: str, words: str) -> None:
    (home / "taken").mkdir(exist_ok=True)
    (home / "taken" / "mine").write_text("mine")
    done = run_hpo(home, "export", study, str(home / folder))
    assert (done.code != 0, words in done.err) == (True, True), done.err
    assert [file.name for file in (home / "taken").iterdir()] == ["mine"]
    assert not (home / "m").exists()


def test_a_study_without_a_checkpoint_has_nothing_to_export(home: Path, tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / FILE_NAME).write_bytes((home / "judged" / FILE_NAME).read_bytes())
    with pytest.raises(HomeError, match="has no checkpoint of final-"):
        export(StoredStudy.open(tmp_path / "bare"), tmp_path / "m")


def test_a_test_that_was_cut_off_is_said_to_be(home: Path, tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes((home / "untested" / FILE_NAME).read_bytes())
    model = StoredStudy.open(tmp_path).study.model()
    assert model is not None
    with Journal.open(tmp_path / FILE_NAME) as journal:
        journal.append([Unsealed(model.number)])
    assert show_choice.tested(StoredStudy.open(tmp_path)).startswith("cut off before it said anything; `hpo resume ")
    with Journal.open(tmp_path / FILE_NAME) as journal:
        journal.append([Unsealed(model.number), events.Tested(model.number, 3, {"a": [0.5, 0.1, 0.9]})])
    assert (
        show_choice.tested(StoredStudy.open(tmp_path))
        == "a 0.5 (0.1 to 0.9) on 3 examples, opened once (1 more broke off before it said anything)"
    )


MODEL, ANOTHER = 0, 1


@pytest.mark.parametrize(
    ("happened", "words"),
    [
        ([], ""),
        ([(MODEL, None)], ""),  # cut off before it said anything: the same model may be tested after all
        ([(MODEL, events.Tested(0, note="no test part here"))], ""),  # nothing was opened
        ([(MODEL, events.Tested(0, 3, {"a": [0.5, 0.1, 0.9]}))], "was opened already, for final-"),
        ([(ANOTHER, None)], "which is the model no longer"),  # nobody knows what it said
        ([(ANOTHER, events.Tested(0, note="no test part here"))], ""),
        ([(ANOTHER, events.Tested(0, 3, {"a": [0.5, 0.1, 0.9]}))], "which is the model no longer"),
    ],
)
def test_when_the_test_split_may_be_opened(
    home: Path, tmp_path: Path, happened: list[tuple[int, events.Tested | None]], words: str
) -> None:
    stored = StoredStudy.open(home / "untested")
    model = stored.study.model()
    assert model is not None
    (tmp_path / FILE_NAME).write_bytes((home / "untested" / FILE_NAME).read_bytes())
    with Journal.open(tmp_path / FILE_NAME) as journal:
        for who, answer in happened:
            trial = model.number if who == MODEL else stored.trials[0].number
            journal.append([Unsealed(trial), *([replace(answer, trial=trial)] if answer else [])])
    with Journal.open(tmp_path / FILE_NAME) as journal:
        found = why_sealed(Session(stored.spec, "trainers.mlp:train", tmp_path, journal))
    assert (words in found) if words else found == ""

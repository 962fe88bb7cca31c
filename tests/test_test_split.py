"""The sealed test split, seen by an audit hook in every process of a study: no trial opens it, the finals do so once."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest
from mlflow import MlflowClient

from hpo import data, events
from hpo.events import Asked, Chosen, Ended, Nominated, Unsealed
from hpo.results import StoredStudy
from hpo.trial import FINALS_FROM, State
from tests.conftest import ROOT, Done, needs_two_processors, run_hpo

pytestmark = [needs_two_processors, pytest.mark.skipif(data.find("mnist") is None, reason="needs MNIST: `hpo data get mnist`, or HPO_DATA")]
SPEC = """
name: sealed
trainer:
  name: mlp
  settings: {dataset: mnist, train_size: 600, val_size: 300, max_epochs: 3, batch_size: 32, depth: 1}
objective: {metric: val_accuracy, direction: maximize}
space:
  learning_rate: {type: float, low: 1e-4, high: 1e-1, log: true}
  width:         {type: int,   low: 4,    high: 64,  log: true}
sampler: {name: random}
pruner:  {name: none}
finals:  {top: 2, seeds: 2}
budget:  {trials: 20}
"""


class Opened(NamedTuple):
    """One opening of a file of the dataset."""

    process: int
    file: str
    command: str


class Sealed(NamedTuple):
    """A study that ended, and where its processes' openings are noted."""

    home: Path
    log: Path
    done: Done

    def hpo(self, *words: str) -> Done:
        path = os.pathsep.join(filter(None, (str(ROOT / "tests" / "audited"), os.environ.get("PYTHONPATH"))))
        cache = str(self.home / "cache")
        return run_hpo(self.home, *words, PYTHONPATH=path, HPO_TEST_AUDIT=str(self.log), XDG_CACHE_HOME=cache)

    @property
    def study(self) -> StoredStudy:
        return StoredStudy.open(self.home / "sealed")

    @property
    def openings(self) -> list[Opened]:
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [Opened(int(process), file, command) for process, file, command in (line.split("\t") for line in lines)]

    @property
    def test_openings(self) -> list[Opened]:
        return [found for found in self.openings if found.file.startswith("t10k")]


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Sealed:
    home = tmp_path_factory.mktemp("home")
    (home / "sealed.yaml").write_text(SPEC)
    study = Sealed(home, home / "opened.log", Done(0, "", ""))
    done = study.hpo("launch", str(home / "sealed.yaml"))
    assert done.code == 0, done.err
    return study._replace(done=done)


def test_no_trial_opens_the_test_split_and_the_finals_do_once(sealed: Sealed) -> None:
    trained = [found for found in sealed.openings if found.file.startswith("train")]
    assert trained, "the hook must see what trials open"
    assert any("ray" in found.command for found in trained)
    assert Counter(found.file for found in sealed.test_openings) == {"t10k-images-idx3-ubyte.gz": 1, "t10k-labels-idx1-ubyte.gz": 1}
    (process,) = {found.process for found in sealed.test_openings}
    assert process not in {found.process for found in trained if "hpo.engine.tester" not in found.command}
    assert all("hpo.engine.tester" in found.command for found in sealed.test_openings)


def test_the_journal_says_what_was_chosen_before_it_says_that_the_test_split_was_opened(sealed: Sealed) -> None:
    told = [record.event for record in sealed.study.records]
    order = [type(event) for event in told if isinstance(event, Nominated | Chosen | Unsealed | events.Tested | Ended)]
    assert order == [Nominated, Chosen, Unsealed, events.Tested, Ended]
    (chosen,) = [event for event in told if isinstance(event, Chosen)]
    (tested,) = [event for event in told if isinstance(event, events.Tested)]
    assert tested.trial == chosen.champion >= FINALS_FROM
    assert tested.examples == 10_000
    accuracy, low, high = tested.scores["test_accuracy"]
    assert low < accuracy < high
    assert 0.4 < accuracy < 1.0
    assert all(event.replicates is not None for event in told if isinstance(event, Asked) and event.trial >= FINALS_FROM)
    assert all(run.state in (State.COMPLETE, State.PRUNED) for run in sealed.study.study.finals)


def test_the_choice_is_the_same_everywhere(sealed: Sealed) -> None:
    best = sealed.hpo("best", "sealed", "--json").json
    study = sealed.study
    judged = study.judged
    assert judged is not None
    assert best["run"] == f"final-{judged.champion - FINALS_FROM}"
    assert best["trial"] == judged.winner.trial
    client = MlflowClient(f"sqlite:///{sealed.home}/mlflow.db")
    version = client.get_model_version_by_alias("sealed", "champion")
    run = client.get_run(version.run_id)
    assert run.data.tags["hpo.trial"] == best["run"]
    assert run.data.tags["hpo.replicates"] == str(judged.winner.trial)
    assert float(version.tags["hpo.choice.mean"]) == pytest.approx(judged.winner.mean, rel=1e-5)
    assert float(version.tags["hpo.choice.selected_on"]) == pytest.approx(judged.winner.selected_on, rel=1e-5)
    assert version.tags["hpo.choice.test_examples"] == "10000"
    assert version.tags["hpo.choice.split.dataset"] == "mnist"
    winner_run = client.get_run(version.tags["hpo.winner_run_id"])
    assert winner_run.data.tags["hpo.trial"] == str(judged.winner.trial)  # the lineage
    scores = study.study.test_results[0].scores["test_accuracy"]
    assert run.data.metrics["test_accuracy"] == pytest.approx(scores[0])
    parent = client.get_run(run.data.tags["mlflow.parentRunId"])
    assert (parent.data.metrics["test_accuracy"], parent.data.metrics["finals"]) == (pytest.approx(scores[0]), len(study.study.finals))
    assert sealed.hpo("verify", "sealed").code == 0
    assert sealed.hpo("replay", "sealed").code == 0


def test_what_is_shown_names_the_optimistic_value_and_the_test_once(sealed: Sealed) -> None:
    for words in ("optimistic", "opened once", "test_accuracy", "fresh run"):
        assert words in sealed.done.out
    card = sealed.home / "model"
    assert sealed.hpo("export", "sealed", str(card)).code == 0
    assert "opened once" in (card / "README.md").read_text()
    described = json.loads((card / "model.json").read_text())
    assert described["choice"]["test_openings"] == 1
    again = sealed.hpo("export", "sealed", str(card))
    assert (again.code, "is not empty" in again.err) == (2, True)


def test_a_second_opening_is_refused_unless_forced_and_then_marked(sealed: Sealed) -> None:
    """The last test of the module: it changes the study."""
    before = len(sealed.test_openings)
    longer = sealed.hpo("resume", "sealed", "--trials", "26")
    assert longer.code == 0, longer.err
    study = sealed.study.study
    assert len(study.trials) == 26
    assert len(sealed.test_openings) == before
    assert len(study.unsealed) == 1
    forced = sealed.hpo("resume", "sealed", "--open-test-again")
    assert forced.code == 0, forced.err
    assert len(sealed.test_openings) == 2 * before
    assert [opened.forced for opened in sealed.study.study.unsealed] == [False, True]
    assert "opened 2 times" in forced.out
    assert sealed.hpo("verify", "sealed").code == 0

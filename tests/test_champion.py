"""The champion loads back without pickle and answers as the trained network did; what cannot be one keeps its files."""

from __future__ import annotations

import dataclasses
import os
import re
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hpo import checkpoints, tracking, trust
from hpo.events import Asked, Created, Ended, Finished, Measured
from hpo.journal import Journal
from hpo.journal_format import Record
from hpo.opening import open_store
from hpo.projection import Projection
from hpo.trial import State

with warnings.catch_warnings():  # MLflow warns of its own type hints when it is imported
    warnings.simplefilter("ignore")
    import mlflow.pyfunc
    from mlflow import MlflowClient

    from hpo import champion
    from hpo.champion import Candidate, Crowned, register
    from hpo.recording import track

# MLflow's own use of SQLAlchemy
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning")

TRAINER = """
import torch
from torch import nn

def build(width, depth=1, *, dropout=0.0):
    hidden = [nn.Linear(4, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*hidden, nn.Linear(width, 3))
"""
UNTRACEABLE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.out = nn.Linear(4, 3)

    def forward(self, x):
        return self.out(x) if x.sum().item() > 0 else -self.out(x)

def build():
    return Net()
"""
LIGHTNING = """
import lightning
from torch import nn

class Net(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.out = nn.Linear(4, 3)

    def forward(self, x):
        return self.out(x)

def build():
    return Net()
"""
SPEC: dict[str, Any] = {
    "name": "whole",
    "trainer": {"name": "champion_trainer:train", "settings": {"max_epochs": 3}},
    "objective": {"metric": "val_accuracy", "direction": "maximize"},
    "tracking": {"experiment": "champions", "registered_model": "whole-model"},
}
ARGUMENTS = {"width": 8, "dropout": 0.5, "learning_rate": 0.1, "max_epochs": 3}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A study home with a database and importable trainers."""
    modules = tmp_path_factory.mktemp("modules")
    (modules / "champion_trainer.py").write_text(TRAINER)
    (modules / "champion_untraceable.py").write_text(UNTRACEABLE)
    (modules / "champion_lightning.py").write_text(LIGHTNING)
    (modules / "champion_unbuilt.py").write_text("def train(trial): ...\n")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in tracking.environment().items():
            patch.setenv(name, value)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setenv("PYTHONPATH", str(modules))
        patch.syspath_prepend(modules)
        trust.vouch([trust.code(f"{module.stem}:train") for module in modules.iterdir()])  # as a launch does
        yield tmp_path_factory.mktemp("home")


def network() -> torch.nn.Module:
    import champion_trainer

    torch.manual_seed(0)
    trained: torch.nn.Module = champion_trainer.build(8)
    trained(torch.randn(64, 4))  # moves the batch norm's statistics
    return trained.eval()


def candidate(home: Path, trial: int, net: torch.nn.Module, *, rows: int = 2, **changes: Any) -> Candidate:
    store = open_store(tracking.database_uri(home), "champions")
    checkpoint = home / "study" / "trials" / f"{trial:05d}" / "best"
    checkpoints.save(checkpoint, {"model": net.state_dict(), "example": torch.randn(rows, 4)})
    made = Candidate(
        study="study",
        study_id="abc",
        study_run_id=store.create("study", 0, {}),
        trial=trial,
        run_id=store.create(f"study-{trial}", 0, {}),
        metric="val_accuracy",
        value=0.875,
        epoch=7,
        entry="champion_trainer:train",
        arguments=ARGUMENTS,
        checkpoint=checkpoint,
        registered_model=f"model-{trial}",
        name=f"study-{trial:04d}",
    )
    return dataclasses.replace(made, **changes)


def client(home: Path) -> MlflowClient:
    return MlflowClient(tracking.database_uri(home))


def test_the_champion_is_registered_once_and_answers_like_the_network(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri, net = tracking.database_uri(home), network()
    chosen = candidate(home, 1, net)
    assert register(uri, chosen) == Crowned("model-1", "1", "models:/model-1/1")

    assert "MLFLOW_TRACKING_URI" not in os.environ  # MLflow's functions set it; a later study would go there
    mlflow.set_tracking_uri(uri)
    loaded = mlflow.pyfunc.load_model("models:/model-1@champion")
    for rows in (1, 2, 512):
        batch = torch.randn(rows, 4)
        assert np.allclose(loaded.predict(batch.numpy()), net(batch).detach().numpy(), atol=1e-5)
    assert loaded.metadata.signature.inputs.inputs[0].shape == (-1, 4)
    assert loaded.metadata.saved_input_example_info is not None
    (model,) = client(home).search_logged_models([open_store(uri, "champions").experiment_id])
    assert (model.source_run_id, model.name) == (chosen.run_id, "study-0001")
    version = client(home).get_model_version_by_alias("model-1", "champion")
    assert version.run_id == chosen.run_id
    assert version.tags == {
        "hpo.study": "study", "hpo.study_id": "abc", "hpo.trial": "1", "hpo.epoch": "7", "hpo.metric": "val_accuracy", "hpo.value": "0.875",
    }  # fmt: skip
    assert client(home).get_run(chosen.study_run_id).data.tags["hpo.champion"] == "model-1/1"

    monkeypatch.setattr(champion, "_log", lambda *_: pytest.fail("logged again"))
    assert register(uri, chosen).version == "1"


def test_a_model_of_lightnings_own_is_registered(home: Path) -> None:
    pytest.importorskip("lightning")
    import champion_lightning

    chosen = candidate(home, 7, champion_lightning.build(), entry="champion_lightning:train", arguments={})
    assert register(tracking.database_uri(home), chosen) == Crowned("model-7", "1", "models:/model-7/1")


def test_an_attempt_that_broke_off_is_continued_and_a_later_champion_stays(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = tracking.database_uri(home)
    chosen = candidate(home, 2, network(), rows=1)  # one row: the batch size must not be fixed to it
    with monkeypatch.context() as patch:
        patch.setattr(mlflow, "register_model", lambda *_, **__: (_ for _ in ()).throw(ConnectionError("lost")))
        with pytest.raises(ConnectionError):
            register(uri, chosen)
    monkeypatch.setattr(champion, "_log", lambda *_: pytest.fail("logged again"))
    assert register(uri, chosen).version == "1"
    (model,) = client(home).get_run(chosen.run_id).outputs.model_outputs

    later = client(home).create_model_version("model-2", f"models:/{model.model_id}", chosen.run_id, {"hpo.study_id": "later"})
    client(home).set_registered_model_alias("model-2", "champion", later.version)
    assert register(uri, chosen).version == "1"
    assert str(client(home).get_model_version_by_alias("model-2", "champion").version) == "2"


@pytest.mark.parametrize(
    ("entry", "arguments", "note"),
    [
        ("champion_unbuilt:train", ARGUMENTS, r"champion_unbuilt has no `build\(...\) -> nn.Module`"),
        ("champion_trainer:train", {"depth": 1}, "could not be built.*width"),
        ("champion_trainer:train", ARGUMENTS | {"width": 9}, "could not be built.*size mismatch"),
        ("champion_untraceable:train", {}, "could not be exported"),
        ("", ARGUMENTS, "not installed"),
    ],
)
def test_what_cannot_be_a_model_keeps_its_files_and_says_why(home: Path, entry: str, arguments: dict[str, Any], note: str) -> None:
    import champion_untraceable

    net = champion_untraceable.build() if "untraceable" in entry else network()
    chosen = candidate(home, 3, net, entry=entry, arguments=arguments)
    crowned = register(tracking.database_uri(home), chosen)
    assert (crowned.name, crowned.version, crowned.uri) == ("", "", "")
    assert re.search(note, crowned.note, re.DOTALL), crowned.note
    files = [file.path for file in client(home).list_artifacts(chosen.run_id, "checkpoint")]
    assert "checkpoint/state.json" in files
    assert len(files) == 2
    told = client(home).get_run(chosen.study_run_id).data.tags["hpo.champion"]
    assert told == f"no model of trial 3: {crowned.note}"[: len(told)]


def test_a_checkpoint_without_what_a_model_needs_says_what_to_save(home: Path) -> None:
    chosen = candidate(home, 4, network())
    checkpoints.save(chosen.checkpoint, {"epoch": 3})
    assert "no model and no example: save(model=net.state_dict()" in register(tracking.database_uri(home), chosen).note
    missing = dataclasses.replace(chosen, checkpoint=home / "nowhere")
    assert "nothing was saved here" in register(tracking.database_uri(home), missing).note


def test_the_shipper_crowns_the_best_trial_of_a_study(home: Path) -> None:
    folder, net = home / "whole", network()
    with Journal.create(folder / "journal.jsonl") as journal:
        journal.append([Created("whole", SPEC, {}), Asked(0, {"width": 4}, 1), Asked(1, {"width": 8, "dropout": 0.1}, 2)])
        journal.append([Measured(1, epoch, value, {"val_accuracy": value}, 0.1) for epoch, value in ((1, 0.5), (2, 0.75), (3, 0.7))])
        journal.append([Finished(0, State.FAILED, "error", "no"), Finished(1, State.PRUNED, "asha", "stopped")])
        checkpoints.save(folder / "trials" / "00001" / "best", {"model": net.state_dict(), "example": torch.randn(2, 4)})
        with tracking.start_shipper(folder) as process:
            journal.append([Ended("budget", 1)])
            assert process.wait(200) == 0, (folder / tracking.LOG_FILE).read_text()
    state = tracking.read_state(folder)
    assert state is not None
    assert (state.champion_uri, state.champion_note, state.done, state.error) == ("models:/whole-model/1", "", True, "")
    version = client(home).get_model_version_by_alias("whole-model", "champion")
    assert (version.tags["hpo.trial"], version.tags["hpo.value"], version.tags["hpo.epoch"]) == ("1", "0.75", "2")
    assert version.description == client(home).get_run(state.parent_run_id).data.tags["mlflow.note.content"]
    assert client(home).get_run(version.run_id).info.status == "KILLED"  # as a pruned trial's; registering changes nothing
    batch = torch.randn(5, 4)
    mlflow.set_tracking_uri(tracking.database_uri(home))
    predicted = mlflow.pyfunc.load_model("models:/whole-model@champion").predict(batch.numpy())
    assert np.allclose(predicted, net(batch).detach().numpy(), atol=1e-5)


def test_track_registers_the_champion_again_where_its_run_or_its_store_is_another(home: Path, tmp_path: Path) -> None:
    folder = home / "whole"  # the study above
    assert not track(folder).changed
    state = tracking.read_state(folder)
    assert state is not None
    best = client(home).get_model_version_by_alias("whole-model", "champion")
    client(home).log_param(best.run_id, "mine", 1)  # can't be taken out: the run goes, and the model with it
    done = track(folder)
    assert (done.deleted, done.runs_made, done.champion, done.after.differences) == (1, 1, "models:/whole-model/2", [])
    assert not track(folder).changed
    other = tracking.database_uri(tmp_path)
    moved = track(folder, other)
    assert (moved.champion, moved.after.models, moved.after.differences) == ("models:/whole-model/1", 1, [])
    version = MlflowClient(other).get_model_version_by_alias("whole-model", "champion")
    assert (version.tags["hpo.trial"], version.tags["hpo.epoch"]) == ("1", "2")
    assert tracking.read_state(folder).champion_uri == "models:/whole-model/1"
    for copy in ("hpo.study_id", "hpo.champion"):  # the alias on none, and then the study's run silent
        MlflowClient(other).delete_registered_model_alias("whole-model", "champion")
        if copy == "hpo.champion":
            MlflowClient(other).delete_tag(tracking.read_state(folder).parent_run_id, copy)
        assert track(folder).champion == "models:/whole-model/1"
        assert not track(folder).changed


def test_a_version_is_described_and_what_somebody_wrote_instead_stays(home: Path) -> None:
    uri, chosen = tracking.database_uri(home), candidate(home, 6, network(), descriptions=["so far"])

    def described(*descriptions: str) -> str:
        register(uri, dataclasses.replace(chosen, descriptions=descriptions))
        return str(client(home).get_model_version("model-6", "1").description)

    assert described("so far") == "so far"
    assert described("so far", "at its end") == "at its end"
    client(home).update_model_version("model-6", "1", "ours to keep")
    assert described("so far", "at its end", "later") == "ours to keep"


def test_a_version_that_a_server_made_twice_is_removed(home: Path) -> None:
    uri, name = tracking.database_uri(home), "o'brien's model"
    chosen = candidate(home, 5, network(), registered_model=name)
    assert register(uri, chosen).version == "1"
    first = client(home).get_model_version(name, "1")
    client(home).create_model_version(name, first.source, chosen.run_id, chosen.tags)
    assert register(uri, chosen).version == "1"
    assert [int(version.version) for version in client(home).search_model_versions(f'name = "{name}"')] == [1]


def test_an_interrupted_trials_model_is_that_of_its_newest_attempt(home: Path) -> None:
    """Its checkpoints are still those of its attempts: none has become the trial's."""
    projection = Projection()
    events = [Created("cut", SPEC | {"name": "cut"}, {}), Asked(0, {"width": 8}, 1)]
    events += [Measured(0, epoch, value, {"val_accuracy": value}, 0.1) for epoch, value in ((1, 0.5), (2, 0.75))]
    for seq, event in enumerate([*events, Ended("interrupted", 0)], start=1):
        projection.apply(Record(seq, datetime(2026, 11, 20, tzinfo=UTC), event))
    folder = home / "cut" / "trials" / "00000"
    for name in ("best-1.1", "best-2.1"):
        checkpoints.save(folder / name, {"model": network().state_dict(), "hpo": {"epoch": 2, "value": 0.75}})
    assert champion.candidate(projection, 0, home / "cut").checkpoint == folder / "best-2.1"
    checkpoints.save(folder / "best", {"model": network().state_dict(), "hpo": {"epoch": 2, "value": 0.75}})
    assert champion.candidate(projection, 0, home / "cut").checkpoint == folder / "best"

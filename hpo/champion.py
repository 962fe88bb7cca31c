"""The chosen model in MLflow: built from its checkpoint, logged, registered, aliased `champion`."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import mlflow
from mlflow import MlflowClient

from hpo import checkpoints, mlflow_pytorch, objects, rebuilding
from hpo.choice import choice, tags
from hpo.databases import patient
from hpo.mlflow_runs import CHAMPION_TAG, NOTE_TAG, STUDY
from hpo.mlflow_words import model_name, text
from hpo.objects import StorageError
from hpo.places import Place
from hpo.projection import Projection
from hpo.rebuilding import RebuildError
from hpo.redaction import hidden
from hpo.results import StoredStudy
from hpo.space import Value
from hpo.storage import kept_in
from hpo.store import ALIAS, quoted
from hpo.tracking import surroundings
from hpo.trial import key_of
from hpo.trial_files import best_of
from hpo.trust import of_storage, require

# 30 calls, too many in a row for a server that loses every fifth answer. All may be repeated: a version that is made twice is
# looked for, and a logged model that is stays empty.
RETRIES = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3", "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1"}


@dataclass(frozen=True, slots=True)
class Candidate:
    """The trial to be registered, and where it is in MLflow.

    `entry` is its trainer's "package.module:function"; `arguments` are all its hyperparameters and settings;
    `checkpoint` is what `hpo.checkpoints.load` reads; `known` are tags that say how good it is, and so does the last of
    `descriptions`, of which the others came before. `name` is that of the trial's run.
    """

    study: str
    study_id: str
    study_run_id: str
    trial: int
    run_id: str
    metric: str
    value: float
    epoch: int
    entry: str
    arguments: Mapping[str, Value]
    checkpoint: Place
    registered_model: str
    name: str
    note: str = ""
    known: Mapping[str, str] = field(default_factory=dict)
    descriptions: Sequence[str] = ()

    @property
    def identity(self) -> dict[str, str]:
        """What tells one state of one trial of one study from all others."""
        return {"hpo.study_id": self.study_id, "hpo.trial": key_of(self.trial), "hpo.epoch": str(self.epoch)}

    @property
    def tags(self) -> dict[str, str]:
        return self.identity | {"hpo.study": self.study, "hpo.metric": self.metric, "hpo.value": repr(self.value), **self.known}


class Crowned(NamedTuple):
    """What became of a candidate: a version of a registered model and its URI, or a note on why only its files were kept."""

    name: str = ""
    version: str = ""
    uri: str = ""
    note: str = ""


def candidate(projection: Projection, trial: int, study: Path) -> Candidate:
    """The trial that the study in the folder `study` chose; epoch and value are those of the weights that were saved.

    What is known of it goes with it, and of which trial of the search it is another run.
    """
    run, parent = projection.runs[key_of(trial)], projection.runs[STUDY]
    best = run.best
    if best is None:
        raise RebuildError(f"trial {trial} was chosen without a measurement")
    root = kept_in(study, projection.storage, projection.spec)
    require(of_storage(root), study.name)
    checkpoint = best_of(root, trial)
    saved = {"epoch": best.epoch, "value": best.value} | checkpoints.label(checkpoint)
    late = f"the weights are of epoch {saved['epoch']} ({saved['value']:.6g}): at the best epoch, {best.epoch}, nothing was saved"
    return Candidate(
        study=parent.name,
        study_id=projection.study_id,
        study_run_id=parent.run_id,
        trial=trial,
        run_id=run.run_id,
        metric=projection.metric,
        value=saved["value"],
        epoch=saved["epoch"],
        entry=_entry(projection.spec["trainer"]["name"]),
        arguments=run.arguments,
        checkpoint=checkpoint,
        registered_model=projection.model,
        name=run.name,
        note="" if saved["epoch"] == best.epoch else late,
        known=_known(projection, study),
        descriptions=parent.offered.get(NOTE_TAG, ()),
    )


def _known(projection: Projection, study: Path) -> dict[str, str]:
    """How good it is by the finals, and the run of the trial that it is another run of; nothing without finals."""
    if projection.chosen is None:
        return {}
    found, replicated = choice(StoredStudy.open(study)), projection.runs.get(key_of(projection.chosen.winner))
    lineage = {"hpo.winner_run_id": replicated.run_id} if replicated else {}
    return {name: text(value) for name, value in ({} if found is None else tags(found)).items()} | lineage


def register(uri: str, candidate: Candidate) -> Crowned:
    """Make the candidate the newest version of its registered model in the store at `uri`, unless it is one already.

    What the checkpoint, the trainer's code or the export refuse ends in a note and the checkpoint's files as artifacts;
    what the server refuses is raised, and the call may be repeated. Both outcomes are tags of the study's run.
    """
    uri = patient(uri)
    with _at(uri):
        client = MlflowClient(uri)
        name = candidate.registered_model
        version = _version(client, candidate)
        if version is None:
            try:
                model_uri = _logged(client, candidate) or _log(client, candidate)
            except RebuildError as error:
                return _keep_files(client, candidate, hidden(str(error)))
            registered = mlflow.register_model(model_uri, name, tags=candidate.tags)
            version = _version(client, candidate) or int(registered.version)
        _describe(client, candidate, version)
        if version >= _aliased(client, name):  # not when a later study was crowned since
            client.set_registered_model_alias(name, ALIAS, str(version))
        for run_id in (candidate.run_id, candidate.study_run_id):
            client.set_tag(run_id, CHAMPION_TAG, f"{name}/{version}")
        return Crowned(name, str(version), f"models:/{name}/{version}", candidate.note)


@contextmanager
def _at(uri: str) -> Iterator[None]:
    """The store that MLflow's own functions use inside; they want it as a global, and set a variable for child processes."""
    with surroundings({"MLFLOW_TRACKING_URI": uri, "MLFLOW_EXPERIMENT_ID": "", **RETRIES}):
        mlflow.set_tracking_uri(uri)
        try:
            yield
        finally:
            mlflow.set_tracking_uri(None)  # type: ignore[arg-type]  # back to what the environment says


def _entry(trainer: str) -> str:
    from hpo.declarations import find_declared

    declaration = None if ":" in trainer else find_declared(trainer)
    return trainer if ":" in trainer else declaration.entry if declaration else ""


def _log(client: MlflowClient, candidate: Candidate) -> str:
    """Log the network with its run; the URI of the logged model, which was loaded again and gave the same outputs."""
    try:
        network, example = rebuilding.network(candidate.entry, candidate.arguments, candidate.checkpoint)
    except (RebuildError, StorageError):
        raise
    except Exception as error:  # the trainer's own code
        raise RebuildError(f"the network could not be built from its checkpoint: {type(error).__name__}: {error}") from error
    mlflow.set_experiment(experiment_id=client.get_run(candidate.run_id).info.experiment_id)  # else the model is in another
    name, tags = model_name(candidate.name), candidate.tags
    logged = mlflow_pytorch.log(network, example, name=name, run_id=candidate.run_id, step=candidate.epoch, tags=tags)
    try:
        mlflow_pytorch.try_out(logged.model_uri, network, example)
    except RebuildError:
        client.delete_logged_model(logged.model_id)
        raise
    return str(logged.model_uri)


def _logged(client: MlflowClient, candidate: Candidate) -> str | None:
    """The URI of the model that an attempt which broke off has logged."""
    outputs = client.get_run(candidate.run_id).outputs
    for output in outputs.model_outputs if outputs else []:
        model = client.get_logged_model(output.model_id)
        if model.status == "READY" and candidate.identity.items() <= model.tags.items():
            return str(model.model_uri)
    return None


def _version(client: MlflowClient, candidate: Candidate) -> int | None:
    """The version that this candidate is already, if any; one that a server made late of a repeated call is removed."""
    found = client.search_model_versions(f"name = {quoted(candidate.registered_model)}", max_results=1000)
    mine = sorted(int(v.version) for v in found if v.run_id == candidate.run_id and candidate.identity.items() <= v.tags.items())
    for copy in mine[1:]:
        client.delete_model_version(candidate.registered_model, str(copy))
    return mine[0] if mine else None


def _describe(client: MlflowClient, candidate: Candidate, version: int) -> None:
    """Say of the version what the study's run says of itself, unless people said something else."""
    told = client.get_model_version(candidate.registered_model, str(version)).description or ""
    if candidate.descriptions and told != candidate.descriptions[-1] and told in ("", *candidate.descriptions):
        client.update_model_version(candidate.registered_model, str(version), candidate.descriptions[-1])


def _aliased(client: MlflowClient, name: str) -> int:
    """The version that is the champion now; 0 before the first."""
    return int(client.get_registered_model(name).aliases.get(ALIAS, 0))


def _keep_files(client: MlflowClient, candidate: Candidate, reason: str) -> Crowned:
    with _on_this_disk(candidate.checkpoint) as folder:
        if folder.is_dir():
            client.log_artifacts(candidate.run_id, str(folder), "checkpoint")
            reason = f"{reason}; the checkpoint's files are artifacts of the trial's run"
    client.set_tag(candidate.study_run_id, CHAMPION_TAG, text(f"no model of trial {key_of(candidate.trial)}: {reason}"))
    return Crowned(note=reason)


@contextmanager
def _on_this_disk(checkpoint: Place) -> Iterator[Path]:
    """The folder of a checkpoint; for an object one that is there as long as this is entered, if the object is."""
    if isinstance(checkpoint, Path):
        yield checkpoint
        return
    with tempfile.TemporaryDirectory(prefix="hpo-checkpoint-") as scratch:
        folder = Path(scratch) / checkpoint.name
        with suppress(FileNotFoundError):
            content = objects.read(checkpoint)
            folder.mkdir()
            (folder / checkpoint.name).write_bytes(content)
        yield folder

"""`hpo export`: the chosen model as plain files: safetensors and JSON, its parameters, a model card. Nothing of it is pickle."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpo import checkpoints
from hpo.choice import Choice, choice
from hpo.home import HomeError
from hpo.model_card import card
from hpo.preparing import trainer_of
from hpo.results import StoredStudy
from hpo.space import Value
from hpo.trust import demands, doubted, of_storage, require

if TYPE_CHECKING:
    from hpo.rebuilding import Builder

TENSORS, MODEL, PARAMETERS, CARD = "model.safetensors", "model.json", "parameters.json", "README.md"


def export(study: StoredStudy, folder: Path) -> list[Path]:
    """Write the study's model into `folder`, which is made; the files.

    `model.safetensors` has the tensors that the trainer saved as `model`, `model.json` how the network is built (its `build` with those
    of all `arguments` that it takes; unknown for code that this user never vouched for, which is not imported) and what is known of
    it, `parameters.json` the searched values alone. Raises HomeError where
    there is no model, nothing was kept of it, or the folder holds something already, and CheckpointError for a checkpoint that is
    not what was written.
    """
    best, found = study.best, choice(study)
    if best is None or found is None:
        raise HomeError(f"study {study.name} has no measured trial yet; there is nothing to export")
    if best.checkpoint is None:
        over = study.state in ("budget", "time")
        why = "its trainer saves none (call trial.save(model=net.state_dict()))" if over else "the study is not over"
        raise HomeError(f"study {study.name} has no checkpoint of {best.run}: {why}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise HomeError(f"{folder} exists and is not empty; name a new folder")
    require(of_storage(study.root), study.name)
    state = checkpoints.load(best.checkpoint)
    if "model" not in state:
        raise HomeError(f"the checkpoint of {best.run} has no `model`, only {', '.join(sorted(state))}; it is in {best.checkpoint}")
    model, entry = state["model"], _entry(study)
    builder = _builder(study, entry, found)
    if not isinstance(model, dict) or not all(hasattr(tensor, "contiguous") for tensor in model.values()):
        raise HomeError(f"the `model` in the checkpoint of {best.run} is no tensors by name (net.state_dict()); it is in {best.checkpoint}")
    folder.mkdir(parents=True, exist_ok=True)
    checkpoints.export_tensors(folder / TENSORS, model)
    _write(folder / MODEL, _described(study, entry, found, builder, state))
    _write(folder / PARAMETERS, dict(found.params))
    (folder / CARD).write_text(card(study, found, builder.where if builder else ""), encoding="utf-8")
    return [folder / name for name in (TENSORS, MODEL, PARAMETERS, CARD)]


def _builder(study: StoredStudy, entry: str, found: Choice) -> Builder | None:
    """What builds the network; None where the trainer offers nothing, or is code that this user never vouched for."""
    from hpo import rebuilding

    return rebuilding.builder(entry, _arguments(study, found)) if _may_run(study) else None


def _entry(study: StoredStudy) -> str:
    return trainer_of(study.spec).entry if _may_run(study) else study.spec.trainer.name


def _may_run(study: StoredStudy) -> bool:
    return all(demand.kind != "code" for demand in doubted(demands(study.spec)))


def _arguments(study: StoredStudy, found: Choice) -> dict[str, Value]:
    return {**study.spec.trainer.settings, **found.params}


def _described(study: StoredStudy, entry: str, found: Choice, builder: Builder | None, state: dict[str, Any]) -> dict[str, Any]:
    example = state.get("example")
    return {
        "study": study.name,
        "trainer": study.spec.trainer.name,
        "entry": entry,
        "arguments": _arguments(study, found),
        "build": dataclasses.asdict(builder) if builder else None,
        "input_shape": [None, *example.shape[1:]] if example is not None else None,
        "choice": dataclasses.asdict(found),
        "versions": dict(study.versions),
    }


def _write(path: Path, plain: dict[str, Any]) -> None:
    path.write_text(json.dumps(plain, indent=1, allow_nan=False) + "\n", encoding="utf-8")

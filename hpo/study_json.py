"""A study for machines: what the commands print with --json, as plain data."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hpo.results import StoredStudy


def report_json(study: StoredStudy) -> dict[str, Any]:
    """What `report` prints for machines, and `status` of one study beside its own."""
    from hpo.reporting import report as report_of

    plain = dataclasses.asdict(report_of(study))
    states = {state.value: count for state, count in plain["trials"].items()}
    return plain | {"trials": states, "choice": _choice_json(study)}


def study_json(study: StoredStudy) -> dict[str, Any]:
    """What `launch`, `status` and `best` print for machines."""
    found = study.best
    best = found and {
        "trial": found.trial,
        "run": found.run,
        "metric": found.metric,
        "value": found.value,
        "epoch": found.epoch,
        "params": dict(found.params),
        "seed": found.seed,
        "checkpoint": str(found.checkpoint) if found.checkpoint else None,
        "model_uri": found.model_uri,
        "tracking_uri": found.tracking_uri,
        "how_to_load": found.how_to_load,
        "choice": _choice_json(study),
    }
    counts = {state.value: count for state, count in study.counts.items()}
    return {
        "study": study.name,
        "folder": str(study.folder),
        "owner": study.owner,
        "state": study.state,
        "holder": str(study.holder) if study.holder else None,
        "trials": counts,
        "epochs": study.epochs,
        "seconds": study.seconds,
        "best": best,
        "recorded": bool(study.tracking and study.tracking.done),
    }


def _choice_json(study: StoredStudy) -> dict[str, Any] | None:
    """What is known of the model: replicated mean, interval, test scores; None where nothing was measured."""
    from hpo.choice import choice

    chosen = choice(study)
    return dataclasses.asdict(chosen) if chosen else None

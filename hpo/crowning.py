"""A study's state in MLflow with the model that its end names: registered, if it is not yet. No mlflow until then."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hpo import own_code
from hpo.importing import uncollected
from hpo.projection import Projection
from hpo.tracking import TrackingState


def crowned(state: TrackingState, projection: Projection, folder: Path, uri: str) -> TrackingState:
    """The state with the champion that the study's end names, which is registered in the store at `uri` unless it is already."""
    if projection.ended is None or projection.ended.best is None:
        return state
    if own_code.is_code(str(projection.spec["trainer"]["name"])):
        own_code.look_here()  # for its `build`
    with uncollected():
        from hpo import champion  # and with it torch: a second of work that the trials need until now

        found = champion.register(uri, champion.candidate(projection, projection.ended.best, folder))
    return replace(state, champion_name=found.name, champion_version=found.version, champion_uri=found.uri, champion_note=found.note)

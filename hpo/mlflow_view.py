"""A study's saved view in MLflow: all of its trials in a table and in charts, one click away. Pure: no mlflow.

The state of a view is a format of MLflow's UI (3.17) that is documented nowhere; `tests/browser` sees whether it still holds.
"""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any, NamedTuple

from hpo.mlflow_runs import STUDY
from hpo.mlflow_words import safe_name
from hpo.projection import Projection
from hpo.trial import Direction

TAG = "mlflow.sharedViewState."  # of the experiment; what follows is the key in the view's address
LONGEST = 5000  # characters that every server takes in a tag; what is longer is deflated, as MLflow's UI does itself
CHARTS = "hpo-charts"
GENERAL = {"metricSectionId": CHARTS, "deleted": False, "isGenerated": False}
LINE_AXES: dict[str, Any] = {
    "xAxisKey": "step",
    "lineSmoothness": 0,
    "scaleType": "linear",
    "xAxisScaleType": "linear",
    "range": {},
    "yAxisKey": "metric",
    "yAxisExpressions": [],
}


class View(NamedTuple):
    """A tag of the experiment."""

    tag: str
    content: str


def view(projection: Projection) -> View:
    """The view of the study's trials, the best first, without the study's own run."""
    parent, state = projection.runs[STUDY], json.dumps(_state(projection))
    name, at_ms = f"{parent.name}: all trials", parent.started_ms
    for written in (state, "deflate;" + base64.b64encode(zlib.compress(state.encode())).decode()):
        content = json.dumps({"name": name, "createdAt": at_ms, "updatedAt": at_ms, "state": written})
        if len(content) <= LONGEST:
            break
    return View(f"{TAG}{key(projection.study_id)}", content)


def key(study_id: str) -> str:
    """What a view is called in addresses."""
    return f"hpo-{study_id}"


def address(server: str, experiment_id: str, study_id: str) -> str:
    """Where the view is in MLflow's UI, in its part for training models, which it does not open by itself."""
    return f"{server}/#/experiments/{experiment_id}/runs?viewStateShareKey={key(study_id)}&workflowType=machine_learning"


def _state(projection: Projection) -> dict[str, Any]:
    best = safe_name(f"best_{projection.metric}")
    searched = [safe_name(name) for name in projection.spec.get("space", {})]
    parameters = [f"params.`{name}`" for name in searched]
    return {
        "searchFilter": f"tags.`hpo.study_id` = '{projection.study_id}' and tags.`hpo.trial` != '{STUDY}'",
        "orderByKey": f"metrics.`{best}`",
        "orderByAsc": projection.direction is Direction.MINIMIZE,
        "selectedColumns": ["attributes.`Models`", f"metrics.`{best}`", "metrics.`epochs`", *parameters, "tags.`hpo.state`"],
        "runsHiddenMode": "SHOW_ALL",
        "compareRunCharts": _charts(searched, best, safe_name(projection.metric)),
        "compareRunSections": [
            {
                "uuid": CHARTS,
                "name": "Trials",
                "display": True,
                "isReordered": False,
                "deleted": False,
                "isGenerated": False,
                "columns": 1,
                "cardHeight": 340,
            }
        ],
    }


def _charts(searched: list[str], best: str, metric: str) -> list[dict[str, Any]]:
    axes = {"selectedParams": searched, "selectedMetrics": [best], "showAllRuns": True}
    curves = {"metricKey": metric, "selectedMetricKeys": [metric], **LINE_AXES}
    return [
        {"uuid": "hpo-parallel", "type": "PARALLEL", **GENERAL, **axes},
        {"uuid": "hpo-line", "type": "LINE", **GENERAL, **curves},
    ]

"""The one process that opens the sealed test split: `python -m hpo.engine.tester`, a request on stdin, the answer in a file.

Its own process, so that neither the driver nor any trial's ever holds test data.
"""

from __future__ import annotations

import json
import math
import os
import sys
from pathlib import Path
from typing import Any

from hpo.data import DataError
from hpo.engine.failures import one_line
from hpo.engine.ray_processes import die_with_parent
from hpo.estimates import mean_interval
from hpo.places import place
from hpo.redacted_output import redacted
from hpo.redaction import hidden
from hpo.references import SecretError, revealed_arguments


def answered(request: dict[str, Any]) -> dict[str, Any]:
    """What the model of a checkpoint comes to: `examples` and `scores`, each metric's mean with its interval, or a `note`.

    The trainer's `test_scores(network, **arguments)` gives each metric of each test example.
    """
    from hpo import rebuilding

    entry, arguments = request["entry"], request["arguments"]
    test_scores = rebuilding.offered(entry, "test_scores")
    if test_scores is None:
        return {"note": f"{entry} offers no `test_scores(network, **arguments)`, so nothing was opened"}
    network, _ = rebuilding.network(entry, arguments, place(request["checkpoint"]))
    given = revealed_arguments(rebuilding.accepted(test_scores, arguments))
    found = {name: [float(value) for value in values] for name, values in test_scores(network, **given).items()}
    counts = {len(values) for values in found.values()}
    if len(counts) != 1 or counts == {0}:
        shown = " and ".join(map(str, sorted(counts))) or "no"
        return {"note": f"{entry}'s test_scores gave {shown} values; each metric needs one of each example"}
    if broken := [name for name, values in found.items() if not all(map(math.isfinite, values))]:
        return {"note": f"{entry}'s test_scores gave values that are not finite: {', '.join(map(str, broken))}"}
    return {"examples": counts.pop(), "scores": {str(name): _finite(mean_interval(values)) for name, values in found.items()}}


def _finite(estimate: tuple[float, float, float]) -> list[float]:
    """Without the ends that a single example leaves open."""
    return [value for value in estimate if math.isfinite(value)]


def main() -> None:
    """Answer the request on stdin; not without the driver, whose next process would open the test split again."""
    die_with_parent()
    request = json.load(sys.stdin)
    sys.path.extend(request["folders"])  # for a user's own code; last, so that nothing there hides a package of ours
    hidden.add_environment(os.environ)
    with redacted():
        answer = _answer(request)
    Path(request["answer"]).write_text(json.dumps(answer, allow_nan=False), encoding="utf-8")


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    """What is to be answered without secrets, whatever the user's code does."""
    from hpo.rebuilding import RebuildError

    try:
        found = answered(request)
        text = json.dumps(found, allow_nan=False)
    except (RebuildError, DataError, SecretError) as error:
        return {"note": hidden(str(error))}
    except Exception as error:  # the border to a user's code
        return {"note": f"the test failed: {one_line(error)}"}
    return {"note": "the name of a score shows a secret, so none is recorded"} if hidden.shows(text) else found


if __name__ == "__main__":
    main()

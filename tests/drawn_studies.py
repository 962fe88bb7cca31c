"""Studies written down event by event, of every kind that a report may be asked for: none measured, one, odd names and values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpo.events import Asked, Chosen, Created, Ended, Event, Finished, Measured, Nominated, Paused, Tested, Unsealed
from hpo.journal import FILE_NAME, Journal
from hpo.results import StoredStudy
from hpo.space import Params
from hpo.trial import FINALS_FROM, State
from tests.simulations import SPACE, spec

HOSTILE = "<script>alert('$x_1$')</script> μ 学 \\alpha & \""
Run = tuple[State, Sequence[float]]


@dataclass(frozen=True)
class Story:
    """A study: its space, what its trials' epochs measured and how each ended, and which way is better."""

    runs: Sequence[Run]
    space: Mapping[str, Mapping[str, object]] | None = None
    params: Sequence[Params] | None = None
    direction: str = "maximize"
    metric: str = "value"
    more: Mapping[str, float] | None = None  # beside the objective
    reason: str = "it was <so> & $so$"


def trial(number: int, params: Params, values: Iterable[float], state: State, story: Story) -> list[Event]:
    """All that happens to a trial of the search."""
    found: list[Event] = [Asked(number, params, number)]
    measured = [Measured(number, epoch, value, {story.metric: value, **(story.more or {})}, 1.5) for epoch, value in enumerate(values, 1)]
    found += measured
    if state is State.PAUSED:
        found.append(Paused(number, len(measured)))
    elif state is not State.RUNNING:
        found.append(Finished(number, state, {State.FAILED: "metric", State.PRUNED: "budget"}.get(state, "max_epochs"), story.reason))
    return found


def written(folder: Path, story: Story, end: Sequence[Event] = ()) -> StoredStudy:
    """The study in `folder`, with a journal that holds the story and then `end`."""
    space = {name: dict(one) for name, one in (story.space or SPACE).items()}
    pruner = {"name": "asha", "rule": "promote", "grace_epochs": 1, "reduction_factor": 3}
    what = spec(max_epochs=9, budget={"trials": 5000}, space=space, pruner=pruner)
    plain = what.to_dict() | {"objective": {"metric": story.metric, "direction": story.direction}}
    default = [{"x": (7 * at % 10) / 10, "rate": 10.0 ** -(at % 5), "width": 1 + at % 64} for at in range(len(story.runs))]
    events: list[Event] = [Created(folder.name, plain, {})]
    for number, ((state, values), params) in enumerate(zip(story.runs, story.params or default, strict=True)):
        events += trial(number, params, values, state, story)
    with Journal.create(folder / FILE_NAME) as journal:
        journal.append([*events, *end])
    return StoredStudy.open(folder)


def finals(first: float, second: float) -> list[Event]:
    """Finals of the trials 0 and 1, two runs each around the given values; the test split is opened once."""
    params = [{"x": 0.0, "rate": 1.0, "width": 1}, {"x": 0.7, "rate": 0.1, "width": 2}]
    found: list[Event] = [Nominated("budget", [0, 1], 2, 40)]
    for at, (number, value) in enumerate([(0, first - 0.01), (1, second - 0.01), (0, first + 0.01), (1, second + 0.01)]):
        run = FINALS_FROM + at
        found.append(Asked(run, params[number], 90 + at, replicates=number))
        found += [Measured(run, epoch, value, {"value": value}, 1.5) for epoch in (1, 2)]
        found.append(Finished(run, State.COMPLETE, "max_epochs", "done"))
    found += [Chosen(0, FINALS_FROM), Unsealed(FINALS_FROM), Tested(FINALS_FROM, 300, {"test_<b>": (0.7, 0.6, 0.8)})]
    return [*found, Ended("budget", FINALS_FROM)]


COMPLETE, PRUNED, PAUSED, FAILED, RUNNING = State.COMPLETE, State.PRUNED, State.PAUSED, State.FAILED, State.RUNNING
MIXED: list[Run] = [
    (COMPLETE, [0.1, 0.5, 0.9]),
    (PRUNED, [0.2]),
    (PAUSED, [0.3]),
    (FAILED, [0.95, 0.99]),
    (RUNNING, [0.1, 0.15]),
    (FAILED, []),
]
STORIES: dict[str, Story] = {
    "none": Story([]),
    "one": Story([(COMPLETE, [0.5])]),
    "only-asked": Story([(RUNNING, [])]),
    "all-failed": Story([(FAILED, [0.5, 0.6])] * 3),
    "failed-at-once": Story([(FAILED, [])] * 3),
    "only-pruned": Story([(PRUNED, [0.1 * at]) for at in range(30)]),
    "mixed": Story(MIXED),
    "minimised": Story(MIXED, direction="minimize"),
    "all-the-same": Story([(COMPLETE, [0.5, 0.5])] * 25),
    "all-zero": Story([(COMPLETE, [0.0])] * 25),
    "extreme": Story([(COMPLETE, [1e308, -1e308]), (PRUNED, [-1e308]), (COMPLETE, [0.1, 0.2]), (COMPLETE, [1e-300])]),
    "not-finite-beside": Story(MIXED, metric="val_loss", more={"train_loss": float("nan"), "other": float("inf")}),
    "pairs": Story([(COMPLETE, [0.1 * at, 0.2]) for at in range(40)], metric="val_loss", more={"train_loss": 0.05}, direction="minimize"),
    "one-parameter": Story([(COMPLETE, [0.1 * at]) for at in range(25)], {"x": SPACE["x"]}, [{"x": 0.01 * at} for at in range(25)]),
    "twelve": Story(
        [(COMPLETE, [0.1, 0.01 * at]) for at in range(25)],
        {f"parameter_number_{i}": {"type": "float", "low": 1e-300, "high": 1e300, "log": True} for i in range(12)},
        [{f"parameter_number_{i}": 10.0 ** (at - i) for i in range(12)} for at in range(25)],
    ),
    "choices": Story(
        [(COMPLETE, [0.01 * at]) for at in range(60)],
        {
            "many": {"type": "categorical", "choices": [f"choice {at} of thirty" for at in range(30)]},
            "flag": {"type": "categorical", "choices": [True, False]},
            "mixed": {"type": "categorical", "choices": [1, "1", 2.5]},
        },
        [{"many": f"choice {at % 30} of thirty", "flag": at % 3 == 0, "mixed": [1, "1", 2.5][at % 3]} for at in range(60)],
    ),
    "constant": Story(
        [(COMPLETE, [0.1 * at]) for at in range(3)],
        {
            "fixed": {"type": "float", "low": 0.5, "high": 0.5},
            "whole": {"type": "int", "low": 3, "high": 3},
            "wide": {"type": "float", "low": -8e307, "high": 8e307},
        },
        [{"fixed": 0.5, "whole": 3, "wide": 8e307 * (at - 1)} for at in range(3)],
    ),
    "hostile": Story(
        [(COMPLETE, [0.1 * at]) for at in range(25)],
        {HOSTILE: {"type": "categorical", "choices": [HOSTILE, "$\\frac{1}{2}$", "_^{"]}, "$rate_1": SPACE["rate"]},
        [{HOSTILE: [HOSTILE, "$\\frac{1}{2}$", "_^{"][at % 3], "$rate_1": 10.0 ** -(at % 5)} for at in range(25)],
        metric="val_$x_1$",
        more={"train_$x_1$": 0.3},
    ),
}

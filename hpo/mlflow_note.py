"""How a study ended, in Markdown: the description of its run in MLflow and of the model that is registered. Pure: no mlflow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from hpo.brief import short
from hpo.events import Chosen, Tested
from hpo.mlflow_runs import Run
from hpo.space import Value
from hpo.trial import name_of


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the journal says at a study's end.

    `trials` are the search's, `finals` the runs of the finals; `model` is the one of them that the study chose, by finals if
    there is `chosen`; `tested` is what its model came to on the test split.
    """

    reason: str
    metric: str
    trials: Sequence[Run]
    finals: Sequence[Run]
    model: Run | None
    chosen: Chosen | None
    tested: Tested | None


def note(found: Outcome) -> str:
    """What was chosen and how good it is, and what was done for it."""
    states = Counter(run.state for run in found.trials)
    counted = ", ".join(f"{count:,} {state}" for state, count in states.most_common())
    epochs = f"{sum(run.epochs for run in found.trials):,} in the search"
    if found.finals:
        epochs += f", {sum(run.epochs for run in found.finals):,} in the finals"
    rows = [
        *_quality(found),
        ("trials", f"{len(found.trials):,}" + (f": {counted}" if counted else "")),
        ("epochs", epochs),
        ("ended by", found.reason),
    ]
    return "\n".join([_model(found), "", *(f"- **{name}**: {value}" for name, value in rows)])


def _model(found: Outcome) -> str:
    model, chosen = found.model, found.chosen
    if model is None or model.best is None:
        return "No trial was measured, so none is the best."
    reached = f"{found.metric} {short(model.best.value)} at epoch {model.best.epoch}"
    if chosen is None:
        return f"The model is that of **{model.name}**: {reached}, the best of all epochs of the search, and so an optimistic value."
    return f"The model is that of **{model.name}**: {reached}. It trained {name_of(chosen.winner)} again, which won the finals."


def _quality(found: Outcome) -> Iterator[tuple[str, str]]:
    detail: Mapping[str, Value] = found.chosen.detail if found.chosen else {}
    if "mean" in detail:
        yield f"{found.metric}, replicated", _mean(detail)
    if {"gap", "selected_on"} <= detail.keys():
        gap = float(detail["gap"])
        side = "overstated" if gap >= 0 else "understated"
        yield "optimism gap", f"{short(gap)}: the search chose it by {short(detail['selected_on'])}, which {side} it"
    yield "test split", _tested(found.tested)
    if close := str(detail.get("not_told_apart", "")).split():
        yield "not told apart from", ", ".join(name_of(int(number)) for number in close)


def _mean(detail: Mapping[str, Value]) -> str:
    runs = int(detail.get("runs", 1))
    interval = f" (95 % interval {short(detail['low'])} to {short(detail['high'])})" if {"low", "high"} <= detail.keys() else ""
    return f"{short(detail['mean'])}{interval}, " + (f"the mean of {runs} fresh runs" if runs != 1 else "in one fresh run")


def _tested(tested: Tested | None) -> str:
    if tested is None:
        return "not opened for this model"
    if not tested.scores:
        return f"no scores: {tested.note}"
    return "; ".join(f"{name} {_estimated(values)}" for name, values in tested.scores.items()) + f", {tested.examples:,} examples"


def _estimated(values: Sequence[float]) -> str:
    interval = f" (95 % interval {short(values[1])} to {short(values[2])})" if len(values) == 3 else ""
    return f"{short(values[0])}{interval}"

"""Studies of every kind on made-up curves, for tests of what reads them: drawn by a number, simulated in memory or with a journal."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpo.engine.simulate import Unkept, run, simulate
from hpo.events import Event
from hpo.replaying import Replayed, replay_decisions
from hpo.results import StoredStudy
from hpo.space import Params
from hpo.spec import Spec, spec_from_dict
from hpo.specified import rules_of, sampler_of
from hpo.study import Study
from hpo.typical import typical_curve

Curve = Callable[[Params, int], Sequence[float]]
SPACE: dict[str, dict[str, object]] = {
    "x": {"type": "float", "low": 0.0, "high": 1.0},
    "rate": {"type": "float", "low": 1e-4, "high": 1.0, "log": True},
    "width": {"type": "int", "low": 1, "high": 64},
}
GRIDS: dict[str, list[float]] = {"x": [0.1, 0.3, 0.5, 0.7, 0.9], "rate": [0.001, 0.1], "width": [1, 8, 64]}


def spec(sampler: str = "random", max_epochs: int = 27, budget: dict[str, object] | None = None, seed: int = 0, **more: object) -> Spec:
    """A spec of the trainer `simulated` over three parameters; `more` are further sections."""
    return spec_from_dict(
        {
            "name": "made-up",
            "trainer": {"name": "simulated", "settings": {"max_epochs": max_epochs}},
            "objective": {"metric": "value", "direction": "maximize"},
            "space": SPACE,
            "sampler": {"name": sampler},
            "budget": budget or {"trials": 60},
            "seed": seed,
            **more,
        }
    )


@dataclass(frozen=True)
class Simulated:
    """A study that ended, with its events and the curve behind it."""

    study: Study
    events: list[Event]
    curve: Curve


def simulated(what: Spec, curve: Curve | None = None, slots: int = 4) -> Simulated:
    """The study run to its end, on the typical curves of its seed unless told otherwise."""
    curve = curve or typical_curve(what.space, what.max_epochs, what.seed)
    events: list[Event] = []
    study = Study(rules_of(what), sampler_of(what), events.extend)
    trials = Unkept(study, what.objective.metric, curve, None)
    reason = run(trials, trials.curve, slots, clock=trials.clock)
    study.discard(reason)
    study.end(reason)
    return Simulated(study, events, curve)


def any_spec(number: int, most_trials: int = 40) -> tuple[Spec, int]:
    """A spec and a number of workers, drawn by `number`: samplers, rules, brackets, audits, first points, stoppers and limits mixed."""
    draw = random.Random(f"any/{number}")
    sampler = ("ladders", "random", "tpe", "qmc", "cmaes", "grid", "sweep", "ladders", "gp")[number % 9]
    rule = "promote" if sampler == "ladders" or draw.random() < 0.5 else "stop"
    eta, max_epochs = draw.choice([2, 3, 4]), draw.choice([9, 27])
    pruner: dict[str, object] = {"name": "asha", "rule": rule, "reduction_factor": eta, "audit": draw.choice([0.0, 0.1, 0.3])}
    pruner["brackets"] = draw.choice([1, 2])
    budget: dict[str, object] = {"trials": 12 if sampler == "gp" else draw.randint(15, most_trials)}  # a suggestion of gp takes long
    if draw.random() < 0.3:
        budget["epochs"] = 4 * max_epochs
    more: dict[str, object] = {"pruner": pruner}
    if sampler not in ("grid", "sweep") and draw.random() < 0.4:
        more["start"] = [{"x": 0.5, "rate": 0.01, "width": 8}, {"x": 0.1, "rate": 0.1, "width": 64}]
    if draw.random() < 0.3:
        more["stopper"] = {"name": "patience", "epochs": 3}
    if sampler == "grid":
        budget["trials"] = max(30, most_trials)
        more["space"] = {name: {**SPACE[name], "grid": values} for name, values in GRIDS.items()}
    return spec(sampler, max_epochs, budget, number, **more), draw.choice([1, 2, 4, 16, 64])


def broken(curve: Curve, share: float) -> Curve:
    """The same, but a share of the configurations diverges after some epochs: all that follows is no number."""

    def with_ends(params: Params, seed: int) -> list[float]:
        draw, values = random.Random(f"diverges/{seed}"), list(curve(params, seed))
        if draw.random() < share:
            first = draw.randrange(len(values))
            values[first:] = [float("nan")] * (len(values) - first)
        return values

    return with_ends


def journaled_and_replayed(what: Spec, workers: int, folder: Path) -> Replayed:
    """Simulate the study with a journal, some of its trials diverging, read that again, and make all of it again."""
    folder.mkdir()
    curve = broken(typical_curve(what.space, what.max_epochs, what.seed), 0.07)
    study = simulate(what, curve, workers, what.seed, lambda params: 1 + float(params["x"]), folder=folder)
    stored = StoredStudy.open(folder)
    assert [(t.params, t.state, t.epoch) for t in stored.trials] == [(t.params, t.state, t.epoch) for t in study.trials]
    again = replay_decisions(rules_of(stored.spec), sampler_of(stored.spec), stored.records)
    assert (again.suggestions, again.promotions, again.measurements) == (len(study.trials), study.promotions, study.epochs)
    return again

"""A tournament of samplers over one task, before it starts: arms, rounds, equal budgets, paired seeds. Runs nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, get_args, get_type_hints

from hpo.problem import Place, Problem, SpecError, hint, quoted
from hpo.sections import Asha, SamplerChoice
from hpo.space import Float, SearchSpace, grid_size
from hpo.spec import Spec, load_spec
from hpo.trial import trial_seed

SAMPLERS: tuple[str, ...] = get_args(get_type_hints(SamplerChoice)["name"])
UNCOMPARED = ("name", "seed", "tracking")  # in which studies of one arm may differ


class Pruning(StrEnum):
    """What happens at a rung in an arm that says so: nothing, or others stop, or they wait."""

    NONE = "none"
    STOP = "stop"
    PROMOTE = "promote"


@dataclass(frozen=True, slots=True)
class Arm:
    """A way to search: a sampler, and what happens at the rungs (None: what the file says, as it suits the sampler)."""

    sampler: str
    pruning: Pruning | None = None

    @property
    def label(self) -> str:
        return f"{self.sampler}+{self.pruning}" if self.pruning else self.sampler


@dataclass(frozen=True, slots=True)
class Entry:
    """One study of a tournament: an arm's search in one round, counted from 1."""

    arm: Arm
    repeat: int
    spec: Spec


@dataclass(frozen=True, slots=True)
class Tournament:
    """Every entry, whole rounds first. Each search gets `epochs`, the finals beside; `reason` says why so many; `notes` what is lifted."""

    name: str
    arms: tuple[Arm, ...]
    repeats: int
    epochs: int
    reason: str
    notes: tuple[str, ...]
    entries: tuple[Entry, ...]


def tournament(
    file: Path,
    samplers: str,
    repeats: int,
    *,
    epochs: int | None = None,
    name: str | None = None,
    overrides: Sequence[str] = (),
    trainer: str | None = None,
) -> Tournament:
    """The tournament of `samplers` (such as `grid,random,tpe+none`) over the task in `file`.

    Raises SpecError with every mistake of the options, the file and the arms.
    """
    arms, problems = _arms(samplers)
    if repeats < 1:
        problems.append(_problem(Place.option("--repeats", repeats), "at least 1 is needed"))
    try:
        base = load_spec(file, overrides=overrides, trainer_override=trainer, name=name)
    except SpecError as error:
        raise SpecError([*problems, *error.problems]) from error
    budget, reason = _budget(base, epochs)
    if budget < base.max_epochs:
        place = Place(str(file)) if epochs is None else Place.option("--epochs", epochs)
        problems.append(
            _problem(place, f"{budget} epochs ({reason}) train not one trial to its end; at least {base.max_epochs} are needed")
        )
    specs: dict[Arm, Spec] = {}
    for arm in arms:
        try:
            specs[arm] = load_spec(
                file,
                overrides=[*overrides, *_overrides(arm, base)],
                trainer_override=trainer,
                name=study_name(base.name, arm, max(1, repeats)),
                trials=_trials(arm, base.space, budget),
                epochs=max(1, budget),
            )
        except SpecError as error:
            problems += [Problem(f"--samplers {arm.label}", 0, 0, p.path, p.message) for p in error.problems]
    problems += _same_searches(specs)
    if problems:
        raise SpecError(problems)
    entries = [Entry(arm, r, _in_round(spec, base, arm, r)) for r in range(1, repeats + 1) for arm, spec in specs.items()]
    return Tournament(base.name, tuple(arms), repeats, budget, reason, tuple(_notes(base, arms)), tuple(entries))


def study_name(tournament: str, arm: Arm, repeat: int) -> str:
    """`fashion-tpe-none-r1`"""
    return f"{tournament}-{arm.label.replace('+', '-')}-r{repeat}"


def _problem(place: Place, message: str) -> Problem:
    return Problem(place.file, place.line, place.column, "", message)


def _arms(samplers: str) -> tuple[list[Arm], list[Problem]]:
    place, arms, mistakes = Place.option("--samplers", samplers), list[Arm](), list[str]()
    for text in filter(None, re.split(r"[,\s]+", samplers)):
        sampler, plus, rule = text.partition("+")
        if sampler not in SAMPLERS:
            mistakes.append(f"no sampler is called {quoted(sampler)}; {hint(sampler, SAMPLERS)}")
        elif plus and rule not in list(Pruning):
            mistakes.append(f"{quoted(text)}: behind the + stands what happens at a rung: {', '.join(Pruning)}")
        else:
            arm = Arm("ladders" if sampler == "auto" else sampler, Pruning(rule) if plus else None)
            mistakes += [f"{arm.label} stands twice; every arm stands once"] if arm in arms else []
            arms.append(arm)
    arms = list(dict.fromkeys(arms))
    if len(arms) < 2 and not mistakes:
        mistakes.append("names fewer than two arms; a tournament needs two, such as `--samplers random,tpe`")
    return arms, [_problem(place, mistake) for mistake in mistakes]


def _budget(base: Spec, epochs: int | None) -> tuple[int, str]:
    """The epochs that every search gets, and why so many."""
    from hpo.plan import expected_spending
    from hpo.specified import rules_of

    if epochs is not None:
        return epochs, "--epochs"
    if base.budget.epochs is not None:
        return base.budget.epochs, "the file's budget.epochs"
    expected = expected_spending(rules_of(base), in_ladders=base.sampler.name == "ladders")
    return expected.epochs, f"what the file's own search is expected to take, {expected.trials} trials by {base.sampler.name}"


def _trials(arm: Arm, space: SearchSpace, epochs: int) -> int:
    """So many that epochs alone bound the search: each trial takes one at least, and a grid is allowed all of its points."""
    if arm.sampler != "grid" or any(isinstance(p, Float) and p.grid is None for p in space.values()):
        return max(1, epochs)
    return max(epochs, grid_size(space))


def _overrides(arm: Arm, base: Spec) -> list[str]:
    """The arm's search as changes of the file; a grid's order is drawn, so that what it has halfway does not hang on how it is written."""
    changes = [f"sampler={{name: {arm.sampler}}}", "budget.time=null"]
    if arm.sampler == "grid":
        changes = ["sampler={name: grid, shuffle: true}", "budget.time=null", "start=[]"]
    prunes = isinstance(base.pruner, Asha)
    match arm.pruning:
        case Pruning.NONE:
            changes.append("pruner={name: none}")
        case Pruning.STOP | Pruning.PROMOTE as rule:
            changes += ["pruner.name=asha", f"pruner.rule={rule}"] if prunes else [f"pruner={{name: asha, rule: {rule}}}"]
        case None if arm.sampler == "ladders" and prunes:
            changes += ["pruner.name=asha", "pruner.rule=null"]  # `rule: stop` suits other samplers
    plain = base.to_dict()
    if isinstance(finals := plain.get("finals"), dict) and "test" in finals:
        changes.append("finals.test=false")  # the test split stays sealed: it is for the model that is chosen in the end
    changes.append(f"tracking.experiment={json.dumps(plain['tracking']['experiment'])}")
    changes.append(f"tracking.registered_model={json.dumps(plain['tracking']['registered_model'] + '-compare')}")
    return changes


def _in_round(spec: Spec, base: Spec, arm: Arm, repeat: int) -> Spec:
    return replace(spec, name=study_name(base.name, arm, repeat), seed=trial_seed(base.seed, repeat))


def essence(spec: Spec) -> dict[str, Any]:
    """What makes two studies the same search but for chance."""
    return {key: value for key, value in spec.to_dict().items() if key not in UNCOMPARED}


def _same_searches(specs: dict[Arm, Spec]) -> list[Problem]:
    seen: list[tuple[Arm, dict[str, Any]]] = []
    problems = []
    for arm, spec in specs.items():
        mine = essence(spec)
        problems += [
            Problem(f"--samplers {arm.label}", 0, 0, "", f"is the same search as {other.label}, by what the file says of pruning")
            for other, theirs in seen
            if theirs == mine
        ]
        seen.append((arm, mine))
    return problems


def _notes(base: Spec, arms: Sequence[Arm]) -> list[str]:
    notes = ["budget.trials is lifted: epochs bound every search"]
    if base.budget.time_s is not None:
        notes.append("budget.time is dropped: it would end slow searches earlier than others")
    if base.start and any(arm.sampler == "grid" for arm in arms) and base.sampler.name not in ("sweep", "grid"):
        notes.append("the grid leaves the points of `start` out: it has points of its own")
    return notes

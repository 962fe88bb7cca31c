"""Whether a study's choice follows from its journal's lines: the best, the winner of the finals, the openings of the test split.

For `verifying`: recomputed from the events alone, without the study's own bookkeeping. Each check gives what was counted and the mistakes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from hpo.events import Asked, Chosen, Ended, Event, Finished, Measured, Nominated, Resumed, Tested, Unsealed
from hpo.results import StoredStudy
from hpo.trial import DEFAULTS, FINALS_FROM, Direction, State, key_of, name_of


def best(study: StoredStudy, events: Sequence[Event]) -> tuple[str, list[str]]:
    """The best trial of the search, or after finals the winner's median run, is what the journal and `hpo best` say."""
    direction = study.spec.objective.direction
    failed = {e.trial for e in events if isinstance(e, Finished) and e.state is State.FAILED}
    measured = [e for e in events if isinstance(e, Measured) and e.trial not in failed]
    if _chosen(events) is None:
        sought = [e for e in measured if e.trial < FINALS_FROM]
    else:
        winner = winning_run(events, direction)
        sought = [e for e in measured if e.trial == winner]
    found = min(sought, key=lambda e: (direction.loss(e.value), e.trial, e.epoch), default=None)
    number = None if found is None else found.trial
    mistakes = []
    last = next((e for e in reversed(events) if isinstance(e, Ended | Resumed)), None)
    shown = None if number is None else key_of(number)
    if isinstance(last, Ended) and last.best != number:
        told = None if last.best is None else key_of(last.best)
        mistakes.append(f"the journal ends with {told} as the best; by its values it is {shown}")
    if (study.best.run if study.best else None) != shown:
        mistakes.append(f"`hpo best` says {study.best and study.best.run}; by the values it is {shown}")
    return "nothing was measured" if found is None else f"{name_of(found.trial)}, {found.value:.6g} at epoch {found.epoch}", mistakes


def _chosen(events: Sequence[Event]) -> Chosen | None:
    """What the last finals chose; None before they did, and once the search goes on with a larger budget."""
    last = next((e for e in reversed(events) if isinstance(e, Chosen) or _reopens(e)), None)
    return last if isinstance(last, Chosen) else None


def _reopens(event: Event) -> bool:
    return isinstance(event, Resumed) and bool(event.trials or event.epochs or event.time_s)


def winning_run(events: Sequence[Event], direction: Direction) -> int | None:
    """The median run of the configuration, nominated last, whose complete fresh runs are best on average, none of them failed."""
    nominated = next((e for e in reversed(events) if isinstance(e, Nominated)), None)
    ends = {e.trial: e.state for e in events if isinstance(e, Finished)}
    fresh = {e.trial: e.replicates for e in events if isinstance(e, Asked) and e.replicates is not None}
    losses: dict[int, float] = {}
    for e in events:
        if isinstance(e, Measured) and e.trial in fresh:
            losses[e.trial] = min(losses.get(e.trial, math.inf), direction.loss(e.value))
    unsound = {fresh[run] for run in fresh if ends.get(run) is State.FAILED}
    field: dict[int, list[tuple[float, int]]] = {number: [] for number in (*(nominated.trials if nominated else ()), DEFAULTS)}
    for run, configuration in fresh.items():
        if ends.get(run) is State.COMPLETE and configuration in field and configuration not in unsound:
            field[configuration].append((losses[run], run))
    runs = min(filter(None, field.values()), key=lambda found: math.fsum(loss for loss, _ in found) / len(found), default=None)
    return sorted(runs)[len(runs) // 2][1] if runs else None


def openings(events: Sequence[Event]) -> tuple[str, list[str]]:
    """The test split is opened for a model that was chosen before, and once, unless that was forced and says so."""
    mistakes: list[str] = []
    opened: list[Unsealed] = []
    silent: set[int] = set()  # tested, and nothing came of it
    champion, nothing = None, 0
    for event in events:
        match event:
            case Chosen():
                champion = event.champion
            case Resumed() if _reopens(event):
                champion = None
            case Unsealed(trial, forced):
                earlier = [one.trial for one in opened if one.trial not in silent]
                mistakes += [] if forced else _unforced(trial, champion, earlier, answered=_answered(trial, events, event))
                opened.append(event)
                silent.discard(trial)
            case Tested(trial, scores=scores):
                if trial not in {one.trial for one in opened}:
                    mistakes.append(f"{name_of(trial)} was tested, and nothing says that it was opened")
                if not scores:
                    silent.add(trial)
                    nothing += 1
    by_force = sum(one.forced for one in opened)
    counted = "sealed" if not opened else "opened once" if len(opened) == 1 else f"opened {len(opened)} times"
    counted += (f", {by_force} of them by force" if by_force else "") + (f", {nothing} of them without a result" if nothing else "")
    return counted, mistakes


def _answered(trial: int, events: Sequence[Event], before: Event) -> bool:
    """Whether the trial had scores on the test split `before` that event."""
    for event in events:
        if event is before:
            return False
        if isinstance(event, Tested) and event.trial == trial and event.scores:
            return True
    return False


def _unforced(trial: int, champion: int | None, earlier: Sequence[int], *, answered: bool) -> list[str]:
    """What is wrong with an opening that nobody forced."""
    if trial != champion:
        return [f"it was opened for {name_of(trial)}, which no finals had chosen, and nobody forced that"]
    before = [number for number in earlier if number != trial or answered]
    return [f"it was opened for {name_of(trial)} after {name_of(before[0])}, and nobody forced that"] if before else []

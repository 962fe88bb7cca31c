"""Whether what the ladders' models are fitted to is what the trials were: recomputed from the trials alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

from hpo.rules import Rules
from hpo.sampling.ladder_history import HUGE
from hpo.sampling.ladders import LaddersSampler
from hpo.space import SearchSpace
from hpo.trial import Direction, State, Trial


def misfits(space: SearchSpace, rules: Rules, trials: Sequence[Trial]) -> list[str]:
    """Where the history of the ladders is not what `trials` are: values at the rungs they came to, and how they ended."""
    history = LaddersSampler(space, rules.direction, rules.seed, rules.rungs, rules.max_epochs).history(trials)
    rungs = (*rules.rungs, rules.max_epochs)
    found = []
    for trial, gains, seen in zip(trials, history.gain.tolist(), history.seen.tolist(), strict=True):
        theirs = {rung: None if math.isnan(gain) else -gain for rung, gain, there in zip(rungs, gains, seen, strict=True) if there}
        if theirs != (ours := _entries(trial, rungs, rules.direction)):
            found.append(f"trial {trial.number} is {trial.state} with losses {ours} at the rungs, the ladders have {theirs}")
    return found


def _entries(trial: Trial, rungs: Sequence[int], direction: Direction) -> dict[int, float | None]:
    """The losses of a trial at the rungs; None for a failure. One that ended by itself has its best at those that it did not come to."""
    losses = [min(max(direction.loss(m.value), -HUGE), HUGE) for m in trial.measurements]
    entries: dict[int, float | None] = {rung: losses[rung - 1] for rung in rungs if rung <= len(losses)}
    later = [rung for rung in rungs if rung > len(losses)]
    if trial.state is State.FAILED and later:
        entries[later[0]] = None
    elif trial.state is State.COMPLETE and losses:
        entries |= dict.fromkeys(later, min(losses))
    return entries

"""The chosen model and how good it is, in words: for the terminal, the model card and the registry. Text only."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from hpo.brief import short
from hpo.finals import SHARE
from hpo.judging import Finalist, Judgement
from hpo.trial import State, name_of

if TYPE_CHECKING:
    from hpo.history import History
    from hpo.results import StoredStudy


SAME = 1e-9  # a difference that is none but of rounding


def replicated(judged: Judgement, metric: str) -> str:
    """The winner's value on average of its fresh runs, with its interval."""
    winner = judged.winner
    known = winner.low is not None and winner.high is not None
    interval = f", 95 % interval {short(winner.low)} to {short(_at_most(winner.high, metric))}" if known else ""
    runs = f"the mean of {len(winner.values)} fresh runs" if len(winner.values) > 1 else "in one fresh run"
    spread = f"; runs of one configuration: sd {short(judged.sd)}" if judged.sd is not None else ""
    return f"{metric} {short(winner.mean)} ({runs}{interval}; {name_of(winner.trial)}{spread})"


def _at_most(value: float | None, metric: str) -> float | None:
    """An interval of Student's knows no bounds; of an accuracy there is one."""
    return min(value, 1.0) if value is not None and metric.endswith("accuracy") else value


def judgement_rows(judged: Judgement, looks: int) -> list[tuple[str, str]]:
    """What the value was that the search chose it by, after so many `looks`; who else might have won; whether it was worth searching."""
    winner = judged.winner
    rows = []
    if winner.selected_on is not None and judged.gap is not None:
        found = f"{short(winner.selected_on)}, among the best of {looks:,} looks at the validation data"
        rows.append(("selected on", f"{found}: {_optimism(judged.gap)}"))
    return [*rows, ("rivals", rivals(judged)), ("defaults", against_defaults(judged))]


def _optimism(gap: float) -> str:
    if abs(gap) < SAME:
        return "optimistic as a rule, though here no better than its mean"
    if gap < 0:
        return f"optimistic as a rule, though here {short(-gap)} worse than its mean"
    return f"optimistic, {short(gap)} better than its mean"


def rivals(judged: Judgement) -> str:
    """Who cannot be told apart from the winner."""
    others = [one for one in judged.finalists[1:] if one.values]
    if not others:
        tried = any(one.runs for one in judged.finalists[1:])
        return "no run of another was trained to its end" if tried else "none: there was no room for all runs of another"
    if judged.sd is None:
        return f"{_names(others)} not told apart: one fresh run each says nothing of chance; set finals.seeds, or search longer"
    close = [one for one in others if one.trial in judged.not_told_apart]
    return f"not told apart from {_names(close)}" if close else f"better than {_names(others)} (95 %)"


def _names(finalists: list[Finalist]) -> str:
    return ", ".join(f"{name_of(one.trial)} ({short(one.mean)})" for one in finalists)


def against_defaults(judged: Judgement) -> str:
    """Whether the winner beats the trainer's default configuration."""
    defaults = next((one for one in judged.finalists if one.is_default), None)
    if judged.winner.is_default:
        return "the trainer's defaults won: nothing that was searched is better"
    if defaults is None:
        return "not known: the trainer has none for all that is searched"
    if defaults.mean is None:
        return _untrained(defaults)
    verdict = {True: "beaten (95 %)", None: "not told apart", False: "not beaten"}[judged.beats_defaults]
    return f"the trainer's own, {short(defaults.mean)}: {verdict}"


def _untrained(defaults: Finalist) -> str:
    """Why nothing is known of the trainer's defaults."""
    if defaults.out:
        return f"beaten: {defaults.out}"
    return "not trained again: nothing was left for them" if not defaults.runs else "not known: no run of them was trained to its end"


def tested(study: StoredStudy) -> str:
    """What the test split said of the model, and how often it was opened."""
    history = study.study
    if not history.unsealed:
        return "sealed: the test split was not opened"
    chosen = history.model()
    found = next((one for one in reversed(history.test_results) if chosen is not None and one.trial == chosen.number), None)
    if found is None and chosen is not None and any(one.trial == chosen.number for one in history.unsealed):
        return f"cut off before it said anything; `hpo resume {study.name}` tests it"
    if found is None:
        return f"the test split was opened for {name_of(history.unsealed[-1].trial)}, not for this model"
    if not found.scores:
        return f"no scores: {found.note}"
    scores = "; ".join(f"{name} {estimated(values)}" for name, values in found.scores.items())
    times = sum(1 for one in history.test_results if one.scores)
    opened = "opened once" if times == 1 else f"opened {times} times, the later ones by force: no longer an unseen set"
    if silent := len(history.unsealed) - times:
        opened += f" ({silent} more broke off before {'it' if silent == 1 else 'they'} said anything)"
    return f"{scores} on {found.examples:,} examples, {opened}"


def estimated(estimate: object) -> str:
    """`0.977 (0.953 to 0.989)`"""
    numbers = [short(float(value)) for value in estimate] if isinstance(estimate, list | tuple) else [str(estimate)]
    return f"{numbers[0]} ({numbers[1]} to {numbers[2]})" if len(numbers) == 3 else numbers[0]


def why_optimistic(study: StoredStudy) -> str:
    """Why the best value of a search without finals is better than its model is, and what to do about it."""
    looks, history = f"the best of {study.epochs:,} looks at the validation data is better than the model is", study.study
    if not history.rules.finalists:
        return f"{looks}, by about a point after 100 trials (docs/finals.md); `finals: none` leaves it at that"
    if history.ended is None or history.ended.reason not in ("budget", "time"):
        return f"{looks}; the finals " + ("come after the search" if history.nominated is None else "have not chosen yet")
    if history.nominated is not None:
        return f"{looks}; the finals chose nobody: {_why_nobody(history)}"
    needed = math.ceil(history.rules.max_epochs / SHARE)
    if study.epochs >= needed:
        return f"{looks}; no finals: no time was left for them"
    return f"{looks}; no finals: {SHARE:.0%} of {study.epochs:,} epochs is less than one training, {needed:,} epochs would do"


def _why_nobody(history: History) -> str:
    """Why no run of the finals was completed, in the words of the first that was not."""
    ended = next((run for run in history.finals if run.state in (State.FAILED, State.PRUNED)), None)
    return f"{name_of(ended.number)} is {ended.state}: {ended.reason}" if ended else "no time was left for a run"

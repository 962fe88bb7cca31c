"""The part of a report that says which model was chosen and how good it is: with finals by their judgement, without them by the search."""

from __future__ import annotations

from hpo.html_words import facts, listed, paragraph, table
from hpo.judging import Finalist, Judgement
from hpo.progress import short
from hpo.results import StoredStudy
from hpo.trial import DEFAULTS, name_of

NOTE = 2  # the column of the table of finalists that may be empty


def chosen(study: StoredStudy) -> str:
    """As HTML; what is not known is said to be."""
    judged, objective = study.study.judged, study.spec.objective
    if judged is None:
        return _by_search(study)
    looks = sum(len(trial.measurements) for trial in study.trials if not trial.in_finals)
    rows = [
        ("winner", f"{name_of(judged.winner.trial)}; its model is that of {name_of(judged.champion)}, the median of its runs"),
        ("parameters", listed(judged.winner.params) or "the trainer's own"),
        (f"{objective.metric}, replicated", _mean(judged.winner) + _spread(judged)),
        ("selected on", _selected(judged, looks)),
        ("gap", "not known" if judged.gap is None else f"{short(abs(judged.gap))}: by so much the search {_side(judged)} it"),
        ("not told apart", _close(judged)),
        ("against the trainer's defaults", _against_defaults(judged)),
        ("test data", _tested(study)),
    ]
    return facts(rows) + _finalists(judged)


def _by_search(study: StoredStudy) -> str:
    best, objective = study.best, study.spec.objective
    if best is None:
        return paragraph("No trial has been measured yet: there is nothing to choose from.")
    rows = [
        ("best trial", f"{name_of(best.trial)}, epoch {best.epoch}, seed {best.seed}"),
        ("parameters", listed(best.params)),
        (objective.metric, f"{short(best.value)} (optimistic: the best of many values of one run each)"),
        ("model", best.model_uri or "not registered"),
        ("checkpoint", str(best.checkpoint) if best.checkpoint else "none was kept"),
        ("test data", _tested(study)),
    ]
    why = "The finals have not said anything: without them nobody knows by how much the value is overstated."
    return facts(rows) + paragraph(why, note=True)


def _mean(one: Finalist) -> str:
    if one.mean is None:
        return "not known"
    interval = f" (95 % interval {short(one.low)} to {short(one.high)})" if one.low is not None and one.high is not None else ""
    return f"{short(one.mean)}{interval}, the mean of {len(one.values)} fresh run{'s' * (len(one.values) != 1)}"


def _spread(judged: Judgement) -> str:
    if judged.sd is None:
        return "; too few runs to tell how much they differ"
    return f"; sd of one configuration's runs {short(judged.sd)} ({judged.freedom} degrees of freedom)"


def _selected(judged: Judgement, looks: int) -> str:
    if judged.winner.selected_on is None:
        return "nothing: the search had not tried it"
    return f"{short(judged.winner.selected_on)}, optimistic: the best of {looks:,} looks at the validation data"


def _side(judged: Judgement) -> str:
    return "overstated" if judged.gap is not None and judged.gap >= 0 else "understated"


def _close(judged: Judgement) -> str:
    close = [name_of(trial) for trial in judged.not_told_apart]
    if not any(one.values for one in judged.finalists[1:]):
        return "not known: no other has a fresh value"
    return f"{', '.join(close)}: might as well be ahead" if close else "nobody: the winner is ahead of all others (95 %)"


def _against_defaults(judged: Judgement) -> str:
    if judged.winner.trial == DEFAULTS:
        return "they are the winner"
    match judged.beats_defaults:
        case True:
            return "the winner beats them"
        case False:
            return "the winner does not beat them"
        case None:
            values = [len(one.values) for one in judged.finalists if one.trial == DEFAULTS]
            return "not told apart" if any(values) else f"not known: they {'have no fresh value' if values else 'were not in the finals'}"


def _tested(study: StoredStudy) -> str:
    """What the journal says of the test split."""
    opened = len(study.study.unsealed)
    if not opened:
        return "sealed: never opened"
    found = study.study.test_results
    times = "opened once" if opened == 1 else f"opened {opened} times: what it says is no longer unseen"
    if not found:
        return f"{times}; no result yet"
    last = found[-1]
    if not last.scores:
        return f"{times}; {last.note or 'no scores'}"
    scores = "; ".join(f"{name} {_interval(values)}" for name, values in last.scores.items())
    return f"{scores}; {last.examples:,} examples, {times}, by the model of {name_of(last.trial)}"


def _interval(values: object) -> str:
    numbers = [short(float(value)) for value in values] if isinstance(values, list | tuple) else [str(values)]
    return f"{numbers[0]} (95 % interval {numbers[1]} to {numbers[2]})" if len(numbers) == 3 else " ".join(numbers)


def _finalists(judged: Judgement) -> str:
    rows = []
    for one in judged.finalists:
        interval = f"{short(one.low)} to {short(one.high)}" if one.low is not None and one.high is not None else "?"
        values = ", ".join(map(short, one.values)) or "-"
        note = "; ".join(filter(None, (one.out, "not told apart from the winner" if one.trial in judged.not_told_apart else "")))
        selected = "-" if one.selected_on is None else short(one.selected_on)
        rows.append([name_of(one.trial), listed(one.params), note, values, selected, short(one.mean) or "?", interval])
    names = ["finalist", "parameters", "note", "fresh values", "search (optimistic)", "mean", "95 % interval"]
    kept = [at for at in range(len(names)) if at != NOTE or any(row[NOTE] for row in rows)]
    return table([names[at] for at in kept], [[row[at] for at in kept] for row in rows], numbers=4)

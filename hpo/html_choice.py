"""The part of a report that says which model was chosen and how good it is: with finals by their judgement, without them by the search."""

from __future__ import annotations

from hpo.brief import short
from hpo.html_words import facts, listed, paragraph, table
from hpo.judging import Judgement
from hpo.results import StoredStudy
from hpo.show_choice import judgement_rows, replicated, tested, why_optimistic
from hpo.trial import name_of

NOTE = 2  # the column of the table of finalists that may be empty


def chosen(study: StoredStudy) -> str:
    """As HTML; what is not known is said to be."""
    best, judged = study.best, study.judged
    if best is None:
        return paragraph("No trial has been measured yet: there is nothing to choose from.")
    run = f"{best.metric} {short(best.value)} on the validation data, {best.name}, epoch {best.epoch}, seed {best.seed}"
    known = [("parameters", listed(best.params)), ("the model", run), ("registered", best.model_uri or "not in MLflow")]
    if judged is None:
        return facts([*known, ("test", tested(study))]) + paragraph(why_optimistic(study), note=True)
    spread = "not known" if judged.sd is None else f"sd {short(judged.sd)} ({judged.freedom} degrees of freedom)"
    judgement = [("best", replicated(judged, best.metric)), *judgement_rows(judged, study.epochs)]
    return facts([*judgement, ("one configuration's runs", spread), ("test", tested(study)), *known]) + _finalists(judged)


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

"""How explanations, replays and what was done to MLflow look on a terminal. Text only: nothing here decides, reads or writes a study."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape

from hpo.brief import params_text, short
from hpo.show import facts, out
from hpo.trial import Course, name_of

if TYPE_CHECKING:
    from hpo.explaining import Attempt, Explanation, Rung
    from hpo.mending import Tracked
    from hpo.replaying import Replayed
    from hpo.results import StoredStudy

COURSE = {
    Course.FINISH: "trained to its end, not judged any more: a study wants a finished model now and then",
    Course.FINALS: "trained to its end, not judged at rungs: the finals compare means of fresh runs",
    Course.AUDIT: "audited: trained to its end though it was not among the best, to know what stopping costs",
}


def explanation(found: Explanation) -> None:
    """Why a trial was asked for, went on and ended."""
    rows = [("why", found.sentence)]
    if found.best_value is not None:
        rows.append(("best", f"{found.best_value:.6g} at epoch {found.best_epoch} of {found.epochs}"))
    rows += [("rung", _rung(rung)) for rung in found.rungs]
    rows += [
        ("parameters", params_text(found.params)),
        ("chosen by", found.sampler + (f", ladder {found.ladder}" if found.ladder else "") + f", from {found.known}"),
        ("seed", str(found.seed)),
    ]
    rows += [("course", COURSE[found.course])] if found.course in COURSE else []
    rows += [("attempt", _attempt(attempt)) for attempt in found.attempts]
    rows += [("log", str(log)) for log in found.logs] or [("log", "none: it printed nothing and raised nothing")]
    out().print(f"[bold]{escape(found.study)}[/bold] {name_of(found.trial)}: {found.state}")
    out().print(facts(rows))


def _rung(rung: Rung) -> str:
    quota = f"the best {rung.quota} go on" if rung.quota else "of so few none goes on"
    return f"epoch {rung.epoch}: {rung.outcome} with {short(rung.value)}, rank {rung.rank} of {rung.arrivals}; {quota}" + (
        "" if rung.cutoff is None else f", down to {short(rung.cutoff)}"
    )


def _attempt(attempt: Attempt) -> str:
    after = f"from epoch {attempt.after_epoch} in the journal" if attempt.after_epoch else "from its beginning"
    return f"{attempt.number} (lease {attempt.lease}) {after}" + (f": {attempt.why}" if attempt.why else "")


def replayed(study: StoredStudy, found: Replayed) -> None:
    """What was made again, and the first decision that differs."""
    promotions, ends = (f"{found.promotions} promotions, ", "ends and pauses") if found.promotions else ("", "ends")
    counted = f"{found.suggestions} suggestions, {promotions}{found.measurements} measurements judged, {found.ends} {ends}"
    if found.divergence is None:
        out().print(f"[green]{study.name}: the same again[/green]: {counted}")
        return
    first = found.divergence
    out().print(f"[red]{study.name} differs[/red] at line {first.seq} of its journal, after {counted}")
    out().print(facts([("journal", first.journaled), ("again", first.recomputed)]))
    out().print("Another version of a package may decide otherwise: the journal's first line says which ones it ran on.")


def tracked(found: Tracked) -> None:
    """What was done to MLflow's record, and what still differs."""
    after = found.after
    out().print(f"{escape(found.uri)}: {after.runs} runs, {after.points} points compared with the journal")
    if found.changed:
        done = [
            ("runs made", found.runs_made),
            ("runs deleted", found.deleted),
            ("points sent", found.points_sent),
            ("parameters and tags sent", found.texts_sent),
            ("ends set", found.ends_set),
            ("registered", found.champion),
        ]
        out().print(facts([(name, str(value)) for name, value in done if value]))
    else:
        out().print("nothing was to be done")
    for row in after.differences:
        out().print(f"[red]still differs[/red]: {escape(str(row))}")
    if found.note:
        out().print(f"[yellow]{escape(found.note)}[/yellow]")

"""How a report of what pruning did looks on a terminal. Text only: nothing here decides, reads or writes a study."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from hpo.brief import short
from hpo.show import facts, out
from hpo.trial import State

if TYPE_CHECKING:
    from hpo.audit import Audit, Stops
    from hpo.estimates import Correlation
    from hpo.reporting import Report


def report(found: Report) -> None:
    """States, rungs, ladders, what pruning saved and what it cost."""
    states = ", ".join(f"{found.trials[state]} {state}" for state in State if found.trials[state]) or "no trials"
    promotions = f"; {found.promotions} promotions" if found.promotions else ""
    out().print(f"[bold]{escape(found.study)}[/bold] ({escape(found.state)}): {states}{promotions}")
    _ladders(found)
    _rungs(found)
    out().print(facts(pruning(found)))


def pruning(found: Report) -> list[tuple[str, str]]:
    """What pruning saved and cost, and what to change, as facts."""
    rows = [("epochs", _saved(found))]
    if found.rungs:
        rows += [("false stops", _false(found.audit)), *_audit(found.audit)]
        rows.append(("advice", found.advice))
    return rows


def _saved(found: Report) -> str:
    if found.epochs_unpruned <= found.epochs:
        return f"{found.epochs:,}; nothing was cut short"
    share = 1 - found.epochs / found.epochs_unpruned
    return f"{found.epochs:,} instead of {found.epochs_unpruned:,} with every trial trained to its end: {share:.0%} saved"


def _false(audit: Audit) -> str:
    stops = audit.stops
    if stops.rate is None:
        return f"not known: {stops.outside} were outside the best of a rung, {stops.known} of them audited and trained to their end"
    better = f"better at the end than {short(audit.reference)}, the median of those that were trained to it"
    return f"{rate(stops)}: {stops.false} of {stops.known} audited ones would have been {better}"


def rate(stops: Stops) -> str:
    """`4 % (95 % interval 1 to 15 %) of 105`"""
    if stops.rate is None:
        return f"? of {stops.outside}"
    return f"{stops.rate:.0%} (95 % interval {stops.low:.0%} to {stops.high:.0%}) of {stops.outside}"


def _audit(audit: Audit) -> list[tuple[str, str]]:
    if not audit.stops.known and not audit.cut_off:
        return []
    beaten = f"{audit.beat_winner} audited trials ended better than the best of the others"
    unknown = f"; {audit.cut_off} are not trained to their end" if audit.cut_off else ""
    return [("audit", f"{beaten}{unknown}; it took {audit.epochs:,} epochs, {audit.share:.0%} of all")]


def _rungs(found: Report) -> None:
    if not found.rungs:
        return
    in_ladders, in_brackets = (any(rung.ladder for rung in found.rungs), any(rung.skipped for rung in found.rungs))
    by_epoch = {rung.epoch: rung for rung in found.audit.rungs}
    first = {rung.epoch: index for index, rung in reversed(list(enumerate(found.rungs)))}
    rows = []
    for index, rung in enumerate(found.rungs):
        audited = by_epoch[rung.epoch]
        of_all = [rate(audited.stops), _agreement(audited.correlation)] if first[rung.epoch] == index else ["", ""]
        which = ([rung.ladder or "-"] if in_ladders else []) + ([str(rung.skipped)] if in_brackets else [])
        counts = (rung.arrivals, rung.quota, rung.went_on, rung.waiting, rung.audited)
        rows.append([*which, str(rung.epoch), *map(str, counts), *of_all])
    names = (["ladder"] if in_ladders else []) + (["skips"] if in_brackets else [])
    _table([*names, "rung", "came", "quota", "went on", "wait", "audited", "false stops", "order as at the end"], rows)


def _agreement(found: Correlation | None) -> str:
    return "?" if found is None else f"{found.value:.2f} ({found.low:.2f} to {found.high:.2f})"


def _ladders(found: Report) -> None:
    if not any(ladder.ladder for ladder in found.ladders):
        return
    rows = [
        [one.ladder or "-", str(one.trials), str(one.promotions), str(one.complete), str(one.epochs), short(one.best)]
        for one in found.ladders
    ]
    _table(["ladder", "trials", "promotions", "complete", "epochs", "best"], rows)


def _table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in names:
        table.add_column(name, justify="left" if name == "ladder" else "right", no_wrap=True)
    for row in rows:
        table.add_row(*map(escape, row))
    out().print(table)

"""How studies side by side, and one that was sent away, look on a terminal. Text only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from hpo.brief import short
from hpo.show import facts, out

if TYPE_CHECKING:
    from hpo.listing import Listed
    from hpo.submitting import Sent

MOST_FILES, MOST_LEFT_OUT = 12, 5
COLUMNS = ("study", "owner", "where", "state", "trials", "best")


def studies(rows: Sequence[Listed]) -> None:
    """One line a study; below, by whom each runs, or what can be done about one that does not."""
    console, table = out(), Table(box=None, pad_edge=False)
    for name in COLUMNS:
        table.add_column(name, no_wrap=name != "where")
    for row in rows:
        best = f"{row.metric} {short(row.best)}" if row.best is not None else ""
        trials = f"{row.done} of {row.most}" if row.most else ""
        table.add_row(*map(escape, (row.study, row.owner, row.where, row.standing, trials, best)))
    console.print(table)
    for row in rows:
        if line := row.holder or row.note:
            console.print(f"{row.study}: {escape(line)}", soft_wrap=True)


def sent(found: Sent) -> None:
    """Where a study went, what went along, and how it is found again."""
    console, name, packed = out(), found.study, found.packed
    console.print(f"[bold]{name}[/bold] went to {escape(found.jobs)} as job {found.job}, for {escape(found.owner)}", soft_wrap=True)
    if packed.files:
        names = [str(file) for file in packed.files]
        more = f" and {len(names) - MOST_FILES} more" if names[MOST_FILES:] else ""
        files = f"{len(names)} files, {packed.size / 2**10:.1f} KiB, of {packed.root}: {', '.join(names[:MOST_FILES])}{more}"
        left_out = [f"{file} {why}" for file, why in packed.left_out.items()]
        rows = [("packed", files), *(("left out", line) for line in left_out[:MOST_LEFT_OUT])]
        more_left = [("left out", f"{len(left_out) - MOST_LEFT_OUT} more: --json names them")] if left_out[MOST_LEFT_OUT:] else []
        console.print(facts([*rows, *more_left]))
    else:
        console.print(facts([("packed", "no code: the trainer has to be installed on the cluster")]))
    ways = [(f"hpo status {name}", "how it stands"), (f"hpo logs {name} --follow", "what it writes")]
    ways += [(f"hpo stop {name}", "stop it"), (f"hpo resume {name}", "go on with it after a stop, a crash, or its end")]
    width = max(len(command) for command, _ in ways)
    console.print("\n" + "\n".join(f"  {command:<{width}}    {what}" for command, what in ways))

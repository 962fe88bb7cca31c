"""How a contest looks on a terminal. Text only: nothing here decides, reads or writes a study."""

from __future__ import annotations

from pathlib import Path

from rich.markup import escape
from rich.table import Table

from hpo.contest import Contest
from hpo.contest_words import Texts, reading, sentences, tables
from hpo.show import out


def contest(found: Contest, folder: Path) -> None:
    """The tables, how to read them, the answer in plain words, and where it was written to."""
    console = out()
    for texts in tables(found):
        console.print(escape(texts.title), style="bold")
        console.print(_table(texts))
        console.print()
    for line in reading(found):
        console.print(f"- {escape(line)}", style="dim")
    console.print()
    for line in sentences(found):
        console.print(escape(line))
    console.print(f"\ntable.md, table.json, curves.png and curves.svg are in {escape(str(folder))}")


def _table(texts: Texts) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for number, name in enumerate(texts.columns):
        table.add_column(escape(name), justify="right" if number else "left", overflow="fold")
    for row in texts.rows:
        table.add_row(*map(escape, row))
    return table

"""The few HTML elements of a report; what is put into them is escaped here. Knows no study."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from hpo.brief import short
from hpo.space import Params


def section(title: str, body: str) -> str:
    """A headed part of the page; `body` is HTML. Empty where the body is."""
    return f"<section><h2>{escape(title)}</h2>\n{body}</section>\n" if body else ""


def paragraph(text: str, *, note: bool = False) -> str:
    """A paragraph of plain text."""
    kind = ' class="note"' if note else ""
    return f"<p{kind}>{escape(text)}</p>\n"


def listed(params: Params) -> str:
    """`learning_rate 0.0012, width 122`"""
    return ", ".join(f"{name} {short(value)}" for name, value in params.items())


def facts(rows: Sequence[tuple[str, str]]) -> str:
    """Names at the left, what they are at the right."""
    cells = "".join(f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>\n' for name, value in rows)
    return f'<table class="facts"><tbody>{cells}</tbody></table>\n'


def table(names: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: int = 0) -> str:
    """A table with headed columns, the last `numbers` of them at their right edge; scrolls where it is too wide."""
    kinds = [' class="number"' if at >= len(names) - numbers else "" for at in range(len(names))]
    head = "".join(f"<th{kind}>{escape(name)}</th>" for name, kind in zip(names, kinds, strict=True))
    body = "".join(f"<tr>{''.join(f'<td{kind}>{escape(cell)}</td>' for cell, kind in zip(row, kinds, strict=True))}</tr>\n" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>\n'

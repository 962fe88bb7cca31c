"""What all commands share: the --json option, examples in --help, and how they end."""

from __future__ import annotations

import json
import sys
from typing import Any, NoReturn

import click

DONE, FAILURE, USAGE, NOTHING_SUCCEEDED, DAMAGED, STOPPED, INTERRUPTED = 0, 1, 2, 3, 65, 75, 130


as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for machines.")


def example(*lines: str) -> str:
    """The end of a command's --help."""
    return "\b\nExample:\n" + "\n".join(f"  {line}" for line in lines)


def print_json(value: Any) -> None:
    """Write `value` to standard output."""
    click.echo(json.dumps(value, indent=1, allow_nan=False))


def fail(message: str, code: int) -> NoReturn:
    """End with a message on standard error."""
    click.echo(message, err=True)
    sys.exit(code)

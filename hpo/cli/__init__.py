"""The command line: parse, call one function, print. Heavy imports stand inside the commands."""

from __future__ import annotations

import dataclasses
import os
import sys

import click

from hpo.cli.cluster import list_studies, logs
from hpo.cli.compare import compare
from hpo.cli.keeping import explain, replay, stop, track, trust, verify
from hpo.cli.machine import data, doctor, trainers
from hpo.cli.node import node
from hpo.cli.search import launch, plan, resume, validate
from hpo.cli.studies import best, delete, export, report, status, trials, ui
from hpo.cli.words import FAILURE, INTERRUPTED, fail, print_json


class Commands(click.Group):
    """The commands in the order in which a user meets them; an unknown one is answered with the nearest."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(self.commands)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            from hpo.problem import hint

            ctx.fail(f"no command is called {args[0]!r}; {hint(args[0], self.commands)}")
        return super().resolve_command(ctx, args)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="hpo")
def cli() -> None:
    """Search hyperparameters of PyTorch models; lose nothing; choose honestly.

    \b
    Example:
      hpo launch search_spaces/fashion.yaml
      hpo ui
    """


COMMANDS = (
    *(validate, plan, launch, resume, stop),
    *(list_studies, logs),
    *(status, report, trials, best, explain, compare, export),
    *(verify, replay, track, trust, delete),
    *(ui, data, trainers, doctor, node),
)
for command in COMMANDS:
    cli.add_command(command)


def _have_streams() -> None:
    """Fill closed standard streams, or the next file that is opened, a journal perhaps, takes their place and their output."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for name, number in (("stdin", 0), ("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w"))


def main() -> None:
    """Run a command; every foreseen error is one clear text and its exit code."""
    from hpo.errors import exit_code
    from hpo.redacted_output import excepthook
    from hpo.redaction import hidden

    _have_streams()
    sys.excepthook = excepthook
    hidden.add_environment(os.environ)
    try:
        cli(standalone_mode=False)
    except click.exceptions.Abort:
        fail("aborted", INTERRUPTED)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        fail("interrupted", INTERRUPTED)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(FAILURE)
    except Exception as error:
        code = exit_code(error)
        if code is None:
            raise
        if "--json" in sys.argv and hasattr(error, "problems"):
            print_json({"valid": False, "problems": [dataclasses.asdict(problem) for problem in error.problems]})
        fail(hidden(str(error)), code)

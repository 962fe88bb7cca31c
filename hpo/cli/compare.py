"""The command that compares: a tournament of samplers over a task, or studies that exist."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hpo.cli.words import INTERRUPTED, NOTHING_SUCCEEDED, STOPPED, as_json, example, print_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hpo.contest import Contest
    from hpo.tournament import Tournament

TOURNAMENT_ONLY = ("samplers", "repeats", "epochs", "trainer", "overrides", "local")


@click.command(
    epilog=example(
        "hpo compare search_spaces/fashion.yaml --samplers grid,random,tpe --repeats 5",
        "hpo compare my.yaml --samplers random,tpe+none,ladders+promote --repeats 6 --epochs 500",
        "hpo compare fashion-random fashion-tpe",
    )
)
@click.argument("what", nargs=-1, required=True, metavar="FILE | STUDY STUDY ...")
@click.option("--samplers", help="The arms, such as grid,random,tpe+none: +none, +stop or +promote say what happens at a rung.")
@click.option("--repeats", type=int, default=5, show_default=True, help="Rounds: each arm searches once in each, with the round's seed.")
@click.option(
    "--epochs", type=int, help="What each search may take. Without it budget.epochs, or what the file's own search is expected to."
)
@click.option("--set", "overrides", multiple=True, metavar="A.B=C", help="Change one value of the spec; may be repeated.")
@click.option("--trainer", metavar="PKG.MOD:FUNCTION", help="Train with a function of your own.")
@click.option("--name", help="Name of the comparison: its studies are called NAME-ARM-rN.")
@click.option("--local", is_flag=True, help="Run in this process, one trial at a time, without Ray.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where table and pictures go; without it compare-NAME in the study home.",
)
@as_json
def compare(what: tuple[str, ...], name: str | None, out: Path | None, as_json: bool, **options: Any) -> None:
    """Compare ways to search at equal epochs, with what chance makes of it.

    \b
    With a FILE: a tournament over its task. Every arm searches as often, with the same seeds and as many epochs, each
    search an ordinary study. The same command goes on with what was cut short; more --repeats add rounds.
    With STUDIES: those that exist; studies that differ only in seed and name are repeats of one arm.
    """
    if len(what) == 1 and _is_file(what[0]):
        signal.signal(signal.SIGTERM, _stopped)
        found = _tournament(Path(what[0]), name, as_json=as_json, **options)
    else:
        _refuse(what)
        found = _of_studies(what, name)
    folder = _write(found, out)
    if as_json:
        from hpo.contest_words import as_plain

        print_json(as_plain(found) | {"folder": str(folder)})
    else:
        from hpo import show_contest

        show_contest.contest(found, folder)
    if not found.deciding.arms:
        click.echo("no search found anything: `hpo trials STUDY` says why", err=True)
        sys.exit(NOTHING_SUCCEEDED)


def _stopped(*_: object) -> None:
    """What SIGTERM does between two studies, where there is nothing to clean up."""
    _how_to_go_on()
    os._exit(STOPPED)


def _is_file(text: str) -> bool:
    with suppress(OSError, ValueError):  # too long a name, or one with a zero byte
        return text.endswith((".yaml", ".yml")) or Path(text).is_file()
    return False


def _refuse(what: Sequence[str]) -> None:
    """End with a usage error where the words or options are none of a comparison of studies."""
    context = click.get_current_context()
    if files := [text for text in what if _is_file(text)]:
        raise click.UsageError(f"{files[0]} is a file: name one file alone, or studies alone")
    given = [p for p in TOURNAMENT_ONLY if context.get_parameter_source(p) is not click.core.ParameterSource.DEFAULT]
    if given:
        option = "--set" if given[0] == "overrides" else f"--{given[0]}"
        raise click.UsageError(f"{option} is for a tournament over a FILE; studies that exist are compared as they are")
    if len(what) < 2:
        raise click.UsageError(f"{what[0]}: one study is compared with nothing; name another, or a FILE (.yaml)")


def _tournament(
    file: Path,
    name: str | None,
    *,
    as_json: bool,
    samplers: str | None,
    repeats: int,
    epochs: int | None,
    overrides: Sequence[str],
    trainer: str | None,
    local: bool,
) -> Contest:
    if samplers is None:
        raise click.UsageError("name the arms, such as --samplers grid,random,tpe")
    from rich.console import Console

    from hpo.contest import of_tournament
    from hpo.tournament import tournament
    from hpo.tournament_rounds import play

    plan = tournament(file, samplers, repeats, epochs=epochs, name=name, overrides=overrides, trainer=trainer)
    _announce(plan)
    try:
        with redirect_stdout(sys.stderr if as_json else sys.stdout):  # a trainer's prints under --local are no JSON
            played = play(plan, local=local, console=Console(stderr=True), tell=lambda line: click.echo(line, err=True))
    except KeyboardInterrupt:
        _how_to_go_on()
        sys.exit(INTERRUPTED)
    if played.signal is not None:
        from hpo.interrupt import EXIT_CODES

        _how_to_go_on()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(EXIT_CODES[played.signal])  # as a launch does: Ray's libraries may take a second to unload
    return of_tournament(plan, played.studies)


def _announce(plan: Tournament) -> None:
    studies = f"{plan.repeats} rounds of {len(plan.arms)} searches" if plan.repeats > 1 else f"one round of {len(plan.arms)} searches"
    click.echo(f"{plan.name}: {studies}, each {plan.epochs:,} epochs ({plan.reason})", err=True)


def _how_to_go_on() -> None:
    click.echo("interrupted: the same command goes on; nothing that was measured is lost", err=True)


def _of_studies(names: Sequence[str], name: str | None) -> Contest:
    from hpo.contest_of_studies import of_studies
    from hpo.home import find, study_home
    from hpo.results import StoredStudy

    if name is not None:
        _check_name(name)
    studies = [StoredStudy.open(find(study_home(), each)) for each in names]
    return of_studies(name or f"{names[0]}-and-{len(names) - 1}-more", studies)


def _check_name(name: str) -> None:
    from hpo import names

    try:
        names.study(name)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--name") from None


def _write(found: Contest, out: Path | None) -> Path:
    """table.md, table.json and the curves, in `out` or the study home; what was there before is replaced."""
    import json

    from hpo import pictures_of_contest
    from hpo.contest_words import as_plain, markdown
    from hpo.home import HomeError, study_home
    from hpo.journal import FILE_NAME

    folder = out or study_home() / f"compare-{found.name}"
    if (folder / FILE_NAME).exists():
        raise HomeError(f"{folder} holds a study; choose another folder with --out")
    folder.mkdir(parents=True, exist_ok=True)
    paths = pictures_of_contest.save(found, folder)
    (folder / "table.md").write_text(markdown(found, paths[0].name), encoding="utf-8")
    (folder / "table.json").write_text(json.dumps(as_plain(found), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return folder

"""Commands that search: validate, plan, launch, resume."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hpo.cli.elsewhere import cluster_with, detach_options, refuse_beside, send, send_resume
from hpo.cli.words import NOTHING_SUCCEEDED, STOPPED, as_json, example, print_json

if TYPE_CHECKING:
    from hpo.results import StoredStudy
    from hpo.spec import Spec


def _spec_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(
        [
            click.argument("file", type=click.Path(path_type=Path)),
            click.option("--set", "overrides", multiple=True, metavar="A.B=C", help="Change one value of the spec; may be repeated."),
            click.option("--trainer", metavar="PKG.MOD:FUNCTION", help="Train with a function of your own."),
            click.option("--name", help="Name of the study; without it a name that is taken gets a number."),
            click.option("--trials", type=int, help="budget.trials."),
            click.option("--time", help="budget.time, such as 90s, 30m or 2h."),
            click.option("--epochs", type=int, help="budget.epochs: of all trials together."),
        ]
    ):
        command = option(command)
    return command


_address = click.option(
    "--address", metavar="auto|HOST:PORT", help="Join the Ray cluster there (RAY_ADDRESS): auto is this machine's; local is none."
)


def _load(file: Path, *, trainer: str | None, **options: Any) -> Spec:
    from hpo.spec import load_spec

    return load_spec(file, trainer_override=trainer, **options)


@click.command(epilog=example("hpo validate search_spaces/fashion.yaml"))
@_spec_options
@as_json
def validate(file: Path, as_json: bool, **options: Any) -> None:
    """Check a spec, and report every mistake in it at once."""
    spec = _load(file, **options)
    if as_json:
        print_json({"valid": True, "spec": spec.to_dict()})
    else:
        click.echo(f"{file}: valid ({len(spec.space)} hyperparameters searched by {spec.sampler.name}, {spec.budget.trials} trials)")


@click.command(epilog=example("hpo plan search_spaces/fashion.yaml --trials 100", "hpo plan search_spaces/fashion.yaml --simulate"))
@_spec_options
@_address
@click.option("--simulate", is_flag=True, help="Also search made-up learning curves, to show what the budget will do.")
@as_json
def plan(file: Path, address: str | None, simulate: bool, as_json: bool, **options: Any) -> None:
    """Show what a launch would do: trials, rungs, epochs, placement. Starts nothing."""
    from hpo import plan as planning
    from hpo.ground import ground
    from hpo.site import site

    spec = _load(file, **options)
    if any(name not in point for point in spec.start for name in spec.space):  # a function's defaults are in its own code
        from hpo.preparing import completed, trainer_of

        spec = completed(spec, trainer_of(spec))
    found, forecast = planning.plan(spec, ground(site(address), drives=False).there), None
    if simulate:
        from hpo.forecast import forecast as foresee

        forecast = foresee(spec, found.placement.slots)
    if as_json:
        import dataclasses

        print_json(dataclasses.asdict(found) | ({"forecast": dataclasses.asdict(forecast)} if forecast else {}))
    else:
        from hpo import show_plan

        show_plan.plan(found)
        if forecast:
            show_plan.forecast(forecast)


@click.command(epilog=example("hpo launch search_spaces/fashion.yaml", "hpo launch my.yaml --trainer my_code:train --trials 20 --time 10m"))
@_spec_options
@_address
@click.option("--or-resume", is_flag=True, help="Go on with the study of that name if there is one: a command that may be run again.")
@click.option("--local", is_flag=True, help="Run in this process, one trial at a time, without Ray: for debugging a trainer.")
@detach_options
@as_json
def launch(file: Path, address: str | None, or_resume: bool, local: bool, as_json: bool, **options: Any) -> None:
    """Run a search to its end and register the best model; or send it to a cluster with --detach."""
    _stop_by_sigterm()
    detach, jobs = options.pop("detach"), options.pop("jobs")
    spec = _load(file, **options)
    if detach or jobs:
        refuse_beside({"--address": address, "--or-resume": or_resume, "--local": local}, detach=detach)
        send(spec, jobs, exactly=options["name"] is not None, as_json=as_json)
        return
    from rich.console import Console

    from hpo.launching import launch_or_resume, launch_spec
    from hpo.site import site

    start = launch_or_resume if or_resume else partial(launch_spec, exactly=options["name"] is not None)
    with redirect_stdout(sys.stderr if as_json else sys.stdout):  # a trainer's prints under --local are no JSON
        study = start(spec, local=local, where=site(address), console=Console(stderr=True))
    conclude(study, as_json=as_json)


@click.command(epilog=example("hpo resume fashion", "hpo resume fashion --trials 200", "hpo resume fashion --time 2h"))
@click.argument("study")
@click.option("--trials", type=int, help="A new budget.trials, in all.")
@click.option("--time", help="A new budget.time, in all, such as 90s, 30m or 2h.")
@click.option("--epochs", type=int, help="A new budget.epochs, of all trials together.")
@click.option("--open-test-again", is_flag=True, help="Open the test split once more, for the model as it is then; the record says so.")
@_address
@click.option("--local", is_flag=True, help="Run in this process, one trial at a time, without Ray: for debugging a trainer.")
@detach_options
@as_json
def resume(study: str, address: str | None, local: bool, as_json: bool, **choices: Any) -> None:
    """Go on with a study: after a crash, a stop, or its end.

    No result is lost; trials that were running go on from their checkpoints. With --trials, --time or --epochs a study
    that is over gets a larger budget: its search goes on, and the finals after it. A study that is not here but on the
    cluster goes on there.
    """
    _stop_by_sigterm()
    detach, jobs = choices.pop("detach"), choices.pop("jobs")
    if detach:
        refuse_beside({"--address": address, "--local": local}, detach=True)
    if detach or not (local or address or cluster_with(study, jobs) is None):
        send_resume(study, choices, jobs, as_json=as_json)
        return
    from rich.console import Console

    from hpo.home import find, study_home
    from hpo.resuming import resume_study
    from hpo.site import site

    with redirect_stdout(sys.stderr if as_json else sys.stdout):
        folder = find(study_home(), study)
        found = resume_study(folder, **choices, local=local, where=site(address), console=Console(stderr=True))
    conclude(found, as_json=as_json)


def _stop_by_sigterm() -> None:
    """Have SIGTERM end this command as one that can be resumed, before the search begins and after it, too."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(STOPPED))  # nothing needs cleaning yet, and code of a user's may be in between


def conclude(study: StoredStudy, *, as_json: bool) -> None:
    """Show what a search came to, and end with its exit code."""
    from hpo import show
    from hpo.interrupt import EXIT_CODES

    if as_json:
        from hpo.study_json import study_json

        print_json(study_json(study))
    else:
        show.summary(study)
    if study.signal is not None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(EXIT_CODES[study.signal])  # Ray's libraries may take a second to unload, and five in all were promised
    if study.best is None:
        click.echo("no trial succeeded:", err=True)
        for line in show.failures(study) or ["the search ended before any trial reported"]:
            click.echo(f"  {line}", err=True)
        sys.exit(NOTHING_SUCCEEDED)

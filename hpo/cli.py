"""The command line: parse, call one function, print. Heavy imports stand inside the commands."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

if TYPE_CHECKING:
    from hpo.results import StoredStudy
    from hpo.spec import Spec

DONE, FAILURE, USAGE, NOTHING_SUCCEEDED, INTERRUPTED = 0, 1, 2, 3, 130

_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for machines.")


def _example(*lines: str) -> str:
    return "\b\nExample:\n" + "\n".join(f"  {line}" for line in lines)


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


def _spec_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(
        [
            click.argument("file", type=click.Path(path_type=Path)),
            click.option("--set", "overrides", multiple=True, metavar="A.B=C", help="Change one value of the spec; may be repeated."),
            click.option("--trainer", metavar="PKG.MOD:FUNCTION", help="Train with a function of your own."),
            click.option("--name", help="Name of the study; without it a name that is taken gets a number."),
            click.option("--trials", type=int, help="budget.trials."),
            click.option("--time", help="budget.time, such as 90s, 30m or 2h."),
        ]
    ):
        command = option(command)
    return command


def _load(file: Path, *, trainer: str | None, **options: Any) -> Spec:
    from hpo.spec import load_spec

    return load_spec(file, trainer_override=trainer, **options)


@cli.command(epilog=_example("hpo validate search_spaces/fashion.yaml"))
@_spec_options
@_json
def validate(file: Path, as_json: bool, **options: Any) -> None:
    """Check a spec, and report every mistake in it at once."""
    spec = _load(file, **options)
    if as_json:
        _print_json({"valid": True, "spec": spec.to_dict()})
    else:
        click.echo(f"{file}: valid ({len(spec.space)} hyperparameters searched by {spec.sampler.name}, {spec.budget.trials} trials)")


@cli.command(epilog=_example("hpo plan search_spaces/fashion.yaml --trials 100"))
@_spec_options
@_json
def plan(file: Path, as_json: bool, **options: Any) -> None:
    """Show what a launch would do: trials, rungs, epochs, placement. Starts nothing."""
    from hpo import plan as planning
    from hpo.capacity import this_machine

    found = planning.plan(_load(file, **options), this_machine())
    if as_json:
        import dataclasses

        _print_json(dataclasses.asdict(found))
    else:
        from hpo import show

        show.plan(found)


@cli.command(epilog=_example("hpo launch search_spaces/fashion.yaml", "hpo launch my.yaml --trainer my_code:train --trials 20 --time 10m"))
@_spec_options
@click.option("--local", is_flag=True, help="Run in this process, one trial at a time, without Ray: for debugging a trainer.")
@_json
def launch(file: Path, local: bool, as_json: bool, **options: Any) -> None:
    """Run a search to its end and register the best model."""
    spec = _load(file, **options)
    from rich.console import Console

    from hpo.launching import launch_spec

    study = launch_spec(spec, exactly=options["name"] is not None, local=local, console=Console(stderr=True))
    if as_json:
        _print_json(_study_json(study))
    else:
        from hpo import show

        show.summary(study)
    if study.state == "interrupted":
        sys.exit(INTERRUPTED)
    if study.best is None:
        from hpo import show

        click.echo("no trial succeeded:", err=True)
        for line in show.failures(study) or ["the search ended before any trial reported"]:
            click.echo(f"  {line}", err=True)
        sys.exit(NOTHING_SUCCEEDED)


@cli.command(epilog=_example("hpo status", "hpo status fashion --json"))
@click.argument("study", required=False)
@_json
def status(study: str | None, as_json: bool) -> None:
    """Show how a study stands, or all of them."""
    found = [_open(study)] if study else _all()
    if as_json:
        _print_json([_study_json(one) for one in found])
    elif not found:
        click.echo("no studies yet: start one with `hpo launch FILE`")
    else:
        from hpo import show

        show.status(found)


@cli.command(epilog=_example("hpo trials fashion", "hpo trials fashion --json"))
@click.argument("study")
@_json
def trials(study: str, as_json: bool) -> None:
    """List a study's trials: parameters, values, and why each ended."""
    found = _open(study)
    if as_json:
        click.echo(found.trials_dataframe().to_json(orient="records", indent=1))
    else:
        from hpo import show

        show.trials(found)


@cli.command(epilog=_example("hpo best fashion"))
@click.argument("study")
@_json
def best(study: str, as_json: bool) -> None:
    """Show the best trial, where its model is and how to load it."""
    found = _open(study)
    if found.best is None:
        _fail(f"study {found.name} has no measured trial yet (it is {found.state}, {len(found.trials)} trials)", NOTHING_SUCCEEDED)
    if as_json:
        _print_json(_study_json(found)["best"])
    else:
        from hpo import show

        show.best(found)


@cli.command(epilog=_example("hpo delete fashion-2 --yes"))
@click.argument("study")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_json
def delete(study: str, yes: bool, as_json: bool) -> None:
    """Remove a study's journal and checkpoints. What MLflow recorded stays there."""
    from hpo import home

    folder = home.find(home.study_home(), study)
    if not yes:
        click.confirm(f"remove {folder} with its journal and checkpoints?", abort=True, err=True)
    home.delete(folder)
    if as_json:
        _print_json({"deleted": str(folder)})
    else:
        click.echo(f"removed {folder}")


@cli.command(epilog=_example("hpo ui", "hpo ui --port 5001"))
@click.option("--port", default=5000, show_default=True, type=click.IntRange(1, 65535))
@_json
def ui(port: int, as_json: bool) -> None:
    """Serve the MLflow UI of the study home on 127.0.0.1 until Ctrl-C."""
    import socket
    import subprocess

    from hpo import home, tracking

    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            _fail(f"port {port} on 127.0.0.1 cannot be used: {error.strerror}; choose another with --port", FAILURE)
    url = f"http://127.0.0.1:{port}"
    if as_json:
        _print_json({"url": url})
    else:
        click.echo(f"MLflow UI on {url} (Ctrl-C ends it)", err=True)
    sys.stdout.flush()
    sys.exit(subprocess.run(tracking.ui_command(home.study_home(), port=port), check=False).returncode)


@cli.group()
def data() -> None:
    """Fetch the datasets that the built-in trainers use."""


@data.command("get", epilog=_example("hpo data get fashion-mnist"))
@click.argument("name")
@_json
def data_get(name: str, as_json: bool) -> None:
    """Find a dataset on this machine or download it, and check it."""
    from hpo import data as datasets

    path = datasets.get(name, progress=sys.stderr.isatty() and not as_json)
    if as_json:
        _print_json({"name": name, "path": str(path)})
    else:
        click.echo(f"{name} is in {path}")


@cli.command(epilog=_example("hpo trainers"))
@_json
def trainers(as_json: bool) -> None:
    """List the trainers that are installed, with everything they take."""
    import dataclasses

    from hpo.declarations import declared, plugin_problems

    found = declared()
    if as_json:
        _print_json([dataclasses.asdict(trainer) for trainer in found.values()])
    else:
        from hpo import show

        show.trainers(found)
    for problem in plugin_problems():
        click.echo(str(problem), err=True)


@cli.command(epilog=_example("hpo doctor"))
@_json
def doctor(as_json: bool) -> None:
    """Say what is wrong on this machine, and how to mend it.

    Looks at Python, torch, devices, Ray, MLflow, data and free disk.
    """
    import dataclasses

    from hpo import doctor as examining
    from hpo.home import study_home

    checks = examining.examine(study_home())
    if as_json:
        _print_json([dataclasses.asdict(check) for check in checks])
    else:
        from hpo import show

        show.doctor(checks)
    sys.exit(DONE if all(check.ok for check in checks) else FAILURE)


def _open(name: str) -> StoredStudy:
    from hpo.home import find, study_home
    from hpo.results import StoredStudy

    return StoredStudy.open(find(study_home(), name))


def _all() -> list[StoredStudy]:
    from hpo.home import studies, study_home
    from hpo.results import StoredStudy

    return [StoredStudy.open(folder) for folder in studies(study_home())]


def _study_json(study: StoredStudy) -> dict[str, Any]:
    found = study.best
    best = found and {
        "trial": found.trial,
        "metric": found.metric,
        "value": found.value,
        "epoch": found.epoch,
        "params": dict(found.params),
        "seed": found.seed,
        "checkpoint": str(found.checkpoint) if found.checkpoint else None,
        "model_uri": found.model_uri,
        "tracking_uri": found.tracking_uri,
        "how_to_load": found.how_to_load,
    }
    counts = {state.value: count for state, count in study.counts.items()}
    return {
        "study": study.name,
        "folder": str(study.folder),
        "state": study.state,
        "trials": counts,
        "epochs": study.epochs,
        "seconds": study.seconds,
        "best": best,
        "recorded": bool(study.tracking and study.tracking.done),
    }


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=1, allow_nan=False))


def _fail(message: str, code: int) -> NoReturn:
    click.echo(message, err=True)
    sys.exit(code)


def main() -> None:
    """Run a command; every foreseen error is one clear text and its exit code."""
    from hpo.errors import exit_code

    try:
        cli(standalone_mode=False)
    except click.exceptions.Abort:
        _fail("aborted", INTERRUPTED)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        _fail("interrupted", INTERRUPTED)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(FAILURE)
    except Exception as error:
        code = exit_code(error)
        if code is None:
            raise
        if "--json" in sys.argv and hasattr(error, "problems"):
            _print_json({"valid": False, "problems": [{**_fields(problem)} for problem in error.problems]})
        _fail(str(error), code)


def _fields(problem: Any) -> dict[str, Any]:
    import dataclasses

    return dataclasses.asdict(problem)

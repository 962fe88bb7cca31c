"""Commands about this machine: data, trainers, doctor."""

from __future__ import annotations

import sys

import click

from hpo.cli.words import DONE, FAILURE, as_json, example, print_json


@click.group()
def data() -> None:
    """Fetch the datasets that the built-in trainers use."""


@data.command("get", epilog=example("hpo data get fashion-mnist"))
@click.argument("name")
@as_json
def data_get(name: str, as_json: bool) -> None:
    """Find a dataset on this machine or download it, and check it."""
    from hpo import data as datasets
    from hpo.problem import hint

    if name not in datasets.DATASETS:
        raise click.BadParameter(f"no dataset is called {name!r}; {hint(name, datasets.DATASETS)}", param_hint="NAME")
    path = datasets.get(name, progress=sys.stderr.isatty() and not as_json)
    if as_json:
        print_json({"name": name, "path": str(path), "licence": datasets.DATASETS[name].licence})
    else:
        click.echo(f"{name} is in {path} (licence: {datasets.DATASETS[name].licence})")


@click.command(epilog=example("hpo trainers"))
@as_json
def trainers(as_json: bool) -> None:
    """List the trainers that are installed, with everything they take."""
    import dataclasses

    from hpo.declarations import declared, plugin_problems

    found = declared()
    if as_json:
        print_json([dataclasses.asdict(trainer) for trainer in found.values()])
    else:
        from hpo import show

        show.trainers(found)
    for problem in plugin_problems():
        click.echo(str(problem), err=True)


@click.command(epilog=example("hpo doctor"))
@as_json
def doctor(as_json: bool) -> None:
    """Say what is wrong on this machine, and how to mend it.

    Looks at Python, torch, devices, Ray, MLflow, data and free disk.
    """
    import dataclasses

    from hpo import doctor as examining
    from hpo.home import study_home

    checks = examining.examine(study_home())
    if as_json:
        print_json([dataclasses.asdict(check) for check in checks])
    else:
        from hpo import show

        show.checks(checks)
    sys.exit(DONE if all(check.ok for check in checks) else FAILURE)

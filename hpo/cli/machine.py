"""Commands about this machine: data, trainers, doctor."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from hpo.cli.words import DONE, FAILURE, as_json, example, print_json

if TYPE_CHECKING:
    from hpo.data import Dataset, Found


@click.group()
def data() -> None:
    """List, find and fetch the datasets that the built-in trainers use."""


@data.command("list", epilog=example("hpo data list"))
@as_json
def data_list(as_json: bool) -> None:
    """Say of every dataset where it is, how it is split, and what to beware of.

    Splits are training / validation / test; the test part is sealed: no trial reads it.
    """
    from hpo import data as datasets

    listed = {name: (known, datasets.find(name)) for name, known in datasets.DATASETS.items()}
    if as_json:
        print_json([_described(known, found) for known, found in listed.values()])
        return
    from hpo import show

    for name, (known, found) in listed.items():
        where = f"{found.folder} ({found.place})" if found else f"not on this machine: hpo data get {name}"
        size = f"{known.size / 1e6:,.1f} MB" if known.size else f"comes with {known.python_package}"
        rows = [("where", where), ("size", size), ("licence", known.licence), ("splits", known.splits), ("beware", known.traps)]
        rows += [("without", f"{file.name}: {file.optional}") for file in (found.lacks if found else ())]
        click.secho(name, bold=True)
        show.out().print(show.facts([(f"  {title}", text) for title, text in rows]))


@data.command("path", epilog=example("hpo data path mnist"))
@click.argument("name")
@as_json
def data_path(name: str, as_json: bool) -> None:
    """Print the folder that a dataset is in, or all ways to get it; fetches and checks nothing."""
    from hpo import data as datasets

    _refuse_unknown(name)
    path = datasets.locate(name)
    if as_json:
        print_json(_described(datasets.dataset(name), datasets.find(name)))
    else:
        click.echo(str(path))


@data.command("get", epilog=example("hpo data get fashion-mnist"))
@click.argument("name")
@as_json
def data_get(name: str, as_json: bool) -> None:
    """Find a dataset on this machine or download it, and check it.

    A download that breaks off goes on where it ended when you ask again.
    """
    from hpo import data as datasets

    _refuse_unknown(name)
    path = datasets.get(name, progress=sys.stderr.isatty() and not as_json)
    known, found = datasets.dataset(name), datasets.find(name)
    if as_json:
        print_json(_described(known, found))
        return
    click.echo(f"{name} is in {path} (licence: {known.licence})")
    for file in found.lacks if found else ():
        click.echo(f"without {file.name}: {file.optional}")


def _refuse_unknown(name: str) -> None:
    from hpo.data import DATASETS
    from hpo.problem import hint

    if name not in DATASETS:
        raise click.BadParameter(f"no dataset is called {name!r}; {hint(name, DATASETS)}", param_hint="NAME")


def _described(known: Dataset, found: Found | None) -> dict[str, Any]:
    return {
        "name": known.name,
        "path": str(found.folder) if found else None,
        "place": found.place if found else None,
        "without": [file.name for file in found.lacks] if found else [],
        "bytes": known.size,
        "licence": known.licence,
        "splits": known.splits,
        "traps": known.traps,
        "address": known.address,
    }


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

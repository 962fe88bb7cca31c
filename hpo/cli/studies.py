"""Commands about studies that exist: status, report, trials, best, delete, ui."""

from __future__ import annotations

import dataclasses
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hpo.cli.elsewhere import or_elsewhere
from hpo.cli.words import DAMAGED, FAILURE, NOTHING_SUCCEEDED, as_json, example, fail, print_json
from hpo.study_json import report_json, study_json

if TYPE_CHECKING:
    from hpo.results import StoredStudy


@click.command(epilog=example("hpo status", "hpo status fashion --json"))
@click.argument("study", required=False)
@as_json
@or_elsewhere("status")
def status(study: str | None, as_json: bool) -> None:
    """Show how a study stands and what pruning did in it, or how all of them stand; exits with 65 if one cannot be read."""
    found, unreadable = ([_open(study)], False) if study else _all()
    if as_json:
        print_json([study_json(one) | (report_json(one) if study else {}) for one in found])
    elif not found and not unreadable:
        click.echo("no studies yet: start one with `hpo launch FILE`")
    else:
        from hpo import show

        show.status(found)
        if study:
            from hpo import show_report
            from hpo.reporting import report as report_of

            show.out().print(show.facts(show_report.pruning(report_of(found[0]))))
    if unreadable:
        sys.exit(DAMAGED)


@click.command(epilog=example("hpo report fashion", "hpo report fashion --out pictures", "hpo report fashion --json"))
@click.argument("study")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Where page and pictures go; else the study's folder.")
@as_json
def report(study: str, out: Path | None, as_json: bool) -> None:
    """Show how good the chosen model is, what pruning did, and what to change; draw it all as one HTML page, PNG and SVG.

    \b
    A false stop is a trial that was not among the best of a rung and would have ended better than the median of those that
    were trained to their end. `pruner.audit: 0.05` trains one of twenty such trials to its end, to know how many there are.
    """
    found = _open(study)
    if as_json:
        from hpo.findings import findings

        print_json(report_json(found) | {"findings": [dataclasses.asdict(one) for one in findings(found)]})
        return
    from hpo import show, show_report
    from hpo.findings import findings
    from hpo.html_report import write_all
    from hpo.reporting import report as report_of

    show_report.report(report_of(found))
    if found.best is not None:
        show.out().print(show.facts(show.choice(found)))
    for one in findings(found):
        show.finding(one)
    click.echo(write_all(found, out or found.folder / "report"))


@click.command(epilog=example("hpo trials fashion", "hpo trials fashion --json"))
@click.argument("study")
@as_json
@or_elsewhere()
def trials(study: str, as_json: bool) -> None:
    """List a study's trials: parameters, values, and why each ended."""
    found = _open(study)
    if as_json:
        frames = [found.trials_dataframe(finals=finals).astype(object) for finals in (False, True)]
        print_json([row for frame in frames for row in frame.where(frame.notna(), None).to_dict("records")])
    else:
        from hpo import show

        show.trials(found)


@click.command(epilog=example("hpo best fashion"))
@click.argument("study")
@as_json
@or_elsewhere()
def best(study: str, as_json: bool) -> None:
    """Show the best trial, where its model is and how to load it."""
    found = _open(study)
    if found.best is None:
        fail(f"study {found.name} has no measured trial yet (it is {found.state}, {len(found.trials)} trials)", NOTHING_SUCCEEDED)
    if as_json:
        print_json(study_json(found)["best"])
    else:
        from hpo import show

        show.best(found)


@click.command(epilog=example("hpo export fashion model"))
@click.argument("study")
@click.argument("folder", type=click.Path(path_type=Path))
@as_json
def export(study: str, folder: Path, as_json: bool) -> None:
    """Write the chosen model into a new FOLDER: safetensors and JSON, its parameters, a model card."""
    from hpo.exporting import export as export_study

    files = export_study(_open(study), folder)
    if as_json:
        print_json({"files": [str(file) for file in files]})
    else:
        for file in files:
            click.echo(file)


@click.command(epilog=example("hpo delete fashion-2 --yes"))
@click.argument("study")
@click.option("--yes", is_flag=True, help="Do not ask.")
@as_json
def delete(study: str, yes: bool, as_json: bool) -> None:
    """Remove a study's journal and checkpoints. What MLflow recorded stays there."""
    from hpo import home, trust

    folder = home.find_to_delete(home.study_home(), study)
    root = home.kept_elsewhere(folder)
    trust.require(trust.of_storage(root or folder), study)
    if not yes:
        where = f", and its checkpoints in {root}" if root else " and checkpoints"
        click.confirm(f"remove {folder} with its journal{where}?", abort=True, err=True)
    removed = home.delete(folder)
    if as_json:
        print_json({"deleted": str(folder), "checkpoints": str(removed[0])})
    else:
        click.echo(f"removed {' and '.join(map(str, reversed(removed)))}")


@click.command(epilog=example("hpo ui", "hpo ui --port 5001"))
@click.option("--host", default="127.0.0.1", show_default=True, help="An address of this machine that only it can reach.")
@click.option("--port", default=5000, show_default=True, type=click.IntRange(1, 65535))
@as_json
def ui(host: str, port: int, as_json: bool) -> None:
    """Serve the MLflow UI of the study home on 127.0.0.1 until Ctrl-C. It asks nobody for a password."""
    import os
    import socket

    from hpo import home, tracking

    if not _is_loopback(host):
        raise click.BadParameter(
            f"{host} can be reached from other machines, and `hpo ui` asks nobody for a password. To look from another machine: "
            f"ssh -L {port}:127.0.0.1:{port} {socket.gethostname()}. For several people: a server with users, infra/mlflow/README.md",
            param_hint="--host",
        )
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            fail(f"port {port} on {host} cannot be used: {error.strerror}; choose another with --port", FAILURE)
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    if as_json:
        print_json({"url": url})
    else:
        click.echo(f"MLflow UI on {url} (Ctrl-C ends it)", err=True)
        pages = _pages(url)
        click.echo("choose *Model training* if MLflow opens in GenAI" + ("; straight to the newest studies:" if pages else ""), err=True)
        for name, page in pages:
            click.echo(f"  {name}: {page}", err=True)
    sys.stdout.flush()
    tracking.make_database(home.study_home())
    command = tracking.ui_command(home.study_home(), host, port)
    os.chdir("/")  # MLflow starts a server that imports from the current folder before all else, and that may be a stranger's
    os.execv(command[0], command)  # in this process's place, so that who stops it stops the server


def _is_loopback(host: str) -> bool:
    from ipaddress import ip_address

    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _pages(url: str, most: int = 5) -> list[tuple[str, str]]:
    """The newest studies that this home's own database has, and where their trials are in the UI."""
    from hpo import home, tracking
    from hpo.events import Created
    from hpo.journal import FILE_NAME
    from hpo.journal_format import JournalError
    from hpo.mlflow_view import address
    from hpo.projection import study_id
    from hpo.results import StoredStudy

    here = home.study_home()
    found: list[tuple[str, str]] = []
    for folder in sorted(home.studies(here), key=lambda folder: -(folder / FILE_NAME).stat().st_mtime):
        state = tracking.read_state(folder)
        if len(found) < most and state is not None and state.experiment_id and state.uri == tracking.database_uri(here):
            with suppress(JournalError):  # `hpo status` names what cannot be read
                record = StoredStudy.open(folder).records[0]
                assert isinstance(record.event, Created)
                found.append((folder.name, address(url, state.experiment_id, study_id(record, record.event))))
    return found


def _open(name: str) -> StoredStudy:
    from hpo.home import find, study_home
    from hpo.results import StoredStudy

    return StoredStudy.open(find(study_home(), name))


def _all() -> tuple[list[StoredStudy], bool]:
    """The studies that can be read, and whether there are others; these are complained of."""
    from hpo.home import studies, study_home
    from hpo.journal_format import JournalError
    from hpo.results import StoredStudy

    found, unreadable = [], False
    for folder in studies(study_home()):
        try:
            study = StoredStudy.open(folder)
            study.study  # noqa: B018  # folded here, where it may be refused
            found.append(study)
        except JournalError as error:  # one damaged study must not hide the others
            click.echo(str(error), err=True)
            unreadable = True
    return found, unreadable

"""Commands about many studies and machines: list, logs."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from hpo.cli.elsewhere import jobs_option
from hpo.cli.words import DAMAGED, DONE, FAILURE, as_json, example, print_json


@click.command("list", epilog=example("hpo list", "hpo list --jobs http://127.0.0.1:8265", "hpo list --json"))
@click.option("--here", is_flag=True, help="Only the studies of this home; ask no cluster.")
@jobs_option
@as_json
def list_studies(here: bool, jobs: str | None, as_json: bool) -> None:
    """List all studies, those here and those on the cluster: whose they are, where they run and how they stand.

    Exits with 1 if a cluster does not answer, and with 65 if a study here cannot be read.
    """
    from hpo import detached, listing
    from hpo.engine.ray_token import TokenError
    from hpo.errors import ClusterError
    from hpo.home import study_home

    home = study_home()
    mine, others, code = listing.here(home), [], DONE
    for address in () if here else detached.servers(jobs, home):
        try:
            others.append(detached.studies_of(detached.connected(address)))
        except (ClusterError, TokenError) as error:  # what is here can be listed all the same
            click.echo(str(error), err=True)
            code = FAILURE
    found = listing.side_by_side(mine, *others)
    if as_json:
        print_json([row.to_json() for row in found])
    elif not found:
        click.echo("no studies yet: start one with `hpo launch FILE`")
    else:
        from hpo import show_list

        show_list.studies(found)
    sys.exit(DAMAGED if any(row.state == listing.UNREADABLE for row in mine) else code)


@click.command(epilog=example("hpo logs fashion", "hpo logs fashion --follow"))
@click.argument("study")
@click.option("--follow", "-f", is_flag=True, help="Go on as it is written, until the study's driver ends.")
@jobs_option
@as_json
def logs(study: str, follow: bool, jobs: str | None, as_json: bool) -> None:
    """Show what a study's driver writes: on a cluster its job's log, here the log of Ray and the search.

    What a trial wrote stands in its own files: `hpo explain STUDY TRIAL` names them.
    """
    from hpo import detached
    from hpo.home import find, study_home

    home = study_home()
    address = detached.server(jobs, home, study)
    if address is None or (detached.is_here(home, study) and not detached.was_sent(home, study)):
        parts = detached.local_log(find(home, study), follow=follow)
        where: str | Path = find(home, study)
    else:
        where, parts = detached.log(detached.connected(address), study, follow=follow)
    if as_json:
        print_json({"study": study, "log": str(where), "text": "".join(parts)})
        return
    for part in parts:
        click.echo(part, nl=False)

"""Commands whose study may be on a cluster: where it is not in the local home, they are run on the head instead."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

from hpo.cli.words import print_json

if TYPE_CHECKING:
    from hpo.engine.ray_jobs import Jobs
    from hpo.spec import Spec
    from hpo.submissions import Answer
    from hpo.submitting import Sent

jobs_option = click.option("--jobs", metavar="URL", help="The job server of a cluster, such as http://127.0.0.1:8265.")


def detach_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of commands that can have their search run as a job of a cluster."""
    detach = click.option("--detach", is_flag=True, help="Have it run on the head of a cluster, and return at once.")
    return detach(jobs_option(command))


def refuse_beside(others: Mapping[str, object], *, detach: bool) -> None:
    """UsageError where --detach is given beside an option that says otherwise, or --jobs without it."""
    if not detach:
        raise click.UsageError("--jobs is the address for --detach: give both, or --address to join the cluster from here")
    for name, given in others.items():
        if given:
            raise click.UsageError(f"--detach has the search run on the cluster's head: leave {name} out")


def or_elsewhere(there: str = "ask") -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Have a command answer for studies of a cluster too, by the function of `hpo.detached` that is called `there`."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @jobs_option
        @functools.wraps(command)
        def here_or_there(*, study: str | None, jobs: str | None, **options: Any) -> None:
            if study is None or (found := cluster_with(study, jobs)) is None:
                command(study=study, **options)
                return
            from hpo import detached

            pass_on(getattr(detached, there)(found, study, words_of(click.get_current_context()), as_json=options["as_json"]))

        return here_or_there

    return decorate


def cluster_with(study: str, jobs: str | None) -> Jobs | None:
    """The cluster on which a study is looked for because it is not here; None if it is here, or no cluster is known.

    ClusterError, which says both, if the cluster does not answer.
    """
    from hpo import detached
    from hpo.errors import ClusterError
    from hpo.home import study_home

    home = study_home()
    if detached.is_here(home, study) or (address := detached.server(jobs, home, study)) is None:
        return None
    try:
        return detached.connected(address)
    except ClusterError as error:
        raise ClusterError(f"no study is called {study!r} in {home}, and it may be on a cluster, but {error}") from None


def words_of(context: click.Context) -> list[str]:
    """The command and its options and arguments, as they could have been typed; without --jobs."""
    options, arguments = [], []
    for parameter in context.command.params:
        value = context.params.get(parameter.name or "")
        if isinstance(parameter, click.Argument):
            arguments.append(str(value))
        elif parameter.name != "jobs":
            options += _option(parameter.opts[0], value)
    return [context.info_name or "", *options, "--", *arguments]


def _option(name: str, value: Any) -> list[str]:
    if value is None or value is False:
        return []
    return [name] if value is True else [name, str(value)]


def pass_on(answer: Answer) -> None:
    """Write what a command wrote on the head, and end as it did."""
    click.echo(answer.out, nl=False)
    click.echo(answer.err, nl=False, err=True)
    sys.exit(answer.code)


def send(spec: Spec, jobs: str | None, *, exactly: bool, as_json: bool) -> None:
    """Send a study to the cluster and say how it is found again."""
    from hpo import submitting
    from hpo.detached import connected
    from hpo.home import study_home

    home = study_home()
    packed = submitting.checked(spec, home)
    shown(submitting.launch(spec, packed, connected(_known(jobs)), home, exactly=exactly), as_json=as_json)


def send_resume(study: str, choices: Mapping[str, Any], jobs: str | None, *, as_json: bool) -> None:
    """Go on with a study on the cluster, with what was chosen of the options of `hpo resume`."""
    from hpo import submitting
    from hpo.detached import connected
    from hpo.home import study_home

    options = [word for name, value in choices.items() for word in _option(f"--{name.replace('_', '-')}", value)]
    shown(submitting.resume(study, options, connected(_known(jobs, study)), study_home()), as_json=as_json)


def _known(jobs: str | None, study: str | None = None) -> str:
    from hpo import detached
    from hpo.home import study_home
    from hpo.site import file

    address = detached.server(jobs, study_home(), study)
    if address is None:
        raise detached.DetachError(
            f"no cluster is known: give the address of its job server, --jobs http://127.0.0.1:8265, or write it as cluster.jobs into "
            f"{file()} (`hpo node --head --jobs` starts one)"
        )
    return address


def shown(sent: Sent, *, as_json: bool) -> None:
    """Say where a study went, with which files, and how it is found again."""
    packed, name = sent.packed, sent.study
    if as_json:
        plain = {"study": name, "job": sent.job, "jobs": sent.jobs, "owner": sent.owner, "packed": [str(file) for file in packed.files]}
        print_json(plain | {"left_out": {str(file): why for file, why in packed.left_out.items()}})
        return
    from hpo import show_list

    show_list.sent(sent)

"""The command that makes this machine a node of a Ray cluster."""

from __future__ import annotations

import sys
from ipaddress import ip_address
from typing import Any

import click

from hpo.cli.words import as_json, example, print_json

MOST = 10**9


class Amount(click.ParamType[Any]):
    """NAME=AMOUNT of a custom resource."""

    name = "NAME=AMOUNT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, float]:
        from hpo.sections import RAYS_OWN

        name, _, amount = str(value).partition("=")
        if not name or not amount.isdecimal() or not 0 < int(amount) < MOST:
            self.fail(f"{value!r} is no resource; write NAME=AMOUNT with a whole number, such as a100=4", param, ctx)
        if name.lower() in RAYS_OWN:
            self.fail(f"{name} is no custom resource; use --cpus and --gpus", param, ctx)
        return name, float(amount)


def _address_of_node(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:  # noqa: ARG001
    if value is not None:
        try:
            ip_address(value)
        except ValueError:
            raise click.BadParameter(f"{value!r} is no IP address; give this machine's, such as 10.0.0.1") from None
    return value


@click.command(epilog=example("hpo node --head --ip 10.0.0.1", "hpo node --address 10.0.0.1:6379 --resource a100=8"))
@click.option("--head", is_flag=True, help="The first node, which the others join; searches run here, and keep their journals.")
@click.option("--address", metavar="HOST:PORT", help="Join the cluster whose head is there.")
@click.option("--ip", metavar="IP", callback=_address_of_node, help="This machine's address for the other nodes; else Ray's guess.")
@click.option("--port", type=click.IntRange(1, 65_535), default=6379, show_default=True, help="The head's port.")
@click.option("--jobs", is_flag=True, help="Take jobs (hpo launch --detach), on 127.0.0.1:8265; for the head.")
@click.option("--cpus", type=click.IntRange(0), help="Processors to offer; else all.")
@click.option("--gpus", type=click.IntRange(0), help="GPUs to offer; else all.")
@click.option("--resource", "custom", type=Amount(), multiple=True, help="A custom resource (resources.custom); may be repeated.")
@as_json
def node(head: bool, address: str | None, custom: tuple[tuple[str, float], ...], as_json: bool, **options: Any) -> None:
    """Make this machine a node of a Ray cluster, until Ctrl-C or SIGTERM.

    It is `ray start` that strangers cannot use: every port demands a token. The head makes the token if there is none, in
    ~/.ray/auth_token or the file that RAY_AUTH_TOKEN_PATH names, for you alone; give every node and whoever launches searches a copy.
    """
    if head == (address is not None):
        raise click.UsageError("give either --head, for the first node, or --address HOST:PORT, to join one")
    names = [name for name, _ in custom]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise click.UsageError(f"--resource names {', '.join(twice)} twice; give each once")
    if options["jobs"] and not head:
        raise click.UsageError("--jobs is for the head: jobs are taken there")
    from hpo.engine import ray_node

    if options["port"] in ray_node.TAKEN:
        taken = f"{ray_node.TAKEN.start} to {ray_node.TAKEN.stop - 1}"
        raise click.BadParameter(f"{options['port']} is one of the ports of Ray's workers ({taken}); choose another", param_hint="--port")
    from hpo.site import address_mistake

    if address is not None and (":" not in address or address_mistake(address)):
        raise click.BadParameter(f"{address!r} is no HOST:PORT of a head", param_hint="--address")
    wanted = ray_node.Node(joins=address, custom=dict(custom), **options)
    token = ray_node.token(wanted)
    if as_json:
        print_json({"head": head, "joins": address, "ip": wanted.ip, "port": wanted.port, "token_file": str(token) if token else None})
    elif head:
        click.echo(f"token: {token or 'that of RAY_AUTH_TOKEN'}; with a copy of it others join by")
        click.echo(f"  hpo node --address {wanted.ip or 'THIS-MACHINE'}:{wanted.port}")
    sys.stdout.flush()
    ray_node.become(wanted)

"""The ground that a search runs on: this machine, or a Ray cluster that runs already, and what there is of it."""

from __future__ import annotations

from dataclasses import dataclass

from hpo.capacity import Capacity, this_machine
from hpo.problem import Problem, SpecError
from hpo.site import Site, file
from hpo.spec import Spec


@dataclass(frozen=True, slots=True)
class Ground:
    """What a search may use, machine by machine; `address` is the head's HOST:PORT, None where it has a Ray of its own."""

    there: tuple[Capacity, ...]
    address: str | None = None


def ground(site: Site, *, local: bool = False, drives: bool = True) -> Ground:
    """Where searches run by `site`; `local`: in this process. ClusterError or TokenError where the cluster cannot be asked.

    Who `drives` a search has to be on a node of the cluster.
    """
    if local or site.cluster.address is None:
        return Ground((this_machine(),))
    from hpo.engine import ray_nodes

    address = ray_nodes.located(site.cluster.address)
    found = tuple(ray_nodes.nodes(address))
    if drives:
        ray_nodes.require_node_here(address)
    return Ground(found, address)


def check_storage(spec: Spec, on: Ground) -> None:
    """SpecError if trials may go on on another machine than their checkpoints are on."""
    if len(on.there) > 1 and spec.checkpoints.storage is None:
        names = ", ".join(machine.name for machine in on.there)
        message = (
            f"this cluster has {len(on.there)} nodes ({names}), and a trial goes on on another one only if its checkpoints are where "
            "all nodes reach them: give a shared folder or a URI such as s3://BUCKET/FOLDER here, or as cluster.storage in "
            f"{file()}"
        )
        raise SpecError([Problem("spec", 0, 0, "checkpoints.storage", message)])

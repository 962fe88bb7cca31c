"""Asks every node of a joined cluster, before the first trial, whether it can train the study: a node that cannot would eat trials."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from hpo.capacity import Placement, fitting
from hpo.engine.ray_nodes import capacities
from hpo.errors import ClusterError
from hpo.fitness import mistakes
from hpo.preparing import versions
from hpo.session import Session

LONGEST_S = 300.0  # a node may have a dataset to fetch


def require(session: Session, at: Placement) -> None:
    """ClusterError, naming nodes and what to mend there, if one on which trials fit could not train them.

    One that is lost while it is asked counts for nothing.
    """
    table: list[Mapping[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    asked = {}
    for node in table:
        for capacity in capacities([node]):
            if fitting(at, capacity):
                there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
                looking = ray.remote(num_cpus=0, max_retries=0)(mistakes).options(scheduling_strategy=there)
                asked[looking.remote(session.spec, session.root, versions())] = capacity.name
    answered, late = ray.wait(list(asked), num_returns=len(asked), timeout=LONGEST_S) if asked else ([], [])
    found = [f"{asked[one]}: no answer within {LONGEST_S:g} s" for one in late]
    for one in answered:
        found += [f"{asked[one]}: {mistake}" for mistake in _answer(one)]
    if found:
        what_to_do = f"mend these, or take them out of the cluster, then go on with `hpo resume {session.folder.name}`:"
        raise ClusterError("\n".join([f"not every node can train this study; {what_to_do}", *found]))


def _answer(one: Any) -> list[str]:
    try:
        return list(ray.get(one))
    except (ray.exceptions.NodeDiedError, ray.exceptions.WorkerCrashedError, ray.exceptions.TaskUnschedulableError):
        return []
    except Exception as error:  # the border to another machine's environment: hpo may be missing there
        return [f"it could not be asked: {[type(error).__name__, *str(error).strip().splitlines()][-1]}; is hpo installed there as here?"]

"""The nodes of a running Ray cluster, as its head knows them; asked from any machine that has the token. Joins nothing."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Mapping
from typing import Any

from hpo.capacity import Capacity
from hpo.engine import ray_settings, ray_token
from hpo.errors import ClusterError

os.environ.update(ray_settings.environment())  # before it is imported

import ray
from ray._private import services, state

LONGEST_S = 10
RAYS_OWN = ("CPU", "GPU", "memory", "object_store_memory")


def located(address: str) -> str:
    """HOST:PORT of the head; ClusterError where none answers there, or for `auto` where this machine is no node of a cluster."""
    found = address
    if address == "auto":
        try:
            with ray_settings.replaced(os, environ={name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}):
                found = str(services.canonicalize_bootstrap_address_or_die("auto"))
        except (ConnectionError, RuntimeError, ValueError):
            raise ClusterError(
                "no Ray cluster runs on this machine; start a node (`hpo node --head`, or `hpo node --address HOST:PORT` to join "
                "one), or leave --address and RAY_ADDRESS out: the search then has a Ray of its own"
            ) from None
    host, _, port = found.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=LONGEST_S):
            return found
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ClusterError(
            f"no Ray cluster answers at {found} ({reason}); is `hpo node --head` running there, and its port open?"
        ) from None


def nodes(address: str) -> list[Capacity]:
    """What the living nodes of the cluster at HOST:PORT have; ClusterError without an answer, TokenError without a token."""
    ray_token.have_given()
    private: Any = services
    head: Any = state.GlobalState()  # type: ignore[no-untyped-call]
    try:
        head._initialize_global_state(private._get_gcs_client_options(address))
        found = capacities(head.node_table())
    except ray.exceptions.AuthenticationError:
        raise _refused(address) from None
    except Exception as error:  # the border to Ray's private parts
        if "Failed to connect to GCS" in str(error):  # the port answers: it is the token that does not please
            raise _refused(address) from None
        raise ClusterError(f"the Ray cluster at {address} cannot be asked for its nodes: {type(error).__name__}: {error}") from error
    finally:
        head.disconnect()
    if not found:
        raise ClusterError(f"the Ray cluster at {address} has no node yet; wait for its first one to be up")
    return found


def require_node_here(address: str) -> None:
    """ClusterError where this machine is no node of any Ray cluster: a search's driver has to be on one."""
    private: Any = services
    if not private.find_node_ids():  # Ray would look for a minute
        raise ClusterError(
            f"this machine is no node of the Ray cluster at {address}; make it one (`hpo node --address {address}`), or have the search "
            "run on the head: `hpo launch --detach`"
        )


def capacities(table: Iterable[Mapping[str, Any]]) -> list[Capacity]:
    """Of each living node, as Ray's table describes it, what a search may use; in the order of their names."""
    return sorted((_capacity(node) for node in table if node["Alive"]), key=lambda found: found.name)


def _capacity(node: Mapping[str, Any]) -> Capacity:
    has: Mapping[str, float] = node["Resources"]
    custom = {name: amount for name, amount in has.items() if name not in RAYS_OWN and not name.startswith(("node:", "accelerator_type:"))}
    name = f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
    return Capacity(has.get("CPU", 0.0), has.get("GPU", 0.0), custom, name)


def _refused(address: str) -> ClusterError:
    return ClusterError(
        f"the Ray cluster at {address} refuses this token; copy its own from the node that runs `hpo node --head` (or is that not the "
        "port of a head, 6379 unless it was said otherwise?)"
    )

"""How many trials a search may run at a time on a cluster whose nodes, and whose other searches, come and go.

Each search says in the cluster's key-value store whose it is and how many trials it could run, and counts up there as a sign of
life; nobody decides for others. Who has more than its share starts no trial until enough of its own have ended or wait at a rung.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import suppress
from math import ceil
from typing import Any
from uuid import uuid4

import ray
from ray.experimental import internal_kv

from hpo.capacity import Capacity, Placement, fitting
from hpo.engine.ray_nodes import capacities
from hpo.session import Session
from hpo.sharing import Demand, shares
from hpo.site import owner

LOOK_S = 1.0
SILENT_S = 15.0  # a search that has not counted up for so long is gone; by other clocks than ours it may be any time
ROOM = b"hpo"  # the store's namespace


class Slots:
    """The limit of one search, whose trials are placed as `at` says and which began with `at.slots` of them."""

    def __init__(self, session: Session, at: Placement) -> None:
        self._session, self._at, self._most = session, at, session.spec.resources.max_concurrent
        self._owner = owner()
        self._name = f"{self._owner}/{session.folder.name}/{uuid4().hex}"
        self._limit, self._looked, self._beat = at.slots, 0.0, 0
        self._heard: dict[str, tuple[int, float]] = {}  # of every search its last count, and when that was new to us

    def limit(self) -> int:
        """How many trials may run now; looked up anew every second."""
        if time.monotonic() - self._looked >= LOOK_S:
            with suppress(Exception):  # the border to Ray: the head may be out of reach for a while, and then what held holds
                self._limit = self._look()
            self._looked = time.monotonic()
        return self._limit

    def close(self) -> None:
        """Leave the share to the others."""
        with suppress(Exception):  # the border to Ray; they would notice by themselves
            _forget(self._name)

    def _look(self) -> int:
        nodes = capacities(ray.nodes())  # type: ignore[no-untyped-call]
        fit = sum(fitting(self._at, node) for node in nodes)
        if not fit:  # the nodes that it needs are away
            return 1
        mine = min(fit, self._most or fit, max(1, self._session.left))
        self._beat += 1
        said = {"owner": self._owner, "slots": mine, "beat": self._beat, "each": needs(self._at)}
        internal_kv._internal_kv_put(self._name, json.dumps(said), overwrite=True, namespace=ROOM)
        rivals = {name: found for name, found in self._others(scarcest(self._at, nodes)).items() if found.slots}
        return shares({**rivals, self._name: Demand(self._owner, mine)}, fit)[self._name]

    def _others(self, scarce: str) -> dict[str, Demand]:
        """What the living searches want, in trials like ours: as many as would take as much of what is scarce."""
        found, now = {}, time.monotonic()
        for key in internal_kv._internal_kv_list("", namespace=ROOM):
            name = key.decode()
            said = _read(name)
            if said is None or name == self._name:
                continue
            count, since = self._heard.get(name, (-1, now))
            since = now if said["beat"] != count else since
            self._heard[name] = (said["beat"], since)
            if now - since < SILENT_S:
                theirs = float(said["each"].get(scarce, 0.0)) / needs(self._at)[scarce]
                found[name] = Demand(str(said["owner"]), ceil(int(said["slots"]) * theirs))
            else:
                _forget(name)  # should it live after all, it writes that again
        return found


def needs(at: Placement) -> dict[str, float]:
    """What one trial takes of each resource."""
    return {name: amount for name, amount in {"CPU": at.cpus, "GPU": at.gpus, **at.custom}.items() if amount}


def scarcest(at: Placement, nodes: Sequence[Capacity]) -> str:
    """The resource of which the fewest trials that are placed so could run at a time."""

    def enough_for(name: str) -> float:
        has = {"CPU": [node.cpus for node in nodes], "GPU": [node.gpus for node in nodes]}
        return sum(has.get(name, [node.custom.get(name, 0.0) for node in nodes])) / needs(at)[name]

    return min(needs(at), key=enough_for)


def _forget(name: str) -> None:
    internal_kv._internal_kv_del(name, namespace=ROOM)


def _read(name: str) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(internal_kv._internal_kv_get(name, namespace=ROOM))
        sound = isinstance(found["owner"], str) and isinstance(found["slots"], int) and isinstance(found["beat"], int)
        return found if sound and all(isinstance(amount, int | float) for amount in found["each"].values()) else None
    except (ValueError, TypeError, LookupError, AttributeError):  # gone meanwhile, or somebody else's
        return None

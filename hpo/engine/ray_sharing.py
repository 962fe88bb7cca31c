"""How many trials a search may run at a time on a cluster whose nodes, and whose other searches, come and go.

Each search says in the cluster's key-value store whose it is and how many trials it could run, and counts up there as a sign of
life; nobody decides for others. Who has more than its share starts no trial until enough of its own have ended or wait at a rung.
"""

from __future__ import annotations

import json
import time
from contextlib import suppress
from typing import Any
from uuid import uuid4

import ray
from ray.experimental import internal_kv

from hpo.capacity import CapacityError, Placement, place
from hpo.engine.ray_nodes import capacities
from hpo.session import Session
from hpo.sharing import Demand, shares
from hpo.site import owner

LOOK_S = 1.0
SILENT_S = 15.0  # a search that has not counted up for so long is gone; by other clocks than ours it may be any time
ROOM = b"hpo"  # the store's namespace


class Slots:
    """The limit of one search, which began with `at.slots`."""

    def __init__(self, session: Session, at: Placement) -> None:
        self._session, self._wanted = session, session.spec.resources
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
            internal_kv._internal_kv_del(self._name, namespace=ROOM)

    def _look(self) -> int:
        nodes = capacities(ray.nodes())  # type: ignore[no-untyped-call]
        try:
            fit = sum(place(self._wanted, nodes, 1).on)
        except CapacityError:  # the nodes that it needs are away
            return 1
        mine = min(fit, self._wanted.max_concurrent or fit, max(1, self._session.left))
        self._beat += 1
        said = json.dumps({"owner": self._owner, "slots": mine, "beat": self._beat})
        internal_kv._internal_kv_put(self._name, said, overwrite=True, namespace=ROOM)
        return shares({**self._others(), self._name: Demand(self._owner, mine)}, fit)[self._name]

    def _others(self) -> dict[str, Demand]:
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
                found[name] = Demand(str(said["owner"]), int(said["slots"]))
        return found


def _read(name: str) -> dict[str, Any] | None:
    try:
        found = json.loads(internal_kv._internal_kv_get(name, namespace=ROOM))
        return found if {"owner", "slots", "beat"} <= found.keys() else None
    except (ValueError, TypeError, AttributeError):  # gone meanwhile, or somebody else's
        return None

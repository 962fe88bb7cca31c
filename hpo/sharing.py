"""How searches that run side by side share a cluster: so many slots for each. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Demand:
    """What one search could use: whose it is, and how many trials it could run at a time."""

    owner: str
    slots: int


def shares(demands: Mapping[str, Demand], slots: int) -> dict[str, int]:
    """How many of `slots` each search gets: max-min fair between owners, and between each owner's searches.

    The slots are dealt one by one to whoever has the fewest and wants more, so nobody's unused share is lost, and two who want as
    much differ by one at most. A search that wants any gets one even where there are fewer slots than searches: Ray queues it.

    Source: Bertsekas and Gallager 1992, "Data Networks", section 6.5.2 (max-min fairness).
    """
    given = dict.fromkeys(sorted(demands), 0)
    of_owner: Counter[str] = Counter()
    for _ in range(slots):
        hungry = [name for name in given if given[name] < demands[name].slots]
        if not hungry:
            break
        name = min(hungry, key=lambda name: (of_owner[demands[name].owner], given[name], name))
        given[name] += 1
        of_owner[demands[name].owner] += 1
    return {name: max(found, min(1, demands[name].slots)) for name, found in given.items()}

"""How many trials a search may run on a cluster whose nodes and other searches come and go; Ray's tables are made up here."""

from __future__ import annotations

import json
from typing import Any

import pytest

ray_sharing = pytest.importorskip("hpo.engine.ray_sharing")

from hpo.capacity import Capacity, Placement  # noqa: E402
from hpo.sections import Resources  # noqa: E402


class Store:
    """Ray's key-value store."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    def _internal_kv_put(self, key: str, value: str, **_: Any) -> None:
        self.kept[key] = value.encode()

    def _internal_kv_get(self, key: str, **_: Any) -> bytes | None:
        return self.kept.get(key)

    def _internal_kv_list(self, prefix: str, **_: Any) -> list[bytes]:
        return [key.encode() for key in self.kept if key.startswith(prefix)]

    def _internal_kv_del(self, key: str, **_: Any) -> None:
        self.kept.pop(key, None)


class Session:
    """As much of a session as is asked."""

    def __init__(self, **wanted: Any) -> None:
        self.left = 100
        self.folder = type("Folder", (), {"name": "mine"})
        self.spec = type("Spec", (), {"resources": Resources(**wanted)})


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    found = Store()
    monkeypatch.setattr(ray_sharing, "internal_kv", found)
    monkeypatch.setattr(ray_sharing, "LOOK_S", 0.0)
    return found


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> list[Capacity]:
    found = [Capacity(8, 0, {}, "a"), Capacity(8, 0, {}, "b")]
    monkeypatch.setattr(ray_sharing, "capacities", lambda _: list(found))
    monkeypatch.setattr(ray_sharing.ray, "nodes", list)
    return found


def _other(store: Store, name: str, slots: int, **each: float) -> None:
    store.kept[name] = json.dumps({"owner": name, "slots": slots, "beat": 1, "each": each}).encode()


def test_the_limit_follows_the_nodes_with_trials_as_they_were_placed(store: Store, nodes: list[Capacity]) -> None:
    slots = ray_sharing.Slots(Session(gpus="auto"), Placement(16, 1.0, 0.0))
    assert slots.limit() == 16
    nodes.append(Capacity(8, 1, {}, "with a GPU"))  # which none of its trials takes: they were placed before
    assert slots.limit() == 24
    del nodes[:2]
    assert slots.limit() == 8
    nodes.clear()
    assert slots.limit() == 1  # what is lost waits for a node


def test_at_most_max_concurrent_and_no_more_than_are_left(store: Store, nodes: list[Capacity]) -> None:
    session = Session(max_concurrent=5)
    slots = ray_sharing.Slots(session, Placement(5, 1.0, 0.0))
    assert slots.limit() == 5
    session.left = 2
    assert slots.limit() == 2


@pytest.mark.parametrize(
    ("at", "other", "limit"),
    [
        (Placement(16, 1.0, 0.0), (16, 1.0), 8),
        (Placement(16, 1.0, 0.0), (2, 8.0), 8),  # two of its trials take as much as sixteen of ours
        (Placement(2, 1.0, 1.0), (16, 1.0), 2),  # GPUs are what is scarce for us, and it takes none
        (Placement(16, 1.0, 0.0), (2, 1.0), 14),
    ],
)
def test_others_are_counted_by_what_is_scarce(
    at: Placement, other: tuple[int, float], limit: int, store: Store, nodes: list[Capacity]
) -> None:
    nodes[0] = Capacity(8, 2, {}, "a")
    _other(store, "other", other[0], CPU=other[1])
    assert ray_sharing.Slots(Session(), at).limit() == limit


def test_who_is_silent_is_forgotten_and_nonsense_changes_nothing(
    store: Store, nodes: list[Capacity], monkeypatch: pytest.MonkeyPatch
) -> None:
    _other(store, "other", 16, CPU=1.0)
    store.kept |= {"nonsense": b"{", "null": b'{"owner": "x", "slots": null, "beat": 1, "each": {}}'}
    slots = ray_sharing.Slots(Session(), Placement(16, 1.0, 0.0))
    assert slots.limit() == 8
    monkeypatch.setattr(ray_sharing, "SILENT_S", 0.0)
    assert slots.limit() == 16
    assert "other" not in store.kept
    slots.close()
    assert set(store.kept) == {"nonsense", "null"}


def test_while_the_head_is_out_of_reach_what_held_holds(store: Store, nodes: list[Capacity], monkeypatch: pytest.MonkeyPatch) -> None:
    slots = ray_sharing.Slots(Session(), Placement(16, 1.0, 0.0))
    assert slots.limit() == 16

    def unreachable(_: Any) -> list[Capacity]:
        raise ConnectionError

    monkeypatch.setattr(ray_sharing, "capacities", unreachable)
    assert slots.limit() == 16

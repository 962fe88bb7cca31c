"""What keeps a node from training a study's trials is said in words, once, before the first one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from hpo import data
from hpo.data import DataError
from hpo.fitness import mistakes
from hpo.places import SharedPath
from hpo.preparing import versions
from hpo.spec import Spec, load_spec

HERE = versions()


def _spec(storage: Path | None = None, **settings: str) -> Spec:
    spec = load_spec("search_spaces/digits.yaml")
    checkpoints = replace(spec.checkpoints, storage=str(storage) if storage else None)
    return replace(spec, checkpoints=checkpoints, trainer=replace(spec.trainer, settings={**spec.trainer.settings, **settings}))


def test_a_node_like_the_drivers_is_fit(tmp_path: Path) -> None:
    own = tmp_path / "storage" / "digits-000000000000"
    own.mkdir(parents=True)
    assert mistakes(_spec(own.parent), SharedPath(own), HERE) == []
    assert mistakes(_spec(), tmp_path, HERE) == []


@pytest.mark.parametrize(
    ("there", "message"),
    [
        ({"torch": "1.0"}, f"torch is {HERE['torch']}, and 1.0 where the search runs; install the same"),
        ({"hpo": "9"}, f"hpo is {HERE['hpo']}, and 9 where the search runs; install the same"),
        ({"scipy": "0"}, None),  # the driver's alone
    ],
)
def test_versions_are_the_drivers(there: Mapping[str, str], message: str | None, tmp_path: Path) -> None:
    assert mistakes(_spec(), tmp_path, {**HERE, **there}) == ([message] if message else [])


def test_a_storage_that_is_not_mounted_is_noticed(tmp_path: Path) -> None:
    storage = tmp_path / "storage"
    (found,) = mistakes(_spec(storage), SharedPath(storage / "digits-000000000000"), HERE)
    assert "is no folder here; mount or make it on all nodes" in found
    storage.mkdir()  # another disk's, mounted in its place
    (found,) = mistakes(_spec(storage), SharedPath(storage / "digits-000000000000"), HERE)
    assert "is not to be seen or written; is the storage mounted?" in found


def test_a_secret_that_is_not_there_is_named_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HPO_TEST_KEY", raising=False)
    (found,) = mistakes(_spec(note="${env:HPO_TEST_KEY}"), tmp_path, HERE)
    assert "${env:HPO_TEST_KEY}" in found


def test_data_that_is_not_here_is_fetched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[str] = []

    def get(name: str) -> Path:
        fetched.append(name)
        return tmp_path

    monkeypatch.setattr(data, "find", lambda _: None)
    monkeypatch.setattr(data, "get", get)
    assert mistakes(_spec(dataset="mnist"), tmp_path, HERE) == []
    assert fetched == ["mnist"]


def test_data_that_cannot_be_fetched_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def get(name: str) -> Path:
        raise DataError(f"{name} could not be fetched: no network")

    monkeypatch.setattr(data, "find", lambda _: None)
    monkeypatch.setattr(data, "get", get)
    assert mistakes(_spec(dataset="mnist"), tmp_path, HERE) == ["mnist could not be fetched: no network"]

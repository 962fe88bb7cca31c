"""Names and folders of studies, and what a launch would do here."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpo.capacity import Capacity, CapacityError, Placement, place
from hpo.events import Created
from hpo.home import HomeError, NameTaken, begin, delete, find, find_to_delete, is_running, studies
from hpo.sections import Resources

FASHION = Path(__file__).parent.parent / "search_spaces" / "fashion.yaml"


def begun(home: Path, name: str, *, exactly: bool = False) -> Path:
    with begin(home, name, exactly=exactly) as journal:
        journal.append([Created(journal.path.parent.name, {}, {})])
    return journal.path.parent


def test_a_taken_name_gets_a_number_unless_it_was_demanded(tmp_path: Path) -> None:
    assert [begun(tmp_path, "a").name for _ in range(3)] == ["a", "a-2", "a-3"]
    with pytest.raises(NameTaken, match="a exists already; choose another --name"):
        begin(tmp_path, "a", exactly=True)
    with begin(tmp_path, "b", exactly=True), pytest.raises(NameTaken):  # another launch is about to write its first line
        begin(tmp_path, "b", exactly=True)
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").touch()
    assert begun(tmp_path, "precious").name == "precious-2"


def test_an_empty_folder_that_a_launch_left_when_it_died_at_once_is_taken_over_or_deleted(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    begin(tmp_path, "a", exactly=True).close()
    assert begun(tmp_path, "a", exactly=True).name == "a"
    assert studies(tmp_path) == [tmp_path / "a"]
    delete(find_to_delete(tmp_path, "b"))
    assert not (tmp_path / "b").exists()
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").touch()
    for name in ("precious", "..", ".", ""):
        with pytest.raises(HomeError):
            find_to_delete(tmp_path, name)


def test_a_study_is_found_by_name_and_a_typing_error_is_guessed(tmp_path: Path) -> None:
    with pytest.raises(HomeError, match="there are none yet"):
        find(tmp_path, "fashion")
    folder = tmp_path / "fashion"
    with begin(tmp_path, "fashion", exactly=True) as journal:
        journal.append([Created("fashion", {}, {})])
        assert is_running(folder)
        with pytest.raises(HomeError, match="is running"):
            delete(folder)
    assert not is_running(folder)
    assert studies(tmp_path) == [folder]
    with pytest.raises(HomeError, match="did you mean `fashion`"):
        find(tmp_path, "fasion")
    delete(find(tmp_path, "fashion"))
    assert studies(tmp_path) == []


@pytest.mark.parametrize(
    ("cpus", "gpus", "there", "expected"),
    [
        (1, "auto", Capacity(2, 0), Placement(2, 1, 0)),
        (1, "auto", Capacity(16, 1), Placement(1, 1, 1)),  # auto takes a GPU where there is one
        (1, 0, Capacity(16, 1), Placement(16, 1, 0)),
        (1, 0.25, Capacity(16, 2), Placement(8, 1, 0.25)),
        (0.5, 0, Capacity(2, 0), Placement(4, 0.5, 0)),
        (2, 2, Capacity(16, 8), Placement(4, 2, 2)),
        (1, 0, Capacity(64, 0), Placement(40, 1, 0)),  # no more than there are trials
    ],
)
def test_trials_are_placed_by_what_they_ask_for(cpus: float, gpus: float, there: Capacity, expected: Placement) -> None:
    found = place(Resources(cpus, gpus), [there], 40)
    assert (found.slots, found.cpus, found.gpus) == (expected.slots, expected.cpus, expected.gpus)


@pytest.mark.parametrize(
    ("cpus", "gpus", "message"),
    [
        (64, 0, "resources.cpus: a trial asks for 64 CPUs, this machine has 2; ask for at most 2"),
        (1, 2, "resources.gpus: a trial asks for 2 GPUs, this machine has 0"),
        (1, 0.5, "resources.gpus: a trial asks for 0.5 GPUs, this machine has 0"),
    ],
)
def test_what_can_never_be_placed_is_refused(cpus: float, gpus: float, message: str) -> None:
    with pytest.raises(CapacityError, match=message):
        place(Resources(cpus, gpus), [Capacity(2, 0)], 40)

"""Small samples of the fault table (`python -m tests.chaos` has all of it): whatever breaks when, nothing is lost or doubled."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.chaos import disk, drivers, files, simulated
from tests.chaos.outcome import Outcome, Tally, table
from tests.chaos.plan import Plan

SEED = 20261120


def holds(outcome: Outcome, tries: int) -> None:
    assert outcome.ok, " | ".join(outcome.cells)
    assert outcome.tries >= tries


@pytest.mark.parametrize(
    ("plan", "kills"),
    [
        (Plan("tpe", 30, 4), 4),
        (Plan("random", 40, 3), 3),
        (Plan("cmaes", 30, 4), 4),
        (Plan("gp", 18, 3), 2),
        (Plan("random", 40, 3, rule="promote"), 4),
        (Plan("ladders", 25, 4, rule="promote"), 3),
    ],
    ids=lambda value: f"{value.sampler}-{value.rule}" if isinstance(value, Plan) else "",
)
def test_a_driver_killed_at_any_instant_loses_nothing_and_gets_the_same_trials(tmp_path: Path, plan: Plan, kills: int) -> None:
    holds(simulated.driver_kills(tmp_path, kills, SEED, [plan]), kills)


def test_a_journal_cut_anywhere_is_resumed_to_the_same_trials(tmp_path: Path) -> None:
    holds(files.cuts(tmp_path, 25, SEED), 25)


def test_a_changed_byte_in_the_journal_is_refused_by_name_and_repaired_on_request(tmp_path: Path) -> None:
    holds(files.journal_flips(tmp_path, SEED, step=13, repairs=4, commands=1), 200)


def test_a_changed_byte_in_a_checkpoint_is_refused_by_name(tmp_path: Path) -> None:
    holds(files.manifest_flips(tmp_path, SEED, step=7, commands=1), 60)


def test_of_two_drivers_at_once_one_runs_the_study_and_the_other_learns_who(tmp_path: Path) -> None:
    holds(drivers.two_drivers(tmp_path, 6, SEED), 6)


def test_a_driver_that_lost_its_lease_unnoticed_adds_nothing(tmp_path: Path) -> None:
    holds(drivers.zombies(tmp_path), 30)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small tmpfs needs root")
def test_a_full_disk_stops_the_study_closed_and_room_lets_it_go_on(tmp_path: Path) -> None:
    outcome = disk.in_namespace(tmp_path, "simulated", SEED, 6)
    if not outcome.tries:
        pytest.skip(outcome.note)
    holds(outcome, 2)


def test_a_row_that_found_a_mistake_or_tried_nothing_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (1.0, 1.0, 1.0))
    tally = Tally()
    assert not tally.outcome("none", "not at all").ok
    tally.tries = 1234
    tally.check("lost", 0, "nowhere")
    tally.check_time(0.5, 1.0, "in time")
    fine = tally.outcome("kill", "often")
    tally.check("lost", 2, "trial 3")
    tally.check("lost", 1, "trial 4")
    failed = tally.outcome("kill", "often")
    assert (fine.ok, failed.ok) == (True, False)
    assert table([fine, failed]).splitlines()[2:] == [
        "| kill | often | 1,234 | 0 lost, 0 later than 1 s, the slowest took 0.5 s (load 1) |",
        "| kill | often | 1,234 | **FAILED**: 3 lost, 0 later than 1 s, the slowest took 0.5 s (load 1); first lost: trial 3 |",
    ]

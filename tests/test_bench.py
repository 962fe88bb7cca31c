"""The pure parts of the side-by-side benchmark: who gets which configurations, and what is made of the reports."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from benchmarks.arithmetic import multiply_adds
from benchmarks.figures import MEASURES, Search, Workload, epochs_of, from_journal, ratios, spread
from benchmarks.machine import Machine
from benchmarks.memory import ancestry, family, proportional_mb
from benchmarks.peers.task import Axis, Kind, Report, Task, keep, kept
from benchmarks.reproductions import imdb
from benchmarks.rows import ROWS, Row, axes, configurations, our_spec
from hpo.events import Asked, Finished, Measured
from hpo.journal_format import Record
from hpo.preparing import completed, trainer_of
from hpo.space import Float, Int, position
from hpo.spec import load_spec
from hpo.trial import State
from tests.conftest import ROOT
from trainers.products import EXACT, Products

WORK = Workload(examples=100, columns=784, outputs=10)
# two cores, epochs of a second: trial 0 trains from 1 to 5 with a pause of 1, trial 1 from 2 to 4
TABLE = [(0, 1, 1.0, 2.0), (1, 1, 2.0, 3.0), (0, 2, 2.0, 3.0), (1, 2, 3.0, 4.0), (0, 3, 4.0, 5.0)]


def search(table: Sequence[tuple[int, int, float, float]] = TABLE, wall_s: float = 10.0, side: str = "ours", width: int = 32) -> Search:
    reports = tuple(Report(str(trial), epoch, began, ended, 0.5 + ended / 100, width) for trial, epoch, began, ended in table)
    return Search(side, wall_s, reports, 100.0, WORK)


@pytest.mark.parametrize("row", ROWS.values(), ids=lambda row: row.name)
def test_configurations_are_in_the_space_and_depend_on_the_seed_alone(row: Row) -> None:
    space = row.space()
    points = configurations(space, row.trials, 3)
    assert len(points) == row.trials
    for name, parameter in space.items():
        assert all(0 <= position(parameter, point[name]) <= 1 for point in points)
        assert isinstance(parameter, Float | Int)
        assert all(parameter.low <= point[name] <= parameter.high for point in points)
    assert points == configurations(space, row.trials, 3) != configurations(space, row.trials, 4)


@pytest.mark.parametrize("row", [row for row in ROWS.values() if row.kind is not Kind.NOTHING], ids=lambda row: row.name)
def test_every_side_gets_the_same_configurations(row: Row, tmp_path: Path) -> None:
    """Ours resolves its starting points to the list that the peers read from their task."""
    points = configurations(row.space(), row.trials, 0)
    (tmp_path / "bench.yaml").write_text(json.dumps(our_spec(row, points, 0)))
    spec = load_spec(tmp_path / "bench.yaml")
    ours = completed(spec, trainer_of(spec))
    task = Task(row.kind, str(tmp_path), axes(row.space()), points, row.max_epochs, 2)
    assert [dict(point) for point in ours.start] == Task.read(task.write()).configurations == points
    assert ours.budget.trials == row.trials
    assert ours.finals is None


def test_the_text_is_trained_as_long_as_it_was_published() -> None:
    assert ROWS["imdb"].max_epochs == imdb.EPOCHS
    assert ROWS["imdb"].small().max_epochs < 5


def test_a_task_reads_as_it_was_written(tmp_path: Path) -> None:
    task = Task(Kind.IMAGES, str(tmp_path), {"width": Axis(32, 1024, True, True)}, [{"width": 32}], 3, 2, epochs=[2])
    assert Task.read(task.write()) == task


def test_reports_come_back_in_the_order_in_which_epochs_ended(tmp_path: Path) -> None:
    task = Task(Kind.IMAGES, str(tmp_path), {}, [], 3, 2)
    late, early = Report("a", 1, 1.0, 5.0, 0.5, 32), Report("b", 1, 2.0, 3.0, 0.6, 64)
    keep(task, late)
    keep(task, early)
    assert kept(str(tmp_path)) == (early, late)


def test_a_peer_needs_nothing_of_ours() -> None:
    """Importing what all peers share loads no module of hpo or of the trainers."""
    code = "import sys, benchmarks.peers.loop; print(sorted({name.partition('.')[0] for name in sys.modules} & {'hpo', 'trainers'}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_share_counts_training_between_first_and_last_report_only() -> None:
    # from 2 to 5 on two cores: six seconds, of which trial 0 trains two and trial 1 two
    assert search().training_share(2) == pytest.approx(4 / 6)
    # an epoch that had begun before the first report counts from there on
    assert search([(0, 1, 0.0, 2.0), (1, 1, 0.0, 4.0)]).training_share(2) == pytest.approx(2 / 4)
    assert math.isnan(search([(0, 1, 0.0, 2.0)]).training_share(2))


def test_what_a_search_costs() -> None:
    found = search(wall_s=10.0)
    assert (found.epochs, found.trials, found.best) == (5, 2, 0.55)
    assert found.ms_per_epoch == 2000
    assert found.work == 5 * 100 * (784 * 32 + 32 * 32 + 10 * 32)
    assert found.ns_per_work == pytest.approx(10e9 / (found.work / 1000))
    assert found.speed_share(2, gflops=1.0) == pytest.approx(6 * found.work / 10 / 2e9)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (EXACT / 2, 220.0),
        (EXACT * 2, 100.0),  # as fast, but it rounds to bfloat16
    ],
)
def test_the_machine_multiplies_by_the_path_that_the_trainers_take(error: float, expected: float) -> None:
    """Whichever it is, the speed is that of the machine's own measurement."""
    on = Machine("some processor", 2, 100.0, 220.0, Products(50.0, 110.0, EXACT / 3, error))
    assert on.gflops == expected
    assert str(on.products) in str(on)


def test_a_row_of_a_text_counts_every_column() -> None:
    assert multiply_adds(16, 10_000, 1) == 10_000 * 16 + 16 * 16 + 16


@pytest.mark.parametrize(
    ("measure", "expected"),
    [
        ("wall", 0.5),
        ("wall per epoch", 0.5 * 5 / 3),  # the peer trained five epochs, ours three
        ("wall per multiply-add", 0.5 * 5 / 3 / (2 * 858 / 826)),  # and ours of twice the width: (794 + 64) 64 to (794 + 32) 32
        ("wall per trial", 5.0 / 10.0),
    ],
)
def test_ratios_are_ours_to_the_peers(measure: str, expected: float) -> None:
    mine, peer = search(TABLE[:3], wall_s=5.0, width=64), search(wall_s=10.0, side="plain")
    assert MEASURES[measure](mine, peer) == pytest.approx(expected)


def test_a_scaled_peer_pays_its_start_and_its_end_once() -> None:
    # two trials report from 2 s to 5 s, and the end takes another 5 s
    assert search(wall_s=10.0).wall_for(20) == pytest.approx(2 + 3 * 10 + 5)
    assert search(wall_s=10.0).wall_for(2) == 10.0


def test_the_spread_of_repeats_is_their_median_and_range() -> None:
    assert str(spread([0.3, 0.1, 0.25])) == "0.250 (0.100 to 0.300)"
    pairs = [(search(wall_s=wall), search(wall_s=10.0)) for wall in (1.0, 4.0, 2.0)]
    assert str(ratios("wall", pairs)) == "0.200 (0.100 to 0.400)"


def test_a_journal_as_reports() -> None:
    """Epochs that were recorded together are laid one after another, and no trial's epochs overlap."""
    events = [
        (0.0, Asked(0, {"width": 64}, 1)),
        (0.1, Asked(1, {}, 2)),
        (5.0, Measured(0, 1, 0.5, {}, 2.0)),
        (5.0, Measured(0, 2, 0.6, {}, 1.0)),
        (5.5, Measured(0, 3, 0.7, {}, 1.5)),
        (6.0, Measured(1, 1, 0.4, {}, 3.0)),
        (6.0, Finished(1, State.PRUNED, "asha", "")),
    ]
    records = [Record(i, datetime.fromtimestamp(at, UTC), event) for i, (at, event) in enumerate(events, 1)]
    reports = from_journal(records, width=16)
    assert reports == (
        Report("0", 1, 1.0, 3.0, 0.5, 64),
        Report("0", 2, 3.0, 4.0, 0.6, 64),
        Report("0", 3, 4.0, 5.5, 0.7, 64),
        Report("1", 1, 3.0, 6.0, 0.4, 16),
    )
    assert epochs_of(reports, 3) == [3, 1, 0]


def test_a_family_holds_descendants_sessions_and_orphans() -> None:
    # process: (parent, session); 10 leads a session of 11, 12 is its orphan, 13 of a session that 11 began, 20 a stranger
    living = {10: (1, 10), 11: (10, 10), 12: (1, 10), 13: (1, 11), 14: (13, 14), 20: (1, 20)}
    assert family({10}, living) == {10, 11, 12, 13, 14}
    del living[10]
    assert family({10, 12}, living) == {12}


def test_this_process_has_memory_and_a_parent() -> None:
    assert ancestry()[os.getpid()][0] == os.getppid()
    assert 1 < proportional_mb(os.getpid()) < 100_000
    assert proportional_mb(2**22 + 1) == 0

"""The runs behind docs/reproductions.md: what is kept of a training, and that every table has its place and is filled."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from benchmarks.reproductions import prechelt
from benchmarks.reproductions.__main__ import SECTIONS
from benchmarks.reproductions.fashion import _patience
from benchmarks.reproductions.prechelt import CRITERIA, Curve, Shortcuts
from benchmarks.reproductions.runs import Alone, followed, mean_sd, short, table
from hpo.trainer import Metrics

DOCUMENT = (Path(__file__).parent.parent / "docs" / "reproductions.md").read_text(encoding="utf-8")


def losses(trial: Alone, *values: float) -> Iterator[Metrics]:
    for epoch, value in enumerate(values, 1):
        trial.save(model={"w": torch.tensor(float(epoch))})
        yield {"val_loss": value}


def test_the_parameters_of_the_lowest_loss_are_kept() -> None:
    trial = Alone(seed=0, max_epochs=4)
    found = followed(trial, losses(trial, 3.0, 1.0, 2.0, 1.0, 0.0))
    assert ([epoch["val_loss"] for epoch in found.history], found.best) == ([3.0, 1.0, 2.0, 1.0], 2)
    assert found.model["w"] == 2


def test_a_training_ends_where_it_is_told_to() -> None:
    trial = Alone(seed=0, max_epochs=9)
    assert len(followed(trial, losses(trial, 3.0, 1.0, 2.0, 1.0), over=lambda history: len(history) == 3).history) == 3


@pytest.mark.parametrize(
    ("curve", "best_and_end"),
    [([3, 2, 1], (3, 3)), ([1, 2, 3, 4], (1, 3)), ([3, 4, 2, 2, 2, 1], (3, 5))],
)
def test_patience_stops_and_goes_back(curve: list[float], best_and_end: tuple[int, int]) -> None:
    assert _patience(curve, 2) == best_and_end


def test_numbers_are_written_as_the_publications_do() -> None:
    assert (short(0.8318), short(2.14), short(-0.05, 2), mean_sd([0.1, 0.3], 2)) == (".832", "2.140", "-.05", ".20 ± .14")
    assert table(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"


def test_shortcuts_join_every_layer_to_all_before_it() -> None:
    net = Shortcuts(5, 3, sizes=(4, 2))
    assert sum(p.numel() for p in net.parameters()) == (5 * 4 + 4) + (9 * 2 + 2) + (11 * 3 + 3)
    assert net(torch.zeros(7, 5)).shape == (7, 3)


def test_a_criterion_that_is_never_met_takes_all_epochs() -> None:
    falling = [1 / epoch for epoch in range(1, prechelt.MOST + 1)]
    assert prechelt._stop(Curve(falling, falling, []), CRITERIA["GL 5"]) == prechelt.MOST
    rising = [0.5 if epoch < 7 else 1.0 for epoch in range(prechelt.MOST)]
    assert prechelt._stop(Curve(falling, rising, []), CRITERIA["GL 5"]) == 10  # the first end of a strip with the higher error
    assert math.isclose(prechelt.training_progress(6, 1, 5), 200)


def test_every_table_of_the_document_is_filled_and_has_its_command() -> None:
    found = re.findall(r"<!-- (?!end)([\w-]+) -->\n(.*?)<!-- end -->", DOCUMENT, re.DOTALL)
    assert len(found) == 12
    assert all(content.count("\n| ") >= 3 for _, content in found)
    assert all(f"python -m benchmarks.reproductions {section} --write" in DOCUMENT for section in SECTIONS)
    for picture in re.findall(r"\]\((figures/[\w-]+\.png)\)", DOCUMENT):
        assert (Path(__file__).parent.parent / "docs" / picture).stat().st_size > 10_000

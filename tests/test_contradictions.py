"""Settings and ranges of the built-in trainers that contradict each other are mistakes of the spec, found before any trial."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hpo.problem import SpecError
from hpo.spec import load_spec, parse_spec
from tests.dataset_machine import needs
from trainers import contradictions, images, proben1
from trainers.recipe import Source

FOLDER = Path(__file__).parent.parent / "search_spaces"
SPEC = "{{name: s, trainer: {{name: {trainer}, settings: {settings}}}, objective: {{metric: val_loss, direction: minimize}}, "
REST = "space: {space}, budget: {{trials: 1}}}}"
RATE = "learning_rate: {type: float, low: 0.001, high: 0.1}"


def mistakes(trainer: str, settings: str, space: str = "") -> list[str]:
    text = (SPEC + REST).format(trainer=trainer, settings=settings, space=f"{{{RATE}{', ' if space else ''}{space}}}")
    try:
        parse_spec(text, "f")
    except SpecError as error:
        return [f"{problem.path}: {problem.message}" for problem in error.problems]
    return []


@pytest.mark.parametrize(
    ("trainer", "settings", "space", "found"),
    [
        ("mlp", "{dataset: digits, flip: true}", "", "trainer.settings.flip: the mirror image of a digit"),
        ("mlp", "{dataset: mnist}", "flip: {type: categorical, choices: [false, true]}", "space.flip: the mirror image"),
        ("mlp", "{dataset: imdb, shift: 2}", "", "trainer.settings.shift: is for images, and imdb holds none"),
        ("mlp", "{dataset: proben1}", "rotation: {type: float, low: 0, high: 9}", "space.rotation: is for images"),
        ("convnet", "{dataset: sst2}", "", "trainer.settings.dataset: convnet learns images"),
        ("convnet", "{dataset: digits, blocks: 4}", "", "trainer.settings.blocks: digits has 8 pixels a side, which 3 blocks"),
        ("convnet", "{dataset: digits}", "blocks: {type: int, low: 1, high: 4}", "space.blocks: digits has 8 pixels"),
        ("mlp", "{dataset: imdb, label_smoothing: 0.5}", "", "trainer.settings.label_smoothing: from 0.5 on, 2 classes"),
        ("mlp", "{dataset: sst2}", "label_smoothing: {type: float, low: 0, high: 0.6}", "space.label_smoothing: from 0.5 on"),
        ("mlp", "{dataset: proben1, problem: building2}", "", "trainer.settings: the targets of building2 are values"),
        ("mlp", "{dataset: digits, widths: 64-32, depth: 2}", "", "trainer.settings.depth: widths says"),
        ("mlp", "{dataset: digits, widths: 64-32}", "width: {type: int, low: 8, high: 64}", "space.width: widths says"),
        ("mlp", "{dataset: digits, batch_norm: true, batch_size: 1}", "", "trainer.settings.batch_size: a batch of one example"),
        ("mlp", "{dataset: digits, optimizer: rprop, schedule: cosine}", "", "trainer.settings.schedule: rprop finds"),
        ("mlp", "{dataset: digits, warmup_epochs: 2}", "optimizer: {type: categorical, choices: [adam, rprop]}", "warmup_epochs: rprop"),
        ("mlp", "{dataset: digits, optimizer: adamw, decay: coupled}", "", "trainer.settings.decay: adamw is Adam with"),
        ("mlp", "{dataset: digits, decay: coupled}", "", "trainer.settings.decay: adamw is Adam with"),  # adamw is the default
        ("mlp", "{dataset: file, path: x.csv}", "", "trainer.settings: dataset: file needs target"),
        ("mlp", "{dataset: file, path: x.csv, target: y, val_share: 0.5, test_share: 0.5}", "", "val_share 0.5 and test_share"),
        ("mlp", "{dataset: digits, path: x.csv}", "", "trainer.settings.path: is of a file of your own, and dataset is digits"),
    ],
)  # fmt: skip
def test_what_contradicts_itself_has_a_place_and_a_way_out(trainer: str, settings: str, space: str, found: str) -> None:
    (mistake,) = mistakes(trainer, settings, space)
    assert found in mistake


@pytest.mark.parametrize(
    ("trainer", "settings", "space"),
    [
        ("mlp", "{flip: true}", ""),  # of Fashion-MNIST
        ("convnet", "{dataset: mnist, blocks: 4, batch_norm: true, batch_size: 1}", ""),
        ("mlp", "{dataset: digits, label_smoothing: 0.5}", ""),
        ("mlp", "{dataset: proben1, problem: building2, loss: squared_error}", ""),
        ("mlp", "{dataset: digits, decay: coupled}", "optimizer: {type: categorical, choices: [adam, sgd]}"),
        ("mlp", "{dataset: digits, optimizer: rprop}", "weight_decay: {type: float, low: 0, high: 1}"),
        ("mlp", "{dataset: file, path: x.csv, target: y}", ""),
    ],
)
def test_what_does_not_is_left_alone(trainer: str, settings: str, space: str) -> None:
    assert mistakes(trainer, settings, space) == []


def test_a_value_that_is_illegal_by_itself_is_the_only_mistake() -> None:
    (mistake,) = mistakes("mlp", "{dataset: imdb, label_smoothing: many}")
    assert "label_smoothing takes a number" in mistake


def test_what_is_known_of_the_datasets_without_numpy_is_what_their_decoders_say() -> None:
    assert {name: (known.side, images.CLASSES) for name, known in images.KNOWN.items()} == contradictions.IMAGES
    needs("proben1")
    first = [problem for problem in proben1.problems() if problem.endswith("1")]
    values = {problem[:-1] for problem in first if proben1.decode(Source(dataset="proben1", problem=problem)).y.dtype.kind == "f"}
    assert (len(first), values) == (15, set(contradictions.VALUES))


def test_no_search_space_of_ours_contradicts_itself() -> None:
    files: list[Any] = sorted(FOLDER.glob("*.yaml"))
    assert len(files) == 9
    for file in files:
        load_spec(file)

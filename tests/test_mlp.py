"""The trainer `mlp`: what it takes, that it learns real data, and that a checkpoint makes its network again."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import torch

from hpo import checkpoints
from hpo.declarations import find_declared
from tests.dataset_machine import borrow_datasets, needs
from tests.trials import Trial, unclocked
from trainers import datasets, mlp
from trainers.recipe import Layers, Recipe, Source

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True, scope="module")
def own_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        borrow_datasets(tmp_path_factory.mktemp("machine"), patch)
        yield


def epochs(trial: Trial, **arguments: Any) -> list[dict[str, float]]:
    chosen = {"learning_rate": 1e-2, "dataset": "digits", "width": 32, "batch_size": 32} | arguments
    return [dict(metrics) for metrics in mlp.train(trial, **chosen)]


# ---- what it takes


@pytest.mark.parametrize("kind", [Recipe, Layers, Source])
def test_the_defaults_are_the_declared_ones(kind: type) -> None:
    declaration = find_declared("mlp")
    assert declaration is not None
    hints = get_type_hints(kind)
    for field in dataclasses.fields(kind):
        declared = declaration.arguments[field.name]
        assert declared.default == field.default, field.name
        if choices := _choices(hints[field.name]):
            assert set(declared.choices) == choices, field.name


def _choices(hint: Any) -> set[str]:
    """What a Literal, or one in a union, allows."""
    inner = {choice for arg in get_args(hint) for choice in _choices(arg)}
    return inner | {choice for choice in get_args(hint) if isinstance(choice, str)}


def test_it_takes_what_is_declared_and_nothing_else() -> None:
    declaration = find_declared("mlp")
    assert declaration is not None
    assert set(declaration.arguments) == mlp.KNOWN


@pytest.mark.parametrize("function", [lambda **arguments: list(mlp.train(Trial(Path()), **arguments)), mlp.build])
def test_unknown_arguments_are_named(function: Any) -> None:
    with pytest.raises(TypeError, match=r"mlp takes no dropuot, widht; it takes activation, .*width"):
        function(learning_rate=0.1, dropuot=0.1, widht=3)


# ---- training


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd", "rmsprop"])
@pytest.mark.parametrize("depth", [0, 2])
def test_it_learns_the_digits(optimizer: str, depth: int, tmp_path: Path) -> None:
    rate = 0.1 if optimizer == "sgd" else 1e-2
    measured = epochs(Trial(tmp_path, max_epochs=15), optimizer=optimizer, depth=depth, learning_rate=rate, weight_decay=1e-4)
    assert len(measured) == 15
    assert max(metrics["val_accuracy"] for metrics in measured) > 0.95
    assert measured[-1]["train_loss"] < measured[0]["train_loss"] / 5


@pytest.mark.parametrize(
    "arguments",
    [
        {"activation": "gelu", "batch_norm": True, "dropout": 0.2},
        {"activation": "tanh", "loss": "squared_error", "widths": "48-16"},
        {"shift": 1, "rotation": 10.0, "label_smoothing": 0.1, "schedule": "cosine", "warmup_epochs": 1.0, "width": 128},
        {"dropconnect": 0.2, "weight_noise": 0.01, "input_noise": 0.1, "max_norm": 3.0, "l1": 1e-5, "width": 128},
    ],
    ids=str,
)
def test_it_learns_the_digits_with_every_tool(arguments: dict[str, Any], tmp_path: Path) -> None:
    assert max(metrics["val_accuracy"] for metrics in epochs(Trial(tmp_path, max_epochs=15), **arguments)) > 0.93


def test_full_batches_by_rprop_learn(tmp_path: Path) -> None:
    measured = epochs(Trial(tmp_path, max_epochs=40), optimizer="rprop", batch_size=65536, activation="tanh", learning_rate=0.01)
    assert max(metrics["val_accuracy"] for metrics in measured) > 0.9


@pytest.mark.parametrize(
    ("dataset", "arguments", "metric", "least"),
    [
        ("fashion-mnist", {"learning_rate": 1e-3, "width": 128, "train_size": 10_000, "val_size": 2_000}, "val_accuracy", 0.78),
        ("mnist", {"learning_rate": 1e-3, "width": 128, "train_size": 10_000, "val_size": 2_000}, "val_accuracy", 0.9),
        ("sst2", {"optimizer": "adam", "depth": 0, "batch_size": 16, "train_size": 20_000}, "val_accuracy", 0.74),
        ("proben1", {"problem": "cancer1", "loss": "squared_error", "batch_size": 4}, "val_accuracy", 0.9),
    ],
)
def test_it_learns(dataset: str, arguments: dict[str, Any], metric: str, least: float, tmp_path: Path) -> None:
    needs(dataset)
    measured = epochs(Trial(tmp_path, max_epochs=2), dataset=dataset, **arguments)
    assert measured[-1][metric] > least


def test_a_restored_trial_yields_what_an_uninterrupted_one_does(tmp_path: Path) -> None:
    arguments = {"dropout": 0.3, "weight_decay": 0.01, "report_every": 20}
    expected = unclocked(epochs(Trial(tmp_path, max_epochs=5), **arguments))
    cut = Trial(tmp_path, max_epochs=5)
    running = mlp.train(cut, learning_rate=1e-2, dataset="digits", width=32, batch_size=32, **arguments)
    assert unclocked(next(running) for _ in range(2)) == expected[:2]
    cut.write()
    assert unclocked(epochs(Trial(tmp_path, max_epochs=5, restored=True), **arguments)) == expected[2:]


@pytest.mark.parametrize("arguments", [{}, {"batch_norm": True, "widths": "8-4"}, {"depth": 0, "loss": "squared_error"}], ids=str)
def test_the_model_is_rebuilt_from_its_arguments_and_checkpoint(arguments: dict[str, Any], tmp_path: Path) -> None:
    chosen = {"learning_rate": 1e-2, "width": 8, "dropout": 0.5, "dataset": "digits", "batch_size": 64, "max_epochs": 3, **arguments}
    trial = Trial(tmp_path, max_epochs=3)
    measured = list(mlp.train(trial, **chosen))
    trial.write()
    state = checkpoints.load(tmp_path)
    net = mlp.build(**chosen)
    net.load_state_dict(state["model"])
    assert state["example"].shape == (2, 64)
    assert state["example"].dtype == torch.float32
    split = datasets.load(Source(dataset="digits"))
    with torch.no_grad():
        right = net.eval()(split.val.x.dense(slice(0, len(split.val)))).argmax(1) == split.val.y
    assert right.float().mean().item() == pytest.approx(measured[-1]["val_accuracy"], abs=1e-6)


def test_two_classes_are_one_logit() -> None:
    needs("proben1")
    assert mlp.build(dataset="proben1", problem="cancer1")(torch.zeros(4, 9)).shape == (4, 1)
    assert mlp.build(dataset="proben1", problem="cancer1", loss="squared_error")(torch.zeros(4, 9)).shape == (4, 2)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="training on a GPU is not tested: none here")
def test_it_learns_on_a_gpu(tmp_path: Path) -> None:
    measured = epochs(Trial(tmp_path, device="cuda:0", max_epochs=15), dropout=0.1)
    assert max(metrics["val_accuracy"] for metrics in measured) > 0.95


def test_no_gradient_is_left_to_autograd_that_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The written gradient is what makes it fast."""
    monkeypatch.setattr(mlp, "autograd", None)
    assert len(epochs(Trial(tmp_path), activation="tanh", dropout=0.2)) == 2
    with pytest.raises(TypeError):
        epochs(Trial(tmp_path), batch_norm=True)

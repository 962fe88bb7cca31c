"""The convolutional network is the one that is described, fits its images, exports, learns and goes on bit for bit."""

from __future__ import annotations

import inspect
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hpo import checkpoints
from hpo.declarations import find_declared
from hpo.trainer import RunningTrial, TrainerError
from tests.dataset_machine import needs
from tests.trials import Trial, unclocked
from trainers.convnet import ConvNet, build, train

pytestmark = pytest.mark.usefixtures("one_thread", "module_cache")


def network(image: tuple[int, int, int] = (1, 8, 8), **changes: Any) -> ConvNet:
    torch.manual_seed(0)
    return ConvNet(image, 10, **{"channels": 4, "width": 16, **changes})


SMALL: dict[str, Any] = {"dataset": "digits", "train_size": 256, "batch_size": 32, "learning_rate": 0.01, "channels": 4, "width": 16}


def epochs(trial: RunningTrial, **changes: Any) -> list[dict[str, float]]:
    return unclocked(train(trial, **{**SMALL, **changes}))


def test_it_takes_what_is_declared() -> None:
    declared = find_declared("convnet")
    assert declared is not None
    parameters = dict(list(inspect.signature(train).parameters.items())[1:])
    assert parameters.keys() == declared.arguments.keys() - {"max_epochs"}
    assert {name: p.default for name, p in parameters.items()} == {name: declared.arguments[name].default for name in parameters}


@pytest.mark.parametrize("blocks", [1, 2, 3])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_its_parameters_are_those_of_the_layers(blocks: int, batch_norm: bool) -> None:
    net = network((3, 9, 13), blocks=blocks, batch_norm=batch_norm)
    counts = [3, *(4 * 2**block for block in range(blocks))]
    convolutions = sum((9 * before + 1) * after for before, after in itertools.pairwise(counts))
    norms = sum(2 * count for count in counts[1:]) if batch_norm else 0
    hidden = (counts[-1] * (9 // 2**blocks) * (13 // 2**blocks) + 1) * 16
    assert sum(p.numel() for p in net.parameters()) == convolutions + norms + hidden + 17 * 10
    assert net(torch.rand(5, 3 * 9 * 13)).shape == (5, 10)


@pytest.mark.parametrize(("side", "most"), [(8, 3), (28, 4), (1, 0), (15, 3)])
def test_more_blocks_than_pixels_allow_are_refused(side: int, most: int) -> None:
    if most:
        assert network((1, side, side + 1), blocks=most)(torch.rand(2, side * (side + 1))).shape == (2, 10)
    with pytest.raises(TrainerError, match=f"blocks: {most + 1} halve {side} x {side + 1} pixels to nothing; at most {most} are possible"):
        network((1, side, side + 1), blocks=most + 1)


def test_pooling_before_relu_changes_neither_output_nor_gradient() -> None:
    net, x = network(), torch.randn(6, 64)

    def published(x: Tensor) -> Tensor:
        x = x.view(-1, 1, 8, 8)
        for convolution in net.convolutions:
            x = F.max_pool2d(F.relu(convolution(x)), 2)
        return net.out(F.relu(net.hidden(x.flatten(1))))  # type: ignore[no-any-return]

    gradients = []
    for forward in (net, published):
        net.zero_grad()
        forward(x).square().sum().backward()
        gradients.append([p.grad.clone() for p in net.parameters() if p.grad is not None])
    assert torch.allclose(net(x), published(x), atol=1e-6)
    assert all(torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5) for ours, theirs in zip(*gradients, strict=True))


def test_dropout_is_for_training_only() -> None:
    net, x = network(dropout=0.5), torch.rand(4, 64)
    assert not torch.equal(net.train()(x), net(x))
    assert torch.equal(net.eval()(x), net(x))


@pytest.mark.parametrize("batch_norm", [False, True])
def test_it_exports_for_any_number_of_rows(batch_norm: bool) -> None:
    net = network(batch_norm=batch_norm, dropout=0.3).eval()
    program = torch.export.export(net, (torch.rand(2, 64),), dynamic_shapes=({0: torch.export.Dim("rows", min=1)},))
    for rows in (1, 2, 50):
        x = torch.rand(rows, 64)
        assert torch.allclose(program.module()(x), net(x), atol=1e-6)


def test_it_learns_digits(tmp_path: Path) -> None:
    found = epochs(Trial(tmp_path, max_epochs=6), train_size=None, channels=8, width=32, batch_norm=True, schedule="cosine")
    assert found[-1]["val_accuracy"] > 0.95


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "rmsprop"])
def test_it_goes_on_bit_for_bit(optimizer: str, tmp_path: Path) -> None:
    changes = {"optimizer": optimizer, "batch_norm": True, "dropout": 0.2, "shift": 1, "rotation": 5.0, "schedule": "cosine"}
    whole = epochs(Trial(tmp_path), **changes)
    first = Trial(tmp_path)
    begun = train(first, **{**SMALL, **changes})
    next(begun)
    first.write()
    begun.close()
    assert epochs(Trial(tmp_path, restored=True), **changes) == whole[1:]


def test_its_champion_is_built_from_the_trials_arguments(tmp_path: Path) -> None:
    trial = Trial(tmp_path, max_epochs=1)
    epochs(trial, batch_norm=True)
    trial.write()
    net = build(dataset="digits", learning_rate=0.01, channels=4, width=16, batch_norm=True, max_epochs=1)
    state = checkpoints.load(tmp_path)
    net.load_state_dict(state["model"])
    assert isinstance(net, nn.Module)
    assert state["example"].dtype == torch.float32
    assert net.eval()(state["example"]).shape == (2, 10)


def test_what_is_no_image_is_refused() -> None:
    needs("proben1")
    with pytest.raises(TrainerError, match="ConvNet needs images"):
        build(dataset="proben1", learning_rate=0.01)

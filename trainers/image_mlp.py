"""Trains a multilayer perceptron on small grey images: digits, MNIST or Fashion-MNIST, one thread and no DataLoader."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hpo.trainer import Metrics, RunningTrial
from trainers import datasets
from trainers.datasets import Split
from trainers.mlp import Mlp, fast_arithmetic, write_gradient

EVALUATION_BATCH = 2500


def train(
    trial: RunningTrial,
    *,
    learning_rate: float,
    weight_decay: float = 0.0,
    dropout: float = 0.0,
    width: int = 128,
    dataset: str = "fashion-mnist",
    batch_size: int = 128,
    depth: int = 2,
    optimizer: Literal["adam", "sgd"] = "adam",
    decay: Literal["decoupled", "coupled"] = "decoupled",
    train_size: int | None = None,
    val_size: int | None = None,
) -> Generator[Metrics, None, None]:
    """Yield train_loss, train_accuracy, val_loss and val_accuracy (losses in nats, accuracies in 0..1) after each epoch.

    The training metrics are means over the epoch's minibatches as they were trained, dropout and all. Weights decay,
    biases do not. A trial that goes on from its checkpoint yields, on the same CPU, the very numbers that it would
    have yielded uninterrupted. Raises DataError where the dataset is missing or too small.
    """
    split = datasets.load(dataset, train_size, val_size, trial.device)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(trial.seed)
        net = build(width=width, depth=depth, dropout=dropout, dataset=dataset).to(trial.device)
    descent = _optimizer(net, optimizer, decay, learning_rate, weight_decay)
    generator = torch.Generator(trial.device).manual_seed(trial.seed + 2**31)  # seeds have 31 bits: not the weights' stream
    done = _restore(trial.restored(), net, descent, generator)
    example = _images(split.x_val[:2], split)
    for epoch in range(done + 1, trial.max_epochs + 1):
        with fast_arithmetic(), torch.no_grad():
            trained = _train_epoch(net, descent, split, batch_size, generator)
            measured = _evaluate(net, split)
        metrics = torch.stack([*trained, *measured]).tolist()
        trial.save(
            model=net.state_dict(),
            optimizer=descent.state_dict(),
            generator=generator.get_state(),
            epoch=epoch,
            example=example,
        )
        yield dict(zip(("train_loss", "train_accuracy", "val_loss", "val_accuracy"), metrics, strict=True))


def build(*, width: int = 128, depth: int = 2, dropout: float = 0.0, dataset: str = "fashion-mnist", **_: Any) -> Mlp:
    """The untrained model of a trial's parameters and settings (those that do not shape it are ignored).

    It maps float32 images [N, pixels] scaled to 0..1 to logits [N, classes]; `load_state_dict` takes a checkpoint's
    `model`. Needs no data.
    """
    known = datasets.shape(dataset)
    return Mlp(known.pixels, known.classes, width=width, depth=depth, dropout=dropout)


class DecoupledSGD(torch.optim.SGD):
    """SGD whose weight decay shrinks the weights by `lr * weight_decay` a step instead of adding to the gradient.

    Source: Loshchilov & Hutter 2019, "Decoupled Weight Decay Regularization", algorithm 1.
    """

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        decays = [group["weight_decay"] for group in self.param_groups]
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
            group["weight_decay"] = 0.0
        loss = super().step(closure)
        for group, decay in zip(self.param_groups, decays, strict=True):
            group["weight_decay"] = decay
        return loss


def _optimizer(net: nn.Module, name: str, decay: str, learning_rate: float, weight_decay: float) -> torch.optim.Optimizer:
    weights = [p for p in net.parameters() if p.ndim > 1]
    biases = [p for p in net.parameters() if p.ndim == 1]
    groups = [{"params": weights, "weight_decay": weight_decay}, {"params": biases, "weight_decay": 0.0}]
    match name, decay:
        case "adam", "decoupled":
            return torch.optim.AdamW(groups, learning_rate, fused=True)
        case "adam", "coupled":
            return torch.optim.Adam(groups, learning_rate, fused=True)
        case "sgd", "decoupled":
            return DecoupledSGD(groups, learning_rate, momentum=0.9, fused=True)
        case "sgd", "coupled":
            return torch.optim.SGD(groups, learning_rate, momentum=0.9, fused=True)
    raise ValueError(f"optimizer {name!r} with decay {decay!r}: allowed are adam and sgd, decoupled and coupled")


def _restore(state: Mapping[str, Any] | None, net: nn.Module, descent: torch.optim.Optimizer, generator: torch.Generator) -> int:
    """Bring everything to where the checkpoint left it; returns the epochs that are done."""
    if state is None:
        return 0
    net.load_state_dict(state["model"])
    descent.load_state_dict(state["optimizer"])
    generator.set_state(state["generator"])
    return int(state["epoch"])


def _train_epoch(
    net: Mlp, descent: torch.optim.Optimizer, split: Split, batch_size: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Loss and accuracy, both scalar tensors, over one pass in a fresh order; nothing here waits for the device."""
    net.train()
    targets = F.one_hot(split.y, split.classes).float()
    order = torch.randperm(len(split.x), generator=generator, device=split.x.device)
    logits = []
    for batch in torch.split(order, batch_size):
        x = _images(split.x.index_select(0, batch), split)
        logits.append(write_gradient(net, x, targets.index_select(0, batch), generator))
        descent.step()
    return _loss_and_accuracy(torch.cat(logits), split.y[order])


def _evaluate(net: Mlp, split: Split) -> tuple[Tensor, Tensor]:
    """Validation loss and accuracy, both scalar tensors, without dropout."""
    net.eval()
    logits = torch.cat([net(_images(x, split)) for x in torch.split(split.x_val, EVALUATION_BATCH)])
    return _loss_and_accuracy(logits, split.y_val)


def _loss_and_accuracy(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    return F.cross_entropy(logits, labels), (logits.argmax(1) == labels).float().mean()


def _images(x: Tensor, split: Split) -> Tensor:
    return x.float().mul_(split.scale)

"""The one training loop: batches, noise, gradient, step, checkpoints. Knows no dataset and no kind of network."""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, assert_never

import torch
from torch import Tensor, nn

from hpo.trainer import MetricError, Metrics, RunningTrial, TrainerError
from trainers.augmentation import Augmentation
from trainers.evaluation import EVALUATION_ROWS, evaluate, takes_bags
from trainers.fused import stepper
from trainers.gradients import Gradient, autograd, autograd_in_bfloat16, choose_library
from trainers.losses import loss_of
from trainers.optimizers import make_optimizer, weights_of
from trainers.products import fast_arithmetic
from trainers.recipe import Recipe
from trainers.regularisation import add_l1_gradient, limit_norms, noisy, perturbed
from trainers.replay import Replay, recorder_for
from trainers.schedules import factor
from trainers.seeds import seed_of, seeded
from trainers.splits import Bags, DenseRows, Split


def fit(trial: RunningTrial, net: nn.Module, split: Split, recipe: Recipe, gradient: Gradient = autograd) -> Generator[Metrics, None, None]:
    """Train `net` by the recipe; yields after each epoch, which is a pass over the training set, or `report_every` steps.

    Yields, an epoch at a time:
      train_loss, train_accuracy    means over the epoch's batches as they were trained: with dropout, noise, augmentation
                                    and label smoothing, each before its step; without the penalties on weights
      val_loss, val_accuracy        after the epoch, without any of these; values have no accuracy
      generalisation_gap            val_loss - train_loss
      learning_rate                 of the epoch's last step
      epoch_seconds                 of the whole epoch with its validation
      examples_per_second           trained on in these seconds
      mean_abs_weight_1, ...        with layer_statistics, of each weight from input to output, after the epoch
      mean_abs_gradient_1, ...      and of its gradient in the epoch's last step, L1 included, weight decay not

    `gradient` is how a step's gradient is computed in float32; with `precision: bfloat16` it is `autograd_in_bfloat16`.
    `net` is moved to the trial's device, where `split` must be. If it `takes_bags`, bags of words reach it as `Bags`, else
    as dense rows. A trial that goes on from its checkpoint yields, on the same kind of processor, the very numbers that it
    would have yielded uninterrupted, but for the speed: the order of each pass and the draws of each epoch come from
    generators of their own, seeded by the trial's seed. Raises MetricError where a loss is no finite number, and
    TrainerError where the recipe does not fit the examples.
    """
    training = _Training(trial, net.to(trial.device), split, recipe, gradient)
    example = split.val.x.dense(slice(0, 2))
    with contextlib.closing(training):
        yield from _epochs(trial, training, example)


def _epochs(trial: RunningTrial, training: _Training, example: Tensor) -> Iterator[Metrics]:
    net, recipe = training.net, training.recipe
    for epoch in range(training.restore(trial.restored()) + 1, trial.max_epochs + 1):
        began = time.perf_counter()
        with fast_arithmetic(), torch.no_grad():
            training.train(epoch)
            metrics = training.measured()
        seconds = time.perf_counter() - began
        _check(metrics, epoch, recipe)
        metrics["generalisation_gap"] = metrics["val_loss"] - metrics["train_loss"]
        metrics["learning_rate"] = training.optimizer.param_groups[0]["lr"]
        metrics |= {"epoch_seconds": seconds, "examples_per_second": training.examples / seconds}
        trial.save(model=net.state_dict(), optimizer=training.optimizer.state_dict(), epoch=epoch, example=example)
        yield metrics


def _check(metrics: Mapping[str, float], epoch: int, recipe: Recipe) -> None:
    """A network of NaNs has an accuracy, that of its first class: only its losses show what it is."""
    for name in ("train_loss", "val_loss"):
        if not math.isfinite(metrics[name]):
            raise MetricError(
                f"{name} was {metrics[name]} at epoch {epoch}: training diverged; "
                f"lower learning_rate (here {recipe.learning_rate:g}), or raise warmup_epochs"
            )


class _Training:
    """A network being trained: what stays the same from step to step, and the steps."""

    def __init__(self, trial: RunningTrial, net: nn.Module, split: Split, recipe: Recipe, gradient: Gradient) -> None:
        self.seed, self.device = trial.seed, trial.device
        self.net, self.recipe = net, recipe
        match recipe.precision:
            case "float32":
                self.gradient = gradient
            case "bfloat16":
                self.gradient = autograd_in_bfloat16
            case _:
                assert_never(recipe.precision)
        self.split = replace(split, train=replace(split.train, x=split.train.x.ready()), val=replace(split.val, x=split.val.x.ready()))
        self.loss = loss_of(recipe, split)
        self.optimizer = make_optimizer(net, recipe)
        self.weights = weights_of(net)
        self.targets = self.loss.targets(split.train.y)
        self.augmentation = Augmentation(recipe.shift, recipe.rotation, recipe.scaling, recipe.flip, split.image, split.flips)
        self.batch_size = min(recipe.batch_size, len(split.train))
        self.size = _examples_of_a_pass(net, len(split.train), self.batch_size)
        self.pass_steps = -(-self.size // self.batch_size)
        self.epoch_steps = recipe.report_every or self.pass_steps
        self.total_steps = trial.max_epochs * self.epoch_steps
        self.warmup_steps = round(recipe.warmup_epochs * self.epoch_steps)
        self.generator = torch.Generator(trial.device)
        self.is_scheduled = recipe.schedule != "constant" or self.warmup_steps > 0

    def restore(self, state: Mapping[str, Any] | None) -> int:
        """Bring everything to where the checkpoint left it, or to the start; returns the epochs that are done."""
        epoch = 0
        if state is not None:
            epoch = int(state["epoch"])
            self.net.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
        done = epoch * self.epoch_steps
        self.step = stepper(self.optimizer)
        self.batches = self._batches(done)
        self.numbers: Iterator[Tensor] = (rows for order in self._orders(done) for rows in torch.split(order, self.batch_size))
        self.replay = self._made_replay()
        return epoch

    def close(self) -> None:
        """Let go what refers back to this, so that its memory is free now, and not when Python looks for such circles."""
        self.replay = None
        self.batches, self.numbers = iter(()), iter(())

    def train(self, epoch: int) -> None:
        """The steps of an epoch; nothing here waits for the device, where the examples are dense."""
        self.net.train()
        first = (epoch - 1) * self.epoch_steps
        seed = seed_of(self.seed, "epoch", epoch)
        self.generator.manual_seed(seed)
        self.rows: list[Tensor] = []
        self.outputs: list[Tensor] = []
        with seeded(seed + 1, self.device):
            if self.replay is not None:
                self._train_replayed(self.replay, first)
                return
            for step, (x, targets, rows) in enumerate(itertools.islice(self.batches, self.epoch_steps), first):
                if self.is_scheduled:
                    self._set_rate(step)
                self.outputs.append(self._step(x, targets))
                self.rows.append(rows)

    def _train_replayed(self, replay: Replay, first: int) -> None:
        """As `train`, where whole batches are recorded steps; smaller ones, at the end of a pass, are not."""
        self.rows = list(itertools.islice(self.numbers, self.epoch_steps))
        whole = [len(rows) == self.batch_size for rows in self.rows]
        rates = [self._rate(step) for step in itertools.compress(itertools.count(first), whole)]
        outputs = iter(replay.begin(list(itertools.compress(self.rows, whole)), rates).unbind())
        for step, (rows, is_whole) in enumerate(zip(self.rows, whole, strict=True), first):
            if is_whole:
                replay.next()
                self.outputs.append(next(outputs))
            else:
                self._set_rate(step)
                self.outputs.append(self._step_on(rows))
        if whole[-1]:
            replay.end()
        self._set_rate(first + len(whole) - 1)

    def measured(self) -> dict[str, float]:
        """Losses and accuracies of the epoch, and the layers' statistics."""
        rows = torch.cat(self.rows)
        self.examples = len(rows)
        train_loss, train_accuracy = self.loss.measure(torch.cat(self.outputs), self.split.train.y[rows], training=True)
        choose_library(self.net, min(EVALUATION_ROWS, len(self.split.val)), sparse=not isinstance(self.split.val.x, DenseRows))
        val_loss, val_accuracy = evaluate(self.net, self.split.val, self.loss)
        found = {"train_loss": train_loss, "train_accuracy": train_accuracy, "val_loss": val_loss, "val_accuracy": val_accuracy}
        if self.recipe.layer_statistics:
            found |= {f"mean_abs_weight_{i}": weight.abs().mean() for i, weight in enumerate(self.weights, 1)}
            found |= {
                f"mean_abs_gradient_{i}": weight.grad.abs().mean() for i, weight in enumerate(self.weights, 1) if weight.grad is not None
            }
        present = {name: value for name, value in found.items() if value is not None}
        return dict(zip(present, torch.stack(list(present.values())).tolist(), strict=True))

    def _orders(self, step: int) -> Iterator[Tensor]:
        """The row numbers of each pass in their order, from this step on."""
        number, done = divmod(step, self.pass_steps)
        while True:
            shuffled = torch.Generator(self.device).manual_seed(seed_of(self.seed, "order", number))
            yield torch.randperm(len(self.split.train), generator=shuffled, device=self.device)[done * self.batch_size : self.size]
            number, done = number + 1, 0

    def _batches(self, step: int) -> Iterator[tuple[Tensor | Bags, Tensor, Tensor]]:
        """Inputs, targets and row numbers of each step from this one on, pass after pass."""
        for order in self._orders(step):
            targets = torch.split(self.targets.index_select(0, order), self.batch_size)
            yield from zip(self._inputs(order), targets, torch.split(order, self.batch_size), strict=True)

    def _inputs(self, order: Tensor) -> Iterable[Tensor | Bags]:
        rows = self.split.train.x
        if isinstance(rows, DenseRows) or (takes_bags(self.net) and not self.recipe.input_noise):
            return rows.batches(order, self.batch_size)
        return map(rows.dense, torch.split(order, self.batch_size))

    def _made_replay(self) -> Replay | None:
        """What replays the steps of whole batches, where that pays; sparse rows are of another size in each batch."""
        if not self.recipe.cuda_graphs or not isinstance(self.split.train.x, DenseRows):
            return None
        recorder = recorder_for(self.net, self.optimizer, self.generator, self.total_steps)
        if recorder is None:
            return None
        sizes = {"most": self.epoch_steps, "size": self.batch_size, "outputs": self.loss.outputs}
        return Replay(recorder, self.net, self.optimizer, self._step_on, **sizes)

    def _step_on(self, rows: Tensor) -> Tensor:
        """One step on the examples with these numbers."""
        return self._step(self.split.train.x.dense(rows), self.targets.index_select(0, rows))

    def _step(self, x: Tensor | Bags, targets: Tensor) -> Tensor:
        """One step on this batch; returns its outputs [n, outputs]."""
        recipe, generator = self.recipe, self.generator
        if not isinstance(x, Bags):
            x = self.augmentation(x, generator) if self.augmentation.active else x
            x = noisy(x, recipe.input_noise, generator) if recipe.input_noise else x
        if recipe.weight_noise or recipe.dropconnect:
            with perturbed(self.weights, noise=recipe.weight_noise, dropconnect=recipe.dropconnect, generator=generator):
                outputs = self.gradient(self.net, x, targets, self.loss, generator)
        else:
            outputs = self.gradient(self.net, x, targets, self.loss, generator)
        if recipe.l1:
            add_l1_gradient(self.weights, recipe.l1)
        self.step()
        if recipe.max_norm is not None:
            limit_norms(self.weights, recipe.max_norm)
        return outputs

    def _rate(self, step: int) -> float:
        return self.recipe.learning_rate * factor(self.recipe.schedule, step, self.total_steps, self.warmup_steps)

    def _set_rate(self, step: int) -> None:
        rate = self._rate(step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate


def _examples_of_a_pass(net: nn.Module, examples: int, batch_size: int) -> int:
    """All, but batch norm knows no variance of one example: one that is left over for the last batch sits the pass out."""
    if not any(isinstance(module, nn.BatchNorm1d) for module in net.modules()):
        return examples
    if batch_size == 1:
        raise TrainerError(f"batch_norm: a batch of one example has no variance ({examples} to train on); set batch_size to 2 or more")
    return examples - (examples % batch_size == 1)

"""The optimizer of a recipe, and which parameters it may shrink. Knows no data and no loss."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable, Sequence
from types import FunctionType
from typing import Any

import torch
from torch import nn
from torch.optim import SGD, Adam, Optimizer

from hpo.trainer import TrainerError
from trainers.recipe import Recipe

RMSPROP_MEMORY = 0.99
RMSPROP_AGE = 1e6  # steps, after which Adam's correction for its young averages, 1 - .99 ** age, is 1
RPROP_GROWTH, RPROP_CUT = 0.2, 0.5  # eta+ is 1 + growth, eta- is 1 - cut
RPROP_SMALLEST, RPROP_LARGEST = 1e-6, 50.0  # steps


def weights_of(net: nn.Module) -> list[nn.Parameter]:
    """The parameters that decay and are regularised: those of more than one dimension.

    Biases and the parameters of normalisation have one and are left alone (Goodfellow et al. 2016, section 7.1).
    """
    return [p for p in net.parameters() if p.ndim > 1 and p.requires_grad]


def make_optimizer(net: nn.Module, recipe: Recipe) -> Optimizer:
    """The optimizer that the recipe names, over all trainable parameters of the network.

    With gradient g, learning rate r, weight decay d and weights w (biases never decay):
      sgd      v = momentum v + g;  w -= r v   (Goodfellow et al. 2016, "Deep Learning", algorithm 8.2)
      rmsprop  v = .99 v + .01 g^2;  w -= r g / (sqrt v + 1e-8)   (Hinton et al. 2012, lecture 6e; as torch's RMSprop)
      adam     Kingma & Ba 2015, algorithm 1, with its defaults; adamw is adam with decoupled decay
      rprop    see `Rprop`; r is only where the steps begin (0.1 in Riedmiller & Braun 1993)
    Coupled decay adds d w to g (L2, Goodfellow et al. 2016, eq. 7.3); decoupled decay takes r d w from w at each step, r as the
    schedule has it (Loshchilov & Hutter 2019, "Decoupled Weight Decay Regularization", algorithms 1 and 2). For sgd without
    momentum they are the same, for adam, rmsprop and rprop they are not.

    The caller may change `param_groups[i]["lr"]` between steps. Gradients must be laid out in memory as their parameters are
    (autograd's are): the fused kernels do not look. A parameter that is a view with gaps gets memory of its own. Raises
    TrainerError where the recipe contradicts itself.
    """
    _check(recipe)
    _close_gaps(net)
    _leave_the_compiler_out()
    optimizer = _made(net, recipe)
    optimizer.register_load_state_dict_post_hook(_lay_out)
    return optimizer


def _made(net: nn.Module, recipe: Recipe) -> Optimizer:
    weights = weights_of(net)
    chosen = {id(weight) for weight in weights}
    others = [p for p in net.parameters() if p.requires_grad and id(p) not in chosen]
    rate, decay = recipe.learning_rate, recipe.weight_decay
    decoupled = recipe.optimizer == "adamw" or recipe.decay == "decoupled"
    plain: list[dict[str, Any]] = [{"params": weights}, {"params": others}]
    decayed: list[dict[str, Any]] = [{"params": weights, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]
    match recipe.optimizer:
        case "adam" | "adamw":
            return _begun(Adam(decayed, rate, decoupled_weight_decay=decoupled, fused=True), age=0.0)
        case "rmsprop":
            return _rmsprop(decayed, rate, decoupled=decoupled)
        case "sgd" if decoupled:
            return _with_decay(_sgd(plain, recipe), weights, decay, decoupled=True)
        case "sgd":
            return _sgd(decayed, recipe)
        case "rprop":
            return _with_decay(Rprop(plain, rate), weights, decay, decoupled=decoupled)


def _check(recipe: Recipe) -> None:
    if recipe.optimizer == "adamw" and recipe.decay == "coupled":
        raise TrainerError("optimizer adamw is Adam with decoupled decay, and decay is coupled; for Adam with L2 choose optimizer adam")
    if recipe.optimizer == "rprop" and (recipe.schedule != "constant" or recipe.warmup_epochs):
        raise TrainerError(
            f"optimizer rprop adapts a step size for each weight and follows no learning rate, and schedule is {recipe.schedule} "
            f"with warmup_epochs {recipe.warmup_epochs:g}; choose schedule constant and warmup_epochs 0, or another optimizer"
        )


def _sgd(groups: Iterable[dict[str, Any]], recipe: Recipe) -> SGD:
    """SGD with velocities of 0 from the start: torch's fused kernel fails where a parameter has its first gradient after others."""
    optimizer = SGD(groups, recipe.learning_rate, recipe.momentum, fused=True)
    if recipe.momentum:
        for p in (p for group in optimizer.param_groups for p in group["params"]):
            optimizer.state[p] = {"momentum_buffer": torch.zeros_like(p)}
    return optimizer


def _rmsprop(groups: Iterable[dict[str, Any]], rate: float, *, decoupled: bool) -> Adam:
    """RMSprop by the fused kernel of Adam, in half the time of torch's own: Adam without its first average and corrections.

    Adam of this age with betas 0 and .99 is v = .99 v + .01 g^2; w -= r g / (sqrt v + 1e-8).
    """
    return _begun(Adam(groups, rate, (0.0, RMSPROP_MEMORY), decoupled_weight_decay=decoupled, fused=True), RMSPROP_AGE)


def _begun(optimizer: Adam, age: float) -> Adam:
    """Adam with averages of 0 from the start, `age` steps old: its own way to make them, in its first step, imports torch's compiler.

    A checkpoint may lack those of a parameter that had no gradient yet: they are made when it is loaded.
    """

    def begin(adam: Optimizer) -> None:
        for p in (p for group in adam.param_groups for p in group["params"] if not adam.state.get(p)):
            step = torch.tensor(age, device=p.device)
            adam.state[p] = {"step": step, "exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}

    begin(optimizer)
    optimizer.register_load_state_dict_post_hook(begin)
    return optimizer


def _leave_the_compiler_out() -> None:
    """Have the methods of torch's optimizers not import its compiler, which takes 1.2 s, only to be hidden from it.

    Each remembers at its first call how it is hidden (torch/_compile.py). From a compiler that is imported later they are not hidden;
    where it is there already, nothing is changed. `step` imports it in another way, which `fused.stepper` goes round for Adam on a CPU.
    """
    compiling = getattr(torch, "_compile", None)
    if compiling is None or "torch._dynamo" in sys.modules:
        return
    for method in vars(Optimizer).values():
        if isinstance(method, FunctionType) and method.__code__.co_filename == compiling.__file__:
            hidden: Any = inspect.unwrap(method)
            hidden.__dynamo_disable = hidden


class Rprop(Optimizer):
    """A step size for each weight, which grows while the gradient's sign stays and shrinks where it turns.

    With s = sign(g) and its predecessor s', the step is multiplied by 1.2 (eta+) where s s' > 0, by .5 (eta-) where s s' < 0, and
    kept within 1e-6 and 50; then w -= step s, but where s s' < 0 the weight waits and s counts as 0 (no weight is taken back).
    Meant for full batches. Four times as fast as torch's, and the same up to rounding.

    Source: Riedmiller & Braun 1993, "A direct adaptive method for faster backpropagation learning: the RPROP algorithm";
    without taking back as in Igel & Hüsken 2000, "Improving the Rprop learning algorithm", iRprop-.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], rate: float) -> None:
        super().__init__(groups, {"lr": rate})
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p] = {"sign": torch.zeros_like(p), "step_size": torch.full_like(p, rate)}

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # noqa: ARG002  # the base class names it
        for p in (p for group in self.param_groups for p in group["params"] if p.grad is not None):
            state = self.state[p]
            sign = p.grad.sign()
            agreement = state["sign"].mul_(sign)
            state["step_size"].mul_(agreement.clamp(-RPROP_CUT, RPROP_GROWTH).add_(1)).clamp_(RPROP_SMALLEST, RPROP_LARGEST)
            sign.mul_(agreement.add_(1).sign_())  # 0 where the sign turned
            p.addcmul_(sign, state["step_size"], value=-1)
            state["sign"] = sign


def _close_gaps(net: nn.Module) -> None:
    """Memory without gaps for each parameter that is a view with some: its gradient has none, and fused kernels assume one layout."""
    for p in net.parameters():
        if torch.empty_like(p).stride() != p.stride():
            p.data = p.detach().clone()


def _lay_out(optimizer: Optimizer) -> None:
    """Put what a checkpoint brought into the memory layout of its parameter (channels last, transposed): fused kernels assume it."""
    for p, state in optimizer.state.items():
        for name, value in state.items():
            if torch.is_tensor(value) and value.shape == p.shape and value.stride() != p.stride():
                state[name] = torch.empty_like(p).copy_(value)


def _with_decay(optimizer: Optimizer, weights: Sequence[nn.Parameter], decay: float, *, decoupled: bool) -> Optimizer:
    """The optimizer, which from now on lets the weights decay before each of its steps, as torch's own do."""

    @torch.no_grad()
    def before(stepping: Optimizer, _args: Any, _kwargs: Any) -> None:
        rate = stepping.param_groups[0]["lr"]
        for weight in weights:
            if weight.grad is None:
                continue
            if decoupled:
                weight.mul_(1 - rate * decay)
            else:
                weight.grad.add_(weight, alpha=decay)

    if decay:
        optimizer.register_step_pre_hook(before)
    return optimizer

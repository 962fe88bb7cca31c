"""The optimizers step as published, decay touches weights only, and a state that comes from a checkpoint goes on bit for bit."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn

from hpo import checkpoints
from hpo.trainer import TrainerError
from trainers.optimizers import make_optimizer, weights_of
from trainers.recipe import Optimizer, Recipe

OPTIMIZERS = get_args(Optimizer)
DECAYING = [(name, decay) for name in OPTIMIZERS for decay in ("decoupled", "coupled") if (name, decay) != ("adamw", "coupled")]
OWN: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": lambda p, **more: torch.optim.SGD(p, 0.01, momentum=0.9, **more),
    "rmsprop": lambda p, **more: torch.optim.RMSprop(p, 0.01, **more),
    "adam": lambda p, **more: torch.optim.Adam(p, 0.01, **more),
    "adamw": lambda p, **more: torch.optim.AdamW(p, 0.01, **{"weight_decay": 0.0} | more),
    "rprop": lambda p, **more: torch.optim.Rprop(p, 0.01, **more),
}

pytestmark = pytest.mark.usefixtures("one_thread")


class Scalar(nn.Module):
    """One weight and one bias, both `start`."""

    def __init__(self, start: float) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.full((1, 1), start)), nn.Parameter(torch.full((1,), start))


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(7, 5), nn.Tanh(), nn.LayerNorm(5), nn.Linear(5, 3))


def descend(net: nn.Module, optimizer: torch.optim.Optimizer, steps: Iterable[int], penalty: float = 0.0) -> Tensor:
    """Steps on random batches, their numbers the seeds, with `penalty * w` added to each weight's gradient; all parameters."""
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        x, y = torch.randn(32, 7, generator=generator), torch.randint(3, (32,), generator=generator)
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        for weight in weights_of(net):
            weight.grad = weight.grad + penalty * weight.detach() if weight.grad is not None else None
        optimizer.step()
    return flat(net)


def flat(net: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in net.parameters()])


def moved_by(gradients: Iterable[float], recipe: Recipe, start: float = 0.0) -> list[float]:
    """Where a single weight is after each of these gradients."""
    net = Scalar(start)
    optimizer = make_optimizer(net, recipe)
    places = []
    for gradient in gradients:
        net.weight.grad, net.bias.grad = torch.full((1, 1), gradient), torch.zeros(1)
        optimizer.step()
        places.append(net.weight.item())
    return places


def test_weights_are_what_has_more_than_one_dimension_and_is_trained() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 4), nn.Linear(4, 2))
    net[4].requires_grad_(False)
    assert [tuple(weight.shape) for weight in weights_of(net)] == [(2, 1, 3, 3), (4, 8)]


@pytest.mark.parametrize(
    ("optimizer", "gradients", "places"),
    [
        ("sgd", [1.0, 1.0, 0.0], [-0.1, -0.1 - 0.19, -0.1 - 0.19 - 0.171]),
        ("rmsprop", [3.0, 4.0], [-1.0, -1.0 - 0.1 * 4 / (0.99 * 0.01 * 9 + 0.01 * 16) ** 0.5]),
        ("adam", [3.0, 3.0], [-0.1, -0.2]),
        ("adamw", [3.0, 3.0], [-0.1, -0.2]),
        # grows, grows, turns: waits and halves; then there is no sign to agree with, then it grows again; 0 leaves all as it is
        ("rprop", [5.0, 0.1, 7.0, -1.0, -1.0, -2.0, 0.0], [-0.1, -0.22, -0.364, -0.364, -0.292, -0.2056, -0.2056]),
    ],
)
def test_steps_are_those_of_the_formula(optimizer: Any, gradients: list[float], places: list[float]) -> None:
    assert moved_by(gradients, Recipe(learning_rate=0.1, optimizer=optimizer)) == pytest.approx(places, abs=1e-6)


def test_rprop_keeps_its_steps_within_bounds() -> None:
    places = [0.0, *moved_by([1.0] * 60, Recipe(learning_rate=0.1, optimizer="rprop"))]
    assert places[-2] - places[-1] == pytest.approx(50)
    waits = moved_by([1.0, -1.0, 0.0] * 30, Recipe(learning_rate=0.1, optimizer="rprop"))
    assert waits[-4] - waits[-3] == pytest.approx(1e-6, abs=3e-8)  # a step after each 0 of the sign: halved 29 times, it would be 2e-10


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_it_goes_where_torchs_own_goes(name: Any) -> None:
    ours, theirs = network(), network()
    found = descend(ours, make_optimizer(ours, Recipe(learning_rate=0.01, optimizer=name)), range(50))
    assert torch.allclose(found, descend(theirs, OWN[name](theirs.parameters()), range(50)), atol=2e-6)


@pytest.mark.parametrize(("name", "decay"), [("sgd", "coupled"), ("rmsprop", "coupled"), ("adam", "coupled"), ("adamw", "decoupled")])
def test_decay_is_torchs_own_where_torch_has_it(name: Any, decay: Any) -> None:
    ours, theirs = network(), network()
    recipe = Recipe(learning_rate=0.01, optimizer=name, weight_decay=0.1)  # decay None means what the name means
    found = descend(ours, make_optimizer(ours, recipe), range(50))
    chosen = weights_of(theirs)
    groups = [{"params": chosen, "weight_decay": 0.1}, {"params": [p for p in theirs.parameters() if p.ndim == 1]}]
    assert torch.allclose(found, descend(theirs, OWN[name](groups), range(50)), atol=2e-6)
    explicit = network()
    optimizer = make_optimizer(explicit, Recipe(learning_rate=0.01, optimizer=name, weight_decay=0.1, decay=decay))
    assert torch.equal(found, descend(explicit, optimizer, range(50)))


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name != "adamw"])
def test_coupled_decay_is_a_gradient(name: Any) -> None:
    ours, theirs = network(), network()
    coupled = make_optimizer(ours, Recipe(learning_rate=0.01, optimizer=name, weight_decay=0.1, decay="coupled"))
    plain = make_optimizer(theirs, Recipe(learning_rate=0.01, optimizer=name))
    assert torch.allclose(descend(ours, coupled, range(20)), descend(theirs, plain, range(20), penalty=0.1), atol=2e-6)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_decoupled_decay_shrinks_beside_the_step(name: Any) -> None:
    ours, theirs = network(), network()
    decoupled = make_optimizer(ours, Recipe(learning_rate=0.01, optimizer=name, weight_decay=2.0, decay="decoupled"))
    plain = make_optimizer(theirs, Recipe(learning_rate=0.01, optimizer=name))
    for step in range(20):
        descend(ours, decoupled, [step])
        shrunk = [weight.detach() * (0.01 * 2.0) for weight in weights_of(theirs)]
        descend(theirs, plain, [step])
        with torch.no_grad():
            for weight, difference in zip(weights_of(theirs), shrunk, strict=True):
                weight.sub_(difference)
    assert torch.allclose(flat(ours), flat(theirs), atol=2e-6)


@pytest.mark.parametrize(("name", "decay"), DECAYING)
def test_biases_never_decay(name: Any, decay: Any) -> None:
    net = Scalar(1.0)
    optimizer = make_optimizer(net, Recipe(learning_rate=0.01, optimizer=name, weight_decay=0.5, decay=decay))
    for _ in range(3):
        net.weight.grad, net.bias.grad = torch.zeros(1, 1), torch.zeros(1)
        optimizer.step()
    assert net.bias.item() == 1
    assert net.weight.item() < 1 - 1e-3
    if decay == "decoupled":
        assert net.weight.item() == pytest.approx((1 - 0.01 * 0.5) ** 3)


@pytest.mark.parametrize(
    ("name", "momentum", "agree"), [("sgd", 0.0, True), ("sgd", 0.9, False), ("adam", 0, False), ("rmsprop", 0, False), ("rprop", 0, False)]
)
def test_both_decays_agree_for_plain_sgd_alone(name: Any, momentum: float, agree: bool) -> None:
    nets = []
    for decay in ("decoupled", "coupled"):
        net = network()
        recipe = Recipe(learning_rate=0.1, optimizer=name, momentum=momentum, weight_decay=0.1, decay=decay)  # type: ignore[arg-type]
        nets.append(descend(net, make_optimizer(net, recipe), range(20)))
    assert torch.allclose(*nets, atol=1e-6) == agree


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name != "rprop"])
def test_the_learning_rate_of_the_groups_counts_at_each_step(name: Any) -> None:
    net = Scalar(1.0)
    optimizer = make_optimizer(net, Recipe(learning_rate=0.1, optimizer=name, weight_decay=0.5, decay="decoupled"))
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    net.weight.grad, net.bias.grad = torch.ones(1, 1), torch.ones(1)
    optimizer.step()
    assert (net.weight.item(), net.bias.item()) == (1, 1)


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        (Recipe(learning_rate=0.1, optimizer="adamw", decay="coupled"), "choose optimizer adam"),
        (Recipe(learning_rate=0.1, optimizer="rprop", schedule="cosine"), "schedule is cosine with warmup_epochs 0; choose"),
        (Recipe(learning_rate=0.1, optimizer="rprop", warmup_epochs=0.5), "warmup_epochs 0.5; choose"),
    ],
)
def test_what_contradicts_itself_is_refused(recipe: Recipe, words: str) -> None:
    with pytest.raises(TrainerError, match=words):
        make_optimizer(network(), recipe)


class Transposed(nn.Sequential):
    """A network whose first weight lies in memory as [inputs, outputs]."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(7, 5), nn.Tanh(), nn.Linear(5, 3))
        self[0].weight = nn.Parameter(self[0].weight.detach().t().contiguous().t())


@pytest.mark.parametrize(("name", "decay"), DECAYING)
@pytest.mark.parametrize("make", [network, Transposed])
def test_it_goes_on_from_a_checkpoint_bit_for_bit(name: Any, decay: Any, make: Callable[[], nn.Module], tmp_path: Path) -> None:
    recipe = Recipe(learning_rate=0.01, optimizer=name, weight_decay=0.01, decay=decay)
    net = make()
    optimizer = make_optimizer(net, recipe)
    descend(net, optimizer, range(5))
    checkpoints.save(tmp_path / "saved", {"model": net.state_dict(), "optimizer": optimizer.state_dict()})
    through = descend(net, optimizer, range(5, 9))

    state, again = checkpoints.load(tmp_path / "saved"), make()
    fresh = make_optimizer(again, recipe)
    again.load_state_dict(state["model"])
    fresh.load_state_dict(state["optimizer"])
    assert torch.equal(descend(again, fresh, range(5, 9)), through)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_parameter_that_is_a_view_with_gaps_goes_where_any_other_goes(name: Any) -> None:
    """Its gradient lies in memory without gaps, and the fused kernels go through both as if they lay alike."""
    places = []
    for gaps in (False, True):
        net = network()
        wide = torch.cat([net[0].weight.detach(), torch.full((5, 4), 7.0)], 1)
        if gaps:
            net[0].weight = nn.Parameter(wide[:, :7])
        places.append(descend(net, make_optimizer(net, Recipe(learning_rate=0.01, optimizer=name, weight_decay=0.01)), range(5)))
        assert torch.equal(wide[:, 7:], torch.full((5, 4), 7.0))
    assert torch.equal(*places)


@pytest.mark.parametrize("make", [network, Transposed])
def test_dense_parameters_keep_their_memory(make: Callable[[], nn.Module]) -> None:
    net = make()
    before = [(p.data_ptr(), p.stride()) for p in net.parameters()]
    make_optimizer(net, Recipe())
    assert [(p.data_ptr(), p.stride()) for p in net.parameters()] == before


@pytest.mark.parametrize(("name", "decay"), DECAYING)
def test_a_frozen_parameter_stays(name: Any, decay: Any) -> None:
    net = network()
    net[0].requires_grad_(False)
    before = net[0].weight.clone()
    descend(net, make_optimizer(net, Recipe(learning_rate=0.01, optimizer=name, weight_decay=0.5, decay=decay)), range(2))
    assert torch.equal(net[0].weight, before)


WITHOUT_COMPILER = """
import sys
import torch
from trainers.fused import stepper
from trainers.optimizers import make_optimizer
from trainers.recipe import Recipe

for name in ("adam", "adamw", "rmsprop"):
    net = torch.nn.Linear(3, 2)
    optimizer = make_optimizer(net, Recipe(optimizer=name, weight_decay=0.1))
    step = stepper(optimizer)
    for p in net.parameters():
        p.grad = torch.ones_like(p)
    step()
    optimizer.load_state_dict(optimizer.state_dict())
    optimizer.zero_grad()
print("torch._dynamo" in sys.modules)
"""


def test_adam_and_rmsprop_do_not_import_torchs_compiler() -> None:
    """It takes longer than a hundred epochs of a small network. (sgd does, and a network that leaves a layer out of a step.)"""
    done = subprocess.run([sys.executable, "-c", WITHOUT_COMPILER], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"

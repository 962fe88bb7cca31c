"""The loop: what it yields, that it goes on bit for bit wherever it was cut, and that each part of a recipe reaches the net."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import nn

from hpo.trainer import MetricError, TrainerError
from tests.trials import Trial, dense_split, made_dense, sparse_split, unclocked, values_split
from trainers import evaluation, loop, products, seeds
from trainers.fused import stepper
from trainers.losses import BinaryCrossEntropy, CrossEntropy, loss_of
from trainers.optimizers import make_optimizer
from trainers.perceptron import Mlp, write_gradient
from trainers.recipe import Optimizer, Recipe, Schedule
from trainers.splits import Split

METRICS = [
    "train_loss", "train_accuracy", "val_loss", "val_accuracy", "generalisation_gap", "learning_rate", "epoch_seconds",
    "examples_per_second",
]  # fmt: skip
BASE = Recipe(learning_rate=0.01, batch_size=16)

pytestmark = pytest.mark.usefixtures("one_thread")


def fitted(trial: Trial, split: Split, net: dict[str, Any] | None = None, gradient: loop.Gradient | None = None, **recipe: Any) -> Any:
    """The epochs of a small perceptron, by the written gradient where there is one."""
    chosen = Recipe(**{"learning_rate": 0.01, "batch_size": 16, **recipe})
    with seeds.seeded(trial.seed):
        mlp = Mlp(split.columns, loss_of(chosen, split).outputs, **{"sizes": (8, 6), **(net or {})})
    return loop.fit(trial, mlp, split, chosen, gradient or (write_gradient if mlp.is_plain else loop.autograd))


SPLITS = {"images": dense_split, "bags": sparse_split}
CASES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("images", {}, {}),
    ("bags", {}, {}),
    ("images", {"dropout": 0.3}, {"report_every": 3}),
    ("bags", {"dropout": 0.3}, {"report_every": 3}),
    ("bags", {"sizes": ()}, {"report_every": 7, "max_norm": 0.5}),
    ("images", {"batch_norm": True, "dropout": 0.2}, {"report_every": 4}),
    ("bags", {"batch_norm": True, "dropout": 0.2}, {"schedule": "cosine", "label_smoothing": 0.1}),
    ("images", {"activation": "gelu"}, {"weight_noise": 0.05, "dropconnect": 0.2, "report_every": 2}),
    ("images", {}, {"input_noise": 0.1, "shift": 1, "rotation": 10.0, "scaling": 0.1, "flip": True, "report_every": 3}),
    ("bags", {}, {"input_noise": 0.1, "l1": 1e-3, "layer_statistics": True, "warmup_epochs": 1.5}),
    *(("bags", {}, {"optimizer": name, "weight_decay": 0.01}) for name in get_args(Optimizer)),
    *(("images", {}, {"optimizer": name, "weight_decay": 0.01, "momentum": 0.5}) for name in get_args(Optimizer)),
    *(("images", {}, {"schedule": name, "warmup_epochs": 0.5, "report_every": 3}) for name in get_args(Schedule)),
    *((data, {"dropout": 0.2}, {"precision": "bfloat16", "weight_noise": 0.05}) for data in ("images", "bags")),
]


@pytest.mark.parametrize(("data", "net", "recipe"), CASES, ids=str)
def test_a_restored_trial_yields_what_an_uninterrupted_one_does(
    data: str, net: dict[str, Any], recipe: dict[str, Any], tmp_path: Path
) -> None:
    split = SPLITS[data]()
    whole, cut = Trial(tmp_path, max_epochs=5), Trial(tmp_path, max_epochs=5)
    expected = unclocked(fitted(whole, split, net, **recipe))
    assert len(expected) == 5
    assert unclocked(itertools.islice(fitted(cut, split, net, **recipe), 2)) == expected[:2]
    cut.write()
    resumed = Trial(tmp_path, max_epochs=5, restored=True)
    torch.manual_seed(99)  # the global generator plays no part
    assert unclocked(fitted(resumed, split, net, **recipe)) == expected[2:]
    for name, tensor in resumed.state["model"].items():
        assert torch.equal(tensor, whole.state["model"][name]), name


@pytest.mark.parametrize("net", [{}, {"batch_norm": True}], ids=str)
def test_bfloat16_rounds_products_and_nothing_else(net: dict[str, Any], tmp_path: Path) -> None:
    split = dense_split()
    trials = {precision: Trial(tmp_path, max_epochs=3) for precision in ("float32", "bfloat16")}
    exact, rounded = (unclocked(fitted(trial, split, net, precision=precision)) for precision, trial in trials.items())
    assert exact != rounded
    for one, other in zip(exact, rounded, strict=True):
        assert one["val_loss"] == pytest.approx(other["val_loss"], rel=0.03)
    state = trials["bfloat16"].state
    with seeds.seeded(0):
        mlp = Mlp(split.columns, split.outputs, **{"sizes": (8, 6), **net})
    mlp.load_state_dict(state["model"])
    with torch.no_grad(), products.fast_arithmetic():  # validation is in float32
        mlp.choose_library(len(split.val), sparse=False)
        assert float(evaluation.evaluate(mlp, split.val, loss_of(Recipe(), split))[0]) == rounded[-1]["val_loss"]
    kept = [*state["model"].values(), *(value for of in state["optimizer"]["state"].values() for value in of.values())]
    assert {tensor.dtype for tensor in kept if tensor.is_floating_point()} == {torch.float32}


@pytest.mark.parametrize("recipe", [{}, {"report_every": 2, "shift": 1, "input_noise": 0.1, "weight_noise": 0.1}])
def test_the_seed_decides_and_nothing_else(recipe: dict[str, Any], tmp_path: Path) -> None:
    split = dense_split()
    torch.manual_seed(5)
    state = torch.get_rng_state()
    net = {"dropout": 0.2, "batch_norm": True}
    first = unclocked(fitted(Trial(tmp_path, seed=1), split, net, **recipe))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    assert unclocked(fitted(Trial(tmp_path, seed=1), split, net, **recipe)) == first
    assert unclocked(fitted(Trial(tmp_path, seed=2), split, net, **recipe)) != first
    again = torch.Generator().manual_seed(0)
    orders = {
        tuple(torch.randperm(9, generator=again.manual_seed(seeds.seed_of(seed, "order", n))).tolist()) for seed in (1, 2) for n in (0, 1)
    }
    assert len(orders) == 4


# ---- what is yielded


@pytest.mark.parametrize(
    ("split", "recipe", "expected"),
    [
        (dense_split(), {}, METRICS),
        (sparse_split(), {"report_every": 2}, METRICS),
        (values_split(), {"loss": "squared_error"}, [name for name in METRICS if "accuracy" not in name]),
    ],
    ids=["classes", "two classes", "values"],
)
def test_the_names_of_the_metrics(split: Split, recipe: dict[str, Any], expected: list[str], tmp_path: Path) -> None:
    for metrics in fitted(Trial(tmp_path), split, **recipe):
        assert list(metrics) == expected
        assert metrics["generalisation_gap"] == metrics["val_loss"] - metrics["train_loss"]
        examples = metrics["examples_per_second"] * metrics["epoch_seconds"]
        assert examples == pytest.approx(round(examples))
        assert metrics["epoch_seconds"] > 0


def test_what_is_reported_is_what_happened(tmp_path: Path) -> None:
    """Without randomness in the net, one step of the full batch: its loss is that before, the other that after it."""
    split = dense_split()
    trial = Trial(tmp_path, max_epochs=1)
    with seeds.seeded(trial.seed):
        before = Mlp(split.columns, 3, sizes=(8, 6))
    loss = CrossEntropy(3)
    (metrics,) = fitted(trial, split, batch_size=10_000, layer_statistics=True)
    assert metrics["train_loss"] == pytest.approx(evaluation.evaluate(before, split.train, loss)[0].item())
    before.train()
    outputs = before(split.train.x.dense(slice(0, 70)))
    loss.measure(outputs, split.train.y)[0].backward()
    for i, layer in enumerate(before.linears, 1):
        assert layer.weight.grad is not None
        assert metrics[f"mean_abs_gradient_{i}"] == pytest.approx(layer.weight.grad.abs().mean().item(), rel=1e-4)
    before.load_state_dict(trial.state["model"])
    val_loss, val_accuracy = evaluation.evaluate(before, split.val, loss)
    assert val_accuracy is not None
    assert (metrics["val_loss"], metrics["val_accuracy"]) == pytest.approx((val_loss.item(), val_accuracy.item()))
    for i, layer in enumerate(before.linears, 1):
        assert metrics[f"mean_abs_weight_{i}"] == pytest.approx(layer.weight.abs().mean().item())
    assert trial.state["example"].dtype == torch.float32
    assert torch.equal(trial.state["example"], split.val.x.dense(slice(0, 2)))


def test_reports_by_steps_go_on_through_the_passes(tmp_path: Path) -> None:
    """Five steps make a pass: three reports of five steps are three epochs, and five of three end at the same weights."""
    split = dense_split()
    by_pass, by_steps = Trial(tmp_path, max_epochs=3), Trial(tmp_path, max_epochs=5)
    passes = list(fitted(by_pass, split))
    reports = list(fitted(by_steps, split, report_every=3))
    assert torch.equal(by_pass.state["model"]["layers.0.weight"], by_steps.state["model"]["layers.0.weight"])
    assert passes[-1]["val_loss"] == reports[-1]["val_loss"]
    assert [list(fitted(Trial(tmp_path, max_epochs=3), split, report_every=5))[i]["train_loss"] for i in range(3)] == [
        metrics["train_loss"] for metrics in passes
    ]


@pytest.mark.parametrize("report_every", [None, 2])
def test_the_learning_rate_follows_the_schedule(report_every: int | None, tmp_path: Path) -> None:
    rates = [
        metrics["learning_rate"]
        for metrics in fitted(Trial(tmp_path, max_epochs=4), dense_split(), schedule="linear", warmup_epochs=2, report_every=report_every)
    ]
    steps = report_every or 5
    last = [(epoch + 1) * steps - 1 for epoch in range(4)]
    expected = [0.01 * ((s + 1) / (2 * steps + 1) if s < 2 * steps else 1 - (s - 2 * steps) / (2 * steps)) for s in last]
    assert rates == pytest.approx(expected)


@pytest.mark.parametrize(
    ("rate", "named"), [(math.nan, "train_loss was nan at epoch 2"), (1e30, "(train|val)_loss was (nan|inf) at epoch 1")]
)
def test_what_diverges_fails(rate: float, named: str, tmp_path: Path) -> None:
    """Argmax finds class 0 in NaNs: the accuracy alone would look like that of a bad net."""
    split = dense_split()
    trial = Trial(tmp_path, max_epochs=9)
    with seeds.seeded(1):
        net = Mlp(split.columns, 3, sizes=(8,))
    epochs = loop.fit(
        trial, net, split, Recipe(learning_rate=rate if rate == 1e30 else 0.01, batch_size=16, optimizer="sgd"), write_gradient
    )
    if math.isnan(rate):
        next(epochs)
        with torch.no_grad():
            net.linears[0].weight[0, 0] = rate
    with pytest.raises(MetricError, match=f"{named}: training diverged; lower learning_rate"):
        list(epochs)


# ---- kinds of data and nets


@pytest.mark.parametrize("counts", [True, False])
@pytest.mark.parametrize("net", [{"sizes": ()}, {}, {"batch_norm": True}], ids=str)
def test_sparse_rows_train_as_dense_ones_do(counts: bool, net: dict[str, Any], tmp_path: Path) -> None:
    split = sparse_split(counts=counts)
    sparse = unclocked(fitted(Trial(tmp_path, max_epochs=4), split, net, layer_statistics=True, optimizer="sgd"))
    dense = unclocked(fitted(Trial(tmp_path, max_epochs=4), made_dense(split), net, layer_statistics=True, optimizer="sgd"))
    for one, other in zip(sparse, dense, strict=True):
        assert one == pytest.approx(other, rel=1e-4, abs=1e-6)


def test_a_module_that_takes_no_bags_gets_dense_rows(tmp_path: Path) -> None:
    split = sparse_split()
    net = nn.Sequential(nn.Linear(split.columns, 4), nn.ReLU(), nn.Dropout(0.5), nn.Linear(4, 1))
    first, *_, last = loop.fit(Trial(tmp_path, max_epochs=20), net, split, BASE)
    assert last["train_loss"] < first["train_loss"]


class Doubling(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mul_(2)


@pytest.mark.parametrize("split", [values_split(), made_dense(sparse_split()), dense_split()], ids=["values", "floats", "bytes"])
def test_a_module_may_write_into_its_inputs(split: Split, tmp_path: Path) -> None:
    """Rows of floats are mapped as they are, and what validates is read in slices: they must not be doubled at each epoch."""
    recipe = Recipe(learning_rate=1e-30, loss="squared_error", batch_size=16)
    before = [part.x.dense(slice(None)).clone() for part in (split.train, split.val)]
    net = nn.Sequential(Doubling(), nn.Linear(split.columns, split.outputs))
    losses = [metrics["val_loss"] for metrics in loop.fit(Trial(tmp_path, max_epochs=3), net, split, recipe)]
    assert losses[0] == losses[1] == losses[2]
    for part, x in zip((split.train, split.val), before, strict=True):
        assert torch.equal(part.x.dense(slice(None)), x)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_autograd_trains_as_the_written_gradient_does(activation: str, tmp_path: Path) -> None:
    net = {"activation": activation}
    written = unclocked(fitted(Trial(tmp_path, max_epochs=3), dense_split(), net, write_gradient))
    graph = unclocked(fitted(Trial(tmp_path, max_epochs=3), dense_split(), net, loop.autograd))
    for one, other in zip(written, graph, strict=True):
        assert one == pytest.approx(other, rel=1e-4)


def test_values_are_learned(tmp_path: Path) -> None:
    first, *_, last = fitted(Trial(tmp_path, max_epochs=200), values_split(), {"sizes": ()}, loss="squared_error", learning_rate=0.05)
    assert last["val_loss"] < 1e-3 < first["val_loss"]


@pytest.mark.parametrize(("examples", "batch_size", "used"), [(33, 16, 32), (32, 16, 32), (34, 16, 34), (3, 100, 3)])
def test_batch_norm_leaves_a_lone_last_example_out(examples: int, batch_size: int, used: int) -> None:
    assert loop._examples_of_a_pass(Mlp(5, 3, sizes=(4,), batch_norm=True), examples, min(batch_size, examples)) == used
    assert loop._examples_of_a_pass(Mlp(5, 3, sizes=(4,)), examples, min(batch_size, examples)) == examples


def test_batch_norm_refuses_batches_of_one(tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match=r"batch_norm: a batch of one example has no variance \(70 to train on\); set batch_size"):
        next(fitted(Trial(tmp_path), dense_split(), {"batch_norm": True}, batch_size=1))


# ---- each part of a recipe reaches the net


@pytest.mark.parametrize(
    "part",
    [
        {"weight_decay": 0.5}, {"l1": 0.01}, {"max_norm": 0.1}, {"schedule": "cosine"}, {"warmup_epochs": 1.0}, {"label_smoothing": 0.2},
        {"dropconnect": 0.5}, {"weight_noise": 0.5}, {"input_noise": 0.5}, {"shift": 2}, {"rotation": 30.0}, {"scaling": 0.3},
        {"flip": True}, {"loss": "squared_error"}, {"optimizer": "sgd"}, {"optimizer": "rmsprop"}, {"optimizer": "rprop"},
        {"batch_size": 7}, {"optimizer": "adam", "weight_decay": 0.5, "decay": "decoupled"},
    ],
    ids=str,
)  # fmt: skip
def test_each_part_changes_what_is_learned(part: dict[str, Any], tmp_path: Path) -> None:
    plain, other = Trial(tmp_path), Trial(tmp_path)
    list(fitted(plain, dense_split()))
    list(fitted(other, dense_split(), **part))
    assert not torch.allclose(plain.state["model"]["layers.0.weight"], other.state["model"]["layers.0.weight"])


def test_max_norm_holds_after_every_epoch(tmp_path: Path) -> None:
    trial = Trial(tmp_path)
    for _ in fitted(trial, sparse_split(), max_norm=0.3):
        assert trial.state["model"]["layers.0.weight"].norm(dim=1).max() <= 0.3 + 1e-6


def test_noise_on_weights_leaves_no_trace_in_them(tmp_path: Path) -> None:
    """With a rate of 1e-30 nothing moves, whatever the noise: what was added is taken away to the bit."""
    trial = Trial(tmp_path)
    split = dense_split()
    with seeds.seeded(1):
        net = Mlp(split.columns, 3, sizes=(8,))
    before = [p.detach().clone() for p in net.parameters()]
    list(loop.fit(trial, net, split, Recipe(learning_rate=1e-30, weight_noise=1.0, dropconnect=0.5, optimizer="sgd"), write_gradient))
    for old, new in zip(before, net.parameters(), strict=True):
        assert torch.equal(old, new)


# ---- evaluation and steps


def test_evaluation_is_the_same_in_one_batch_and_in_many(monkeypatch: pytest.MonkeyPatch) -> None:
    split = sparse_split()
    net, other = Mlp(split.columns, 1, sizes=(4,), dropout=0.5), nn.Linear(split.columns, 1)
    with torch.no_grad():
        whole = [evaluation.evaluate(n, split.val, BinaryCrossEntropy()) for n in (net, other)]
        monkeypatch.setattr(evaluation, "EVALUATION_FLOATS", 7 * split.columns)
        torch.testing.assert_close([evaluation.evaluate(n, split.val, BinaryCrossEntropy()) for n in (net, other)], whole)


@pytest.mark.parametrize("recipe", [Recipe(optimizer=name, weight_decay=0.1) for name in get_args(Optimizer)], ids=lambda r: r.optimizer)
def test_the_direct_step_is_the_optimizers(recipe: Recipe) -> None:
    torch.manual_seed(0)
    nets = [Mlp(9, 3, sizes=(5, 4)) for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    optimizers = [make_optimizer(net, recipe) for net in nets]
    steps = [stepper(optimizers[0]), optimizers[1].step]
    for turn in range(5):
        for net, optimizer, step in zip(nets, optimizers, steps, strict=True):
            torch.manual_seed(turn)
            for p in net.parameters():
                p.grad = torch.empty_like(p).copy_(torch.randn(p.shape))
            for group in optimizer.param_groups:
                group["lr"] = 0.1 / (turn + 1)
            step()
    for one, other in zip(*(net.parameters() for net in nets), strict=True):
        assert torch.equal(one, other)
    for one, other in zip(*(optimizer.state.values() for optimizer in optimizers), strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("name", get_args(Optimizer))
@pytest.mark.parametrize("turns", [[(0, 1), (0, 1), (0,), (0, 1), (1,), (0, 1)], [(0,), (0, 1), (1,), (0, 1), (0, 1)]])
def test_a_layer_may_sit_a_step_out(name: Any, turns: list[tuple[int, ...]]) -> None:
    """As with stochastic depth: what has no gradient stays, and goes on with its next one as if the others' steps had not been."""
    net, alone = nn.ModuleList([nn.Linear(3, 2), nn.Linear(3, 2)]), [nn.Linear(3, 2), nn.Linear(3, 2)]
    for layer, copy in zip(net, alone, strict=True):
        copy.load_state_dict(layer.state_dict())
    recipe = Recipe(optimizer=name, weight_decay=0.1)
    step, steps = stepper(make_optimizer(net, recipe)), [make_optimizer(layer, recipe).step for layer in alone]
    for turn, present in enumerate(turns):
        net.zero_grad()
        for number in present:
            for p, other in zip(net[number].parameters(), alone[number].parameters(), strict=True):
                p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(turn))
                other.grad = p.grad.clone()
            steps[number]()
        step()
        for layer, copy in zip(net, alone, strict=True):
            assert torch.equal(layer.weight, copy.weight)
            assert torch.equal(layer.bias, copy.bias)


@pytest.mark.parametrize("name", ["adam", "adamw", "rmsprop"])
def test_a_checkpoint_may_lack_the_state_of_what_had_no_gradient_yet(name: Any) -> None:
    """As an earlier version wrote it, and torch does: the state is as new, and its age the optimizer's own."""
    net, fresh = nn.ModuleList([nn.Linear(3, 2), nn.Linear(3, 2)]), nn.Linear(3, 2)
    fresh.load_state_dict(net[1].state_dict())
    optimizer, alone = make_optimizer(net, Recipe(optimizer=name)), make_optimizer(fresh, Recipe(optimizer=name))
    written = optimizer.state_dict()
    ours = {
        number for number, p in enumerate(p for group in optimizer.param_groups for p in group["params"]) if p in set(net[1].parameters())
    }
    written["state"] = {number: of for number, of in written["state"].items() if number not in ours}
    assert len(written["state"]) == 2
    optimizer.load_state_dict(written)
    for p in (*net.parameters(), *fresh.parameters()):
        p.grad = torch.ones_like(p)
    stepper(optimizer)()
    stepper(alone)()
    assert torch.equal(net[1].weight, fresh.weight)


def test_a_parameter_without_a_gradient_is_left_alone() -> None:
    net = nn.ModuleList([nn.Linear(3, 2), nn.Linear(3, 2)])
    step = stepper(make_optimizer(net, BASE))
    before = net[1].weight.detach().clone()
    for _ in range(3):
        for p in net[0].parameters():
            p.grad = torch.ones_like(p)
        step()
    assert torch.equal(net[1].weight, before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="training on a GPU is not tested: none here")
@pytest.mark.parametrize(("data", "net", "recipe"), CASES, ids=str)
def test_it_trains_on_a_gpu(data: str, net: dict[str, Any], recipe: dict[str, Any], tmp_path: Path) -> None:
    from trainers.module import _on

    split = _on(SPLITS[data](), "cuda:0")
    expected = unclocked(fitted(Trial(tmp_path, max_epochs=2, device="cuda:0"), split, net, **recipe))
    assert all(math.isfinite(value) for metrics in expected for value in metrics.values())

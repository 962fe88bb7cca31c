"""Steps recorded once and launched as one: the same numbers as one by one, whatever the recipe, and to the bit wherever it was cut.

They read their learning rate as float32: where that is another number, they agree to rounding.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import Optimizer

from tests.test_loop import CASES, SPLITS, fitted
from tests.trials import Trial, dense_split, unclocked
from trainers import loop, replay
from trainers.module import _on
from trainers.recipe import Recipe

pytestmark = pytest.mark.usefixtures("one_thread")

DENSE = [case for case in CASES if case[0] == "images"]
RATE = 2**-7  # exact in float32, as which a recorded step reads it


class Recording:
    """Stands in for a CUDA graph on a CPU: work is not done while it is recorded.

    Whenever it is done later, it is with the settings of then, and gradients lie where they lay then; what Python's attributes say at
    that time it neither sees nor changes.
    """

    def __init__(self, net: nn.Module, optimizer: Optimizer, generator: torch.Generator) -> None:
        self.net, self.optimizer, self.launched, self.warmed = net, optimizer, 0, 0
        self.generators = [generator, torch.default_generator]

    def warm(self, work: Callable[[], None]) -> None:
        self.warmed += 1
        work()

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        parameters, groups = list(self.net.parameters()), self.optimizer.param_groups
        lying = [torch.zeros_like(p) for p in parameters]
        for p, gradient in zip(parameters, lying, strict=True):
            p.grad = gradient
        settings = [dict(group) for group in groups]

        def launch() -> None:
            self.launched += 1
            gradients, now = [p.grad for p in parameters], [dict(group) for group in groups]
            for group, then in zip(groups, settings, strict=True):
                group.update(then)
            work()
            for group, was in zip(groups, now, strict=True):
                group.update(was)
            for p, gradient, old in zip(parameters, lying, gradients, strict=True):
                assert p.grad is not None
                gradient.copy_(p.grad)
                p.grad = old

        return launch


class Twice(Recording):
    """Records what does two steps at once, which no other numbers show before the end of an epoch."""

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        def twice() -> None:
            work()
            work()

        return super().record(twice)


class Frozen(Recording):
    """Records what draws the same random numbers whenever it is launched."""

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        def frozen() -> None:
            states = [generator.get_state() for generator in self.generators]
            work()
            for generator, state in zip(self.generators, states, strict=True):
                generator.set_state(state)

        return super().record(frozen)


class Refusing(Recording):
    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        raise RuntimeError(f"operation not permitted when stream is capturing {work.__name__}")


@pytest.fixture
def recordings(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> list[Recording]:
    """What recorded for each trial, where `trainers.replay` would record on a GPU."""
    made: list[Recording] = []
    kind = getattr(request, "param", Recording)

    def recorder_for(net: nn.Module, optimizer: Optimizer, generator: torch.Generator, steps: int) -> Recording | None:
        monkeypatch.setattr(replay, "CudaGraphs", lambda _device, _own: kind(net, optimizer, generator))
        on_gpu = type("Generator", (), {"device": torch.device("cuda:0")})
        found = found_for(net, optimizer, on_gpu, steps)
        return made.append(found) or found if found else None

    found_for: Any = replay.recorder_for
    monkeypatch.setattr(replay, "WORTH", 5)
    monkeypatch.setattr(replay, "_failed", False)
    monkeypatch.setattr(loop, "recorder_for", recorder_for)
    return made


@pytest.mark.parametrize(("data", "net", "recipe"), DENSE, ids=str)
def test_recorded_steps_yield_what_steps_one_by_one_do(
    data: str, net: dict[str, Any], recipe: dict[str, Any], tmp_path: Path, recordings: list[Recording]
) -> None:
    split, recipe = SPLITS[data](), {"learning_rate": RATE, "layer_statistics": True, **recipe}
    replayed = Trial(tmp_path, max_epochs=5)
    found = unclocked(fitted(replayed, split, net, **recipe))
    if recipe.get("optimizer") == "rprop":
        assert not recordings
        return
    steps = 5 * recipe.get("report_every", 5)
    small = sum(step % 5 == 4 for step in range(steps))  # 70 examples are four batches of 16 and one of 6
    assert (recordings[0].warmed, recordings[0].launched) == (replay.WARM, steps - small - replay.WARM)
    alone = Trial(tmp_path, max_epochs=5)
    expected = unclocked(fitted(alone, split, net, cuda_graphs=False, **recipe))
    assert len(recordings) == 1
    exactly = recipe.get("schedule", "constant") == "constant" and not recipe.get("warmup_epochs")
    for one, other in zip(found, expected, strict=True):
        assert one == (other if exactly else pytest.approx(other, rel=1e-4))
    for name, tensor in replayed.state["model"].items():
        torch.testing.assert_close(tensor, alone.state["model"][name], rtol=0 if exactly else 1e-4, atol=0 if exactly else 1e-6)
    assert _groups(replayed) == _groups(alone)


def _groups(trial: Trial) -> list[dict[str, Any]]:
    """What a checkpoint keeps of the optimizer's settings: nothing of the device, nothing of a recording."""
    groups: list[dict[str, Any]] = trial.state["optimizer"]["param_groups"]
    assert not any(torch.is_tensor(value) for group in groups for value in group.values())
    return groups


@pytest.mark.parametrize(("data", "net", "recipe"), DENSE, ids=str)
@pytest.mark.usefixtures("recordings")
def test_a_restored_trial_goes_on_to_the_bit(data: str, net: dict[str, Any], recipe: dict[str, Any], tmp_path: Path) -> None:
    split = SPLITS[data]()
    recipe = {"learning_rate": RATE, **recipe}
    whole, cut = Trial(tmp_path, max_epochs=5), Trial(tmp_path, max_epochs=5)
    expected = unclocked(fitted(whole, split, net, **recipe))
    assert unclocked(itertools.islice(fitted(cut, split, net, **recipe), 2)) == expected[:2]
    cut.write()
    assert unclocked(fitted(Trial(tmp_path, max_epochs=5, restored=True), split, net, **recipe)) == expected[2:]


@pytest.mark.parametrize("recordings", [Refusing], indirect=True)
def test_what_cannot_be_recorded_is_done_step_by_step(
    tmp_path: Path, recordings: list[Recording], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        found = unclocked(fitted(Trial(tmp_path, max_epochs=3), dense_split(), learning_rate=RATE))
    assert recordings
    assert len(list(fitted(Trial(tmp_path), dense_split()))) == 2
    assert len(recordings) == 1  # in this process it is not tried again
    assert [record.message for record in caplog.records] == [
        "the steps cannot be recorded as a CUDA graph, so each of their kernels is launched by itself: "
        "operation not permitted when stream is capturing _work"
    ]
    assert unclocked(fitted(Trial(tmp_path, max_epochs=3), dense_split(), learning_rate=RATE, cuda_graphs=False)) == found


@pytest.mark.parametrize("recordings", [Twice, Frozen], indirect=True)
@pytest.mark.parametrize("net", [{"dropout": 0.3}, {"batch_norm": True, "dropout": 0.2}], ids=str)
def test_a_recording_that_does_something_else_is_noticed_and_left(
    net: dict[str, Any], tmp_path: Path, recordings: list[Recording], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        found = unclocked(fitted(Trial(tmp_path, max_epochs=3), dense_split(), net, learning_rate=RATE))
    assert recordings[0].launched == 1
    assert [record.message[:60] for record in caplog.records] == ["a step that was recorded as a CUDA graph differs from one by"]
    assert unclocked(fitted(Trial(tmp_path, max_epochs=3), dense_split(), net, learning_rate=RATE, cuda_graphs=False)) == found


def test_only_a_network_that_says_so_is_recorded(tmp_path: Path, recordings: list[Recording]) -> None:
    """A user's network may decide anything in Python, step by step; sparse rows are of another size in each batch."""
    plain = nn.Sequential(nn.Linear(36, 4), nn.ReLU(), nn.Linear(4, 3))
    assert len(list(loop.fit(Trial(tmp_path), plain, dense_split(), Recipe(learning_rate=RATE)))) == 2
    assert len(list(fitted(Trial(tmp_path), SPLITS["bags"]()))) == 2
    assert not any(recording.launched for recording in recordings)
    own = nn.Sequential(nn.Linear(36, 4), nn.ReLU(), nn.Linear(4, 3))
    own.replayable = True  # type: ignore[assignment]
    assert len(list(loop.fit(Trial(tmp_path), own, dense_split(), Recipe(learning_rate=RATE, batch_size=16)))) == 2
    assert recordings[-1].launched


@pytest.mark.parametrize(("device", "steps", "is_recorded"), [("cuda:0", 49, False), ("cuda:0", 50, True), ("cpu", 50, False)])
def test_a_trial_of_a_few_steps_is_not_worth_a_recording(
    device: str, steps: int, is_recorded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = nn.Linear(2, 1)
    net.replayable = True  # type: ignore[assignment]
    monkeypatch.setattr(replay, "CudaGraphs", lambda *_: object())
    generator: Any = type("Generator", (), {"device": torch.device(device)})
    assert (replay.recorder_for(net, torch.optim.SGD(net.parameters()), generator, steps) is not None) is is_recorded


def test_a_resumed_trial_is_recorded_where_an_uninterrupted_one_is(tmp_path: Path, recordings: list[Recording]) -> None:
    """Few steps are left, and their rates are float32 all the same: 1e-3 is no such number."""
    split, recipe = dense_split(), {"learning_rate": 1e-3}
    expected = unclocked(fitted(Trial(tmp_path, max_epochs=3), split, **recipe))
    cut = Trial(tmp_path, max_epochs=3)
    assert unclocked(itertools.islice(fitted(cut, split, **recipe), 2)) == expected[:2]
    cut.write()
    assert unclocked(fitted(Trial(tmp_path, max_epochs=3, restored=True), split, **recipe)) == expected[2:]
    assert len(recordings) == 3


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs are not tested: no GPU here")
@pytest.mark.parametrize(("data", "net", "recipe"), DENSE, ids=str)
def test_a_cuda_graph_yields_what_steps_one_by_one_do(
    data: str, net: dict[str, Any], recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched = []
    theirs = torch.cuda.CUDAGraph.replay
    monkeypatch.setattr(torch.cuda.CUDAGraph, "replay", lambda graph: launched.append(graph) or theirs(graph))
    monkeypatch.setattr(replay, "WORTH", 1)
    split = _on(SPLITS[data](), "cuda:0")
    found = unclocked(fitted(Trial(tmp_path, max_epochs=5, device="cuda:0"), split, net, **recipe))
    expected = unclocked(fitted(Trial(tmp_path, max_epochs=5, device="cuda:0"), split, net, cuda_graphs=False, **recipe))
    for one, other in zip(found, expected, strict=True):
        assert one == pytest.approx(other, rel=1e-3)
    assert bool(launched) is (recipe.get("optimizer") != "rprop")

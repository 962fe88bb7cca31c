"""A step that is recorded once and then launched as one (a CUDA graph), where its thirty kernels would be launched one by one.

On a GPU a step of a small network is bound by those launches, not by its arithmetic (PyTorch names 5 to 10 us each; not measured here).
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from trainers.optimizers import Rprop

WARM = 3  # steps that are not launched as one: libraries make their workspaces in them, which a recording may not
NEAR = 1e-4  # by how much the same sums may differ, absolutely and relatively, where another kernel makes them
WORTH = 50  # steps of a trial from which recording should pay; an estimate, made without a GPU

_log = logging.getLogger(__name__)
_failed = False  # whether a recording failed in this process: torch is not tried again


class Recorder(Protocol):
    """Records work for a device. `generators` are all that the work may draw from, torch's global one among them."""

    generators: Sequence[torch.Generator]

    def warm(self, work: Callable[[], None]) -> None:
        """Do the work now, as it will be recorded."""

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """What does the work whenever it is called; it is not done now. Raises RuntimeError where the work cannot be recorded."""


class CudaGraphs:
    """Records as torch.cuda.CUDAGraph, whose memory lives as long as what `record` returns.

    `own` are the generators that the work draws from besides torch's global one of the device; they may be seeded anew between two calls.
    Source: PyTorch, "CUDA semantics", section "CUDA Graphs".
    """

    def __init__(self, device: str, own: Sequence[torch.Generator]) -> None:
        self._device, self._own = device, own
        self.generators: Sequence[torch.Generator] = [*own, torch.cuda.default_generators[torch.device(device).index or 0]]
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def warm(self, work: Callable[[], None]) -> None:
        """Do the work now, on the stream that will record it."""
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            work()
        current.wait_stream(self._stream)

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """A replay of the kernels that the work launches."""
        graph = torch.cuda.CUDAGraph()
        for generator in self._own:
            graph.register_generator_state(generator)
        current = torch.cuda.current_stream(self._device)
        try:
            with torch.cuda.device(self._device), torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                work()
        except RuntimeError:
            torch.cuda.set_stream(current)  # which torch leaves out where its own end of the recording fails
            raise
        return graph.replay


def recorder_for(net: nn.Module, optimizer: Optimizer, generator: torch.Generator, steps: int) -> Recorder | None:
    """What records the steps of this network, of which a whole trial has so many; None where they are better done one by one.

    Only a network that says that it is `replayable` is recorded: each of its steps must launch the same kernels, whatever the
    numbers. Bags of words, and Rprop, whose signs change places, do not.
    """
    is_fit = getattr(net, "replayable", False) and not isinstance(optimizer, Rprop) and steps >= WORTH and not _failed
    return CudaGraphs(str(generator.device), [generator]) if is_fit and generator.device.type == "cuda" else None


class Replay:
    """Steps on batches of one size, each of which finds its batch and its learning rate by a counter on the device.

    `step(rows)` does one on the examples with these numbers, int64 [size], and returns outputs, float32 [size, outputs]. The first
    recorded step is also done by itself, from the same state: where the two differ, or nothing can be recorded, `step` is called for
    every step. At most `most` steps make an epoch. Learning rates are read as float32.
    """

    def __init__(
        self,
        recorder: Recorder,
        net: nn.Module,
        optimizer: Optimizer,
        step: Callable[[Tensor], Tensor],
        *,
        most: int,
        size: int,
        outputs: int,
    ) -> None:
        self._recorder, self._net, self._optimizer, self._step = recorder, net, optimizer, step
        device = next(net.parameters()).device
        self._launch: Callable[[], None] | None = None
        self._warmed = 0
        self._gradients: list[Tensor | None] = []
        self._parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self._number = torch.zeros(1, dtype=torch.int64, device=device)
        self._rows = torch.zeros(most, size, dtype=torch.int64, device=device)
        self._rates = torch.zeros(most, device=device)
        self._rate = torch.zeros((), device=device)
        self._outputs = torch.zeros(most, size, outputs, device=device)

    def begin(self, rows: Sequence[Tensor], rates: Sequence[float]) -> Tensor:
        """The batches of an epoch, and the learning rate of each; returns where the outputs will be, float32 [steps, size, outputs]."""
        if rows:
            torch.stack(list(rows), out=self._rows[: len(rows)])
            self._rates[: len(rows)] = torch.tensor(list(rates))
        self._number.zero_()
        return self._outputs[: len(rows)]

    def next(self) -> None:
        """The next step of the epoch. The groups' learning rates are what they were before, when it is over."""
        if self._launch is not None:
            self._launch()
            return
        with self._rates_on_the_device():
            if self._warmed < WARM:
                self._warmed += 1
                self._recorder.warm(self._work)
                return
            recorded = self._recorded()
            self._launch = recorded if recorded is not None and self._is_right(recorded) else self._alone
            if recorded is None:
                self._work()

    def end(self) -> None:
        """After the last step of an epoch, if it was one of these: `.grad` is that step's, whatever came in between."""
        for p, gradient in zip(self._parameters, self._gradients, strict=False):
            p.grad = gradient

    def _recorded(self) -> Callable[[], None] | None:
        global _failed  # noqa: PLW0603  # about this process, as torch is
        try:
            launch = self._recorder.record(self._work)
        except RuntimeError as error:
            _failed = True
            _log.warning("the steps cannot be recorded as a CUDA graph, so each of their kernels is launched by itself: %s", error)
            return None
        self._gradients = [p.grad for p in self._parameters]
        return launch

    def _is_right(self, recorded: Callable[[], None]) -> bool:
        """Do one step, and say whether the recorded one comes from the same state to the same, generators included."""
        global _failed  # about this process, as torch is
        state = self._state()
        before, drawn = [tensor.clone() for tensor in state], [generator.get_state() for generator in self._recorder.generators]
        recorded()
        found, advanced = [tensor.clone() for tensor in state], [generator.get_state() for generator in self._recorder.generators]
        for tensor, was in zip(state, before, strict=True):
            tensor.copy_(was)
        for generator, was in zip(self._recorder.generators, drawn, strict=True):
            generator.set_state(was)
        self._work()
        agrees = (torch.allclose(*pair, rtol=NEAR, atol=NEAR, equal_nan=True) for pair in zip(found, state, strict=True))
        advances = (torch.equal(one, other.get_state()) for one, other in zip(advanced, self._recorder.generators, strict=True))
        is_right = all(agrees) and all(advances)
        if not is_right:
            _failed, self._gradients = True, []
            _log.warning("a step that was recorded as a CUDA graph differs from one by itself, so none is: please tell us of it")
        return is_right

    def _state(self) -> list[Tensor]:
        """All that a step changes."""
        kept = [value for state in self._optimizer.state.values() for value in state.values() if torch.is_tensor(value)]
        return [*(p.detach() for p in self._net.parameters()), *self._net.buffers(), *kept, self._number]

    def _alone(self) -> None:
        with self._rates_on_the_device():
            self._work()

    def _work(self) -> None:
        self._rate.copy_(self._rates.index_select(0, self._number).squeeze(0))
        outputs = self._step(self._rows.index_select(0, self._number).squeeze(0))
        self._outputs.index_copy_(0, self._number, outputs.unsqueeze(0))
        self._number.add_(1)

    @contextlib.contextmanager
    def _rates_on_the_device(self) -> Iterator[None]:
        """Within, the optimizer reads its learning rate where a recorded step finds it, and Adam lets itself be recorded."""
        groups = self._optimizer.param_groups
        before = [dict(group) for group in groups]
        for group in groups:
            group["lr"] = self._rate
            if isinstance(self._optimizer, Adam):
                group["capturable"] = True
                self._optimizer._warned_capturable_if_run_uncaptured = True  # nor does it warn of the steps before the recording
        try:
            yield
        finally:
            for group, was in zip(groups, before, strict=True):
                group.update(was)

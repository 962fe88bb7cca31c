"""Drives one trainer, epoch by epoch, in whatever process the engine gave it; knows no study and no Ray."""

from __future__ import annotations

import contextlib
import importlib
import math
import numbers
import os
import time
import traceback
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

from hpo import checkpoints
from hpo.engine.assignment import Assignment, Failure, Report
from hpo.stopping import patience_is_over
from hpo.trainer import MetricError, Metrics, Trainer, TrainerError
from hpo.trial import Measurement

LONGEST = 300  # characters of an exception's text in a reason; its log has the rest
SLICE_S = 0.3  # a worker of short epochs trains this long between two reports


def resolve(entry: str) -> Trainer:
    """The trainer function at `pkg.mod:function`; TrainerError when there is none."""
    module, _, name = entry.partition(":")
    try:
        trainer: Trainer = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise TrainerError(f"no trainer at {entry}: {error}") from error
    except (Exception, SystemExit) as error:  # the border to a user's code, which runs when it is imported
        raise TrainerError(f"{module} cannot be imported: {_one_line(error)}") from error
    return trainer


class Handle:
    """The trial as its trainer sees it: hpo.trainer.RunningTrial."""

    def __init__(self, assignment: Assignment, device: str) -> None:
        self.number = assignment.number
        self.seed = assignment.seed
        self.device = device
        self.max_epochs = assignment.max_epochs
        self.measurements: list[Measurement] = []  # of every epoch trained so far, before a restart too
        self.offered: dict[str, Any] | None = None
        self._folder = assignment.folder

    @property
    def folder(self) -> Path:
        self._folder.mkdir(parents=True, exist_ok=True)
        return self._folder

    def save(self, **state: Any) -> None:
        if checkpoints.LABEL in state:
            raise TrainerError(f"trial.save: the name {checkpoints.LABEL!r} is taken; choose another")
        self.offered = state

    def restored(self) -> dict[str, Any] | None:
        try:
            state = checkpoints.load(self._folder / "last")
        except checkpoints.CheckpointError:
            return None  # none yet, or not whole: the trial starts at its beginning, which costs epochs but no truth
        self.measurements = [Measurement(*fields) for fields in state.pop(checkpoints.LABEL)["measurements"]]
        return state


class TrialRun:
    """One trial being trained. `advance` until it says that the trial ended, or the study does."""

    def __init__(self, assignment: Assignment, device: str = "cpu", *, capture: bool = True) -> None:
        self.assignment = assignment
        self._handle = Handle(assignment, device)
        self._capture = capture
        self._epochs: Generator[Metrics, None, None] | None = None
        self._reported = 0  # how many of the handle's measurements the study has
        self._best: dict[str, Any] | None = None  # a copy of the best saved epoch's state, not on disk yet
        self._bar = min(assignment.keep_below, _saved_loss(assignment))  # what an epoch must fall below to be kept
        self._last_saved = time.monotonic()

    def advance(self, slice_s: float = SLICE_S) -> Report:
        """Train until the study has something to decide, or for `slice_s` seconds, whichever is later than one epoch."""
        until = time.monotonic() + slice_s
        failure, ended = None, False
        try:
            ended = self._train_until(until)
            self._write_best()
        except TrainerError as error:
            failure = Failure("metric" if isinstance(error, MetricError) else "error", str(error))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # the border to a user's code: whatever it raises fails this trial alone
            failure = Failure("error", self._explain(error))
        fresh = tuple(self._handle.measurements[self._reported :])
        self._reported = len(self._handle.measurements)
        return Report(fresh, ended, failure)

    def close(self) -> None:
        """Let the trainer clean up behind its last `yield`; what it raises there can change nothing any more."""
        if self._epochs is not None:
            with contextlib.suppress(Exception, SystemExit), self._output():
                self._epochs.close()

    def _started(self) -> Generator[Metrics, None, None]:
        if self._epochs is None:
            self._epochs = resolve(self.assignment.entry)(self._handle, **self.assignment.arguments)
            if not isinstance(self._epochs, Generator):
                raise TrainerError(f"trainer {self.assignment.entry} is no generator function: it must yield metrics after every epoch")
        return self._epochs

    def _train_until(self, until: float) -> bool:
        """Whether the trainer has no further epoch."""
        try:
            self._train_epoch()
            while not self._is_due() and time.monotonic() < until:
                self._train_epoch()
        except StopIteration:
            return True
        return False

    def _train_epoch(self) -> None:
        began = time.perf_counter()
        with self._output():
            metrics = next(self._started())
        measurement = self._measurement(metrics, time.perf_counter() - began)
        self._handle.measurements.append(measurement)
        self._keep(measurement)

    def _losses(self) -> list[float]:
        return [self.assignment.direction.loss(m.value) for m in self._handle.measurements]

    def _is_due(self) -> bool:
        """Whether the study has something to decide about the latest epoch."""
        a, epoch = self.assignment, len(self._handle.measurements)
        if epoch in a.rungs or epoch >= a.max_epochs:
            return True
        return a.patience is not None and patience_is_over(self._losses(), a.patience)

    def _measurement(self, metrics: Metrics, seconds: float) -> Measurement:
        epoch = len(self._handle.measurements) + 1
        found = _numbers(metrics, epoch)
        if self.assignment.metric not in found:
            reported = ", ".join(found) or "nothing"
            raise MetricError(f"epoch {epoch} reported no {self.assignment.metric} (the objective); it reported {reported}")
        value = found[self.assignment.metric]
        if not math.isfinite(value):
            raise MetricError(f"{self.assignment.metric} was {value} at epoch {epoch}")
        return Measurement(epoch, value, found, seconds)

    def _keep(self, measurement: Measurement) -> None:
        """Copy the offered state if it is the best saved so far, write it if a checkpoint is due, drop it otherwise."""
        state, self._handle.offered = self._handle.offered, None
        if state is None:
            return
        loss = self.assignment.direction.loss(measurement.value)
        if loss < self._bar:
            self._bar = loss
            label: dict[str, Any] = {"epoch": measurement.epoch, "value": measurement.value}
            self._best = checkpoints.copy_to_memory({**state, checkpoints.LABEL: label})
        if time.monotonic() - self._last_saved >= self.assignment.checkpoint_every_s:
            self._write_best()
            label = {"measurements": [[m.epoch, m.value, dict(m.metrics), m.seconds] for m in self._handle.measurements]}
            checkpoints.save(self._handle.folder / "last", {**state, checkpoints.LABEL: label}, durable=True)
            self._last_saved = time.monotonic()

    def _write_best(self) -> None:
        """Have the best epoch on disk before the study hears of it, so that a trial that ends here loses nothing."""
        if self._best is not None:
            checkpoints.save(self._handle.folder / "best", self._best)
            self._best = None

    def _explain(self, error: BaseException) -> str:
        """One line for the study; the whole traceback goes to the trial's error.log."""
        what = _one_line(error)
        try:
            log = self._handle.folder / "error.log"
            log.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
        except OSError as refused:
            return f"{what} (no log could be written: {refused})"
        return f"{what} (see {log})"

    @contextlib.contextmanager
    def _output(self) -> Iterator[None]:
        """What the trainer prints goes to the trial's output.log, which exists only if it prints."""
        if not self._capture:
            yield
            return
        with _Log(self._handle) as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
            yield


class _Log:
    """A text stream that opens its file at the first write."""

    def __init__(self, handle: Handle) -> None:
        self._handle, self._file = handle, -1

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file >= 0:
            os.close(self._file)

    def write(self, text: str) -> int:
        if self._file < 0:
            self._file = os.open(self._handle.folder / "output.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.write(self._file, text.encode(errors="replace"))
        return len(text)

    def flush(self) -> None:
        """Nothing is held back."""

    def isatty(self) -> bool:
        return False


def _one_line(error: BaseException) -> str:
    """What was raised and where, short enough for a table and safe on a terminal."""
    try:
        message = " ".join("".join(c if c.isprintable() else " " for c in str(error)).split())
    except Exception:  # an exception of a user's own that cannot even say what it is
        message = "(its text cannot be read)"
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}: {message[:LONGEST] + '...' if len(message) > LONGEST else message}{place}"


def _saved_loss(assignment: Assignment) -> float:
    """The loss of the checkpoint that an earlier attempt at this trial left; infinity if there is none."""
    value = checkpoints.label(assignment.folder / "best").get("value")
    return math.inf if value is None else assignment.direction.loss(value)


def _numbers(metrics: Any, epoch: int) -> dict[str, float]:
    """The metrics of an epoch as floats; a tensor or array of one element counts as a number."""
    if not isinstance(metrics, Mapping):
        raise MetricError(f"epoch {epoch} yielded {type(metrics).__name__}; yield a mapping of metric names to numbers")
    found = {}
    for name, value in metrics.items():
        item = value.item() if hasattr(value, "item") and getattr(value, "size", None) is not None and _is_scalar(value) else value
        if isinstance(item, bool) or not isinstance(item, numbers.Real):
            raise MetricError(f"{name} was {_shown(value)} at epoch {epoch}; metrics are numbers")
        try:
            found[str(name)] = float(item)
        except OverflowError:
            raise MetricError(f"{name} was a number too large to hold at epoch {epoch}") from None
    return found


def _is_scalar(value: Any) -> bool:
    return math.prod(getattr(value, "shape", (0,))) == 1


def _shown(value: Any) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"

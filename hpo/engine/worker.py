"""Drives one trainer, epoch by epoch, in whatever process the engine gave it; knows no study and no Ray."""

from __future__ import annotations

import importlib
import math
import os
import time
from collections.abc import Generator
from contextlib import suppress
from typing import Any

from hpo import checkpoints, trial_files
from hpo.engine.assignment import Assignment, Report
from hpo.engine.failures import failure_of, one_line
from hpo.engine.handle import Handle
from hpo.engine.hang_report import ReportingWatchdog
from hpo.engine.metrics import measured
from hpo.engine.surroundings import Surroundings
from hpo.engine.trial_logs import TrialLogs
from hpo.engine.watchdog import AlarmWatchdog, NoWatchdog, ProcessWatchdog, Watchdog
from hpo.objects import ObjectPath, StorageError
from hpo.places import is_elsewhere
from hpo.redaction import hidden
from hpo.references import revealed_arguments
from hpo.stopping import Progress, after, watched, why_over
from hpo.trainer import MetricError, Metrics, Trainer, TrainerError
from hpo.trial import Measurement

SLICE_S = 0.3  # a worker of short epochs trains this long between two reports
_OVER = object()


def resolve(entry: str) -> Trainer:
    """The trainer function at `pkg.mod:function`; TrainerError when there is none."""
    module, _, name = entry.partition(":")
    try:
        trainer: Trainer = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise TrainerError(f"no trainer at {entry}: {error}") from error
    except (Exception, SystemExit) as error:  # the border to a user's code, which runs when it is imported
        raise TrainerError(f"{module} cannot be imported: {one_line(error)}") from error
    return trainer


class TrialRun:
    """One trial being trained. `advance` until it says that the trial ended, or the study does; then `close`.

    Without `capture` the process is the user's own: prints go to the terminal, Ctrl-C is for the study, and a trainer
    that hangs is interrupted, where otherwise its process ends.
    """

    def __init__(self, assignment: Assignment, device: str = "cpu", *, capture: bool = True) -> None:
        hidden.add_environment(os.environ)
        self.assignment = assignment
        self._logs = TrialLogs(assignment)
        self._handle = Handle(assignment, device, self._logs.folder)
        self._capture = capture
        self._watchdog = _watchdog(assignment, self._logs, capture=capture)
        self._surroundings = Surroundings(self._watchdog, self._logs.output if capture else None)
        self._epochs: Generator[Metrics, None, None] | None = None
        self._progress = Progress()
        self._reported = 0  # how many of the handle's measurements the study has
        self._looked = False  # through a saved state, for secrets
        self._best: dict[str, Any] | None = None  # a copy of the best saved epoch's state, not on disk yet
        self._bar: float | None = None  # what an epoch must fall below to be kept, known once the trial has gone on
        self._last_saved = time.monotonic()
        self._known_epochs = assignment.known_epochs
        self._older: list[str] | None = None  # what was there when this attempt began, as long as that may be

    def advance(self, slice_s: float = SLICE_S) -> Report:
        """Train until the study has something to decide, or for `slice_s` seconds, whichever is later than one epoch."""
        until = time.monotonic() + slice_s
        failure, ended = None, False
        try:
            if unheard := self._unheard():
                return Report(unheard)
            ended = self._train_until(until)
            self._write_best()
        except BaseException as error:  # the border to a user's code: whatever it raises fails this trial alone
            if isinstance(error, KeyboardInterrupt) and not self._capture:
                raise
            failure = self._logs.public(failure_of(self._handle.damage or error, self._logs.error))
            self._logs.hand_over()
        if failure is not None and failure.rule == "disk":
            return Report((), failure=failure)  # the study hears of no epoch whose best could not be written
        fresh = tuple(self._handle.measurements[self._reported :])
        self._reported = len(self._handle.measurements)
        return Report(fresh, ended, failure)

    def close(self) -> None:
        """Let the trainer clean up behind its last `yield`; what it raises there changes nothing, and is in its error.log."""
        try:
            if self._epochs is not None:
                with self._surroundings.entered():
                    self._epochs.close()
        except BaseException as error:  # the border to a user's code
            if isinstance(error, KeyboardInterrupt) and not self._capture:
                raise
            failure_of(error, self._logs.error)
        finally:
            self._surroundings.close()
            self._watchdog.close()
            self._logs.close()

    def _unheard(self) -> tuple[Measurement, ...]:
        """All epochs that a worker before this one wrote, if it was cut off before the study could decide about the last of them.

        Asked once. To train on before that decision would be in vain where the trial ends or waits.
        """
        known, self._known_epochs = self._known_epochs, None
        newest = self._handle.newest("last") if known is not None else None
        saved = checkpoints.label(newest).get("measurements", []) if newest else []
        if known is None or len(saved) <= known:
            return ()
        found, progress = tuple(Measurement(*fields) for fields in saved), Progress()
        for m in found:
            progress = after(progress, m, self.assignment.direction, self.assignment.stopper)
        return found if len(found) in self.assignment.rungs or self._is_over(progress) else ()

    def _started(self) -> Generator[Metrics, None, None]:
        if self._epochs is None:
            arguments = revealed_arguments(self.assignment.arguments)  # first, so that a module that cannot be imported shows none
            self._epochs = resolve(self.assignment.entry)(self._handle, **arguments)
            if not isinstance(self._epochs, Generator):
                raise TrainerError(f"trainer {self.assignment.entry} is no generator function: it must yield metrics after every epoch")
        return self._epochs

    def _train_until(self, until: float) -> bool:
        """Whether the trainer has no further epoch."""
        while self._train_epoch():
            if self._is_due() or time.monotonic() >= until:
                return False
        return True

    def _train_epoch(self) -> bool:
        """Whether there was a further epoch."""
        began = time.perf_counter()
        with self._surroundings.entered():
            metrics = next(self._started(), _OVER)
        seconds = time.perf_counter() - began
        if self._handle.damage is not None:
            raise self._handle.damage
        if metrics is _OVER:
            return False
        epoch, metric = len(self._handle.measurements) + 1, self.assignment.metric
        found = measured(metrics, epoch, metric, watched(self.assignment.stopper))
        if any(map(hidden.shows, found)):
            raise MetricError(f"epoch {epoch} reported a metric whose name shows a secret; names are recorded, so choose another")
        measurement = Measurement(epoch, found[metric], found, seconds)
        self._handle.measurements.append(measurement)
        for m in self._handle.measurements[self._progress.epoch :]:  # after a restart those that were restored, too
            self._progress = after(self._progress, m, self.assignment.direction, self.assignment.stopper)
        self._keep(measurement)
        return True

    def _is_due(self) -> bool:
        """Whether the study has something to decide about the latest epoch."""
        return self._progress.epoch in self.assignment.rungs or self._is_over(self._progress)

    def _is_over(self, progress: Progress) -> bool:
        """Whether a trial ends by itself at the latest epoch of `progress`."""
        a = self.assignment
        return progress.epoch >= a.max_epochs or why_over(a.stopper, progress) is not None

    def _may_pause(self) -> bool:
        """Whether the study may have the trial wait at the latest epoch."""
        a, progress = self.assignment, self._progress
        return a.pauses and progress.epoch in a.rungs and not self._is_over(progress)

    def _keep(self, measurement: Measurement) -> None:
        """Copy the offered state if it is the best saved so far, write it if a checkpoint is due, drop it otherwise.

        Where the trial may have to wait one is due, so that its next segment goes on there bit for bit. A trainer that offers no state
        at that epoch begins again, or where it last did; the epochs that it repeats change nothing. That costs a trial the sum
        of the rungs that it passes: on its way to the end about 1 / (eta - 1) of a full training.
        """
        state, self._handle.offered = self._handle.offered, None
        if self._bar is None:
            self._older = self._handle.stored()
            self._bar = min(self.assignment.keep_below, self._saved_loss(measurement.epoch))
        if state is None:
            return
        if not self._looked:
            self._looked = True
            _refuse_secrets(state)  # once at the beginning, not only when it happens to be written
        loss = self.assignment.direction.loss(measurement.value)
        if loss < self._bar:
            self._bar = loss
            label: dict[str, Any] = {"epoch": measurement.epoch, "value": measurement.value}
            self._best = checkpoints.copy_to_memory({**state, checkpoints.LABEL: label})
        if self._may_pause() or time.monotonic() - self._last_saved >= self.assignment.checkpoint_every_s:
            self._write_best()
            self._write_last(state)

    def _write_best(self) -> None:
        """Have the best epoch on disk before the study hears of it, so that a trial that ends here loses nothing."""
        if self._best is not None:
            _refuse_secrets(self._best)
            a = self.assignment
            checkpoints.save(a.folder / trial_files.best_name(a.lease, a.attempt), self._best)
            self._best = self._handle.names = None

    def _write_last(self, state: dict[str, Any]) -> None:
        _refuse_secrets(state)
        a = self.assignment
        label = {"measurements": [[m.epoch, m.value, dict(m.metrics), m.seconds] for m in self._handle.measurements]}
        checkpoints.save(a.folder / trial_files.last_name(a.lease, a.attempt), {**state, checkpoints.LABEL: label})
        with suppress(StorageError):  # what stays is removed at the trial's end, and so is what others write meanwhile
            trial_files.drop_older(a.folder, a.lease, a.attempt, self._older)
            self._older = [] if is_elsewhere(a.folder) else None  # where a look takes no time, look each time
        self._handle.names = None
        self._logs.hand_over()
        self._last_saved = time.monotonic()

    def _saved_loss(self, epoch: int) -> float:
        """The loss of the checkpoint of the best epoch before `epoch` that an earlier attempt left; infinity if there is none.

        One of an epoch that is trained again does not count: what the study hears of it may be another value.
        """
        newest = self._handle.newest("best")
        saved = checkpoints.label(newest) if newest else {}
        return self.assignment.direction.loss(saved["value"]) if saved and saved["epoch"] < epoch else math.inf


def _watchdog(assignment: Assignment, logs: TrialLogs, *, capture: bool) -> Watchdog:
    a = assignment
    if a.timeout_s is None:
        return NoWatchdog()
    if not capture:
        return AlarmWatchdog(a.timeout_s)
    if isinstance(a.folder, ObjectPath):
        return ReportingWatchdog(a.timeout_s, logs.hang, trial_files.hang_log(a.folder, a.lease, a.attempt))
    return ProcessWatchdog(a.timeout_s, logs.hang)


def _refuse_secrets(state: dict[str, Any]) -> None:
    if place := hidden.place_in(state):
        raise TrainerError(f"trial.save: {place} shows a secret; leave it out: a trainer that goes on is given it again")

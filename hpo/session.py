"""One study being run: the study decides, the journal remembers, checkpoints of the best are kept; engines drive it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from hpo import checkpoints, trial_files
from hpo.durations import span
from hpo.engine.assignment import Assignment, Report
from hpo.errors import NoSpace
from hpo.events import Resumed
from hpo.journal import Journal
from hpo.journal_format import JournalError, Record
from hpo.sampling import make_sampler
from hpo.space import grid_size
from hpo.spec import Asha, Spec
from hpo.study import Rules, replay
from hpo.trial import Decision, State, Trial
from hpo.trial_files import trial_folder


def rules_of(spec: Spec) -> Rules:
    """The study's rules as the spec states them."""
    pruner = spec.pruner if isinstance(spec.pruner, Asha) else None
    return Rules(
        direction=spec.objective.direction,
        max_epochs=spec.max_epochs,
        max_trials=at_most(spec, spec.budget.trials),
        seed=spec.seed,
        grace_epochs=pruner.grace_epochs if pruner else 1,
        reduction_factor=pruner.reduction_factor if pruner else None,
        stopper=spec.stopper,
        retries=spec.limits.retries,
    )


def at_most(spec: Spec, trials: int) -> int:
    """`trials`, or as many as the grid has points where it is searched."""
    return min(trials, grid_size(spec.space)) if spec.sampler.name == "grid" else trials


def spent_s(records: Sequence[Record]) -> float:
    """For how many seconds the study was run: under each lease from the first line to the last."""
    spans: dict[int, list[float]] = {}
    for record in records:
        at = record.at.timestamp()
        spans.setdefault(record.lease, [at, at])[1] = at
    return sum(last - first for first, last in spans.values())


def time_limit_s(spec: Spec, records: Iterable[Record]) -> float | None:
    """The study's time budget in seconds, as the last resume that changed it left it."""
    changed = [r.event.time_s for r in records if isinstance(r.event, Resumed) and r.event.time_s is not None]
    return changed[-1] if changed else spec.budget.time_s


class Session:
    """What an engine talks to: it asks for assignments, hands in reports and says what was lost.

    It goes on where the records of `journal` end; what was RUNNING there is given out again first.
    """

    def __init__(self, spec: Spec, entry: str, folder: Path, journal: Journal) -> None:
        self.spec, self.folder, self.entry, self.lease = spec, folder, entry, journal.lease
        self.started = time.monotonic()
        self.spent_before_s = spent_s(journal.records)
        self.time_limit_s = time_limit_s(spec, journal.records)
        sampler = make_sampler(spec.sampler.name, spec.space, spec.objective.direction, spec.seed)
        try:
            self.study = replay(rules_of(spec), sampler, [record.event for record in journal.records], journal.append)
        except (ValueError, LookupError) as error:
            raise JournalError(f"{journal.path} contradicts itself: {error}; no version of hpo writes that") from error
        self.shield: Callable[[], AbstractContextManager[None]] = nullcontext
        self._fixed = {name: value for name, value in spec.trainer.settings.items() if name != "max_epochs"}
        self._waiting = [trial for trial in self.study.trials if not trial.state.finished]
        self._ranked: list[Trial] = []  # finished trials whose checkpoints are kept, best first
        trial_files.drop_strangers(folder, len(self.study.trials), self.lease)
        for trial in self.study.trials:
            if trial.state.finished and trial_folder(folder, trial.number).is_dir():
                self._let_go(trial)

    def resume(self, event: Resumed) -> None:
        """Say that this process goes on with the study, perhaps with another budget."""
        self.study.resume(event)
        if event.time_s is not None:
            self.time_limit_s = event.time_s

    @property
    def with_checkpoint(self) -> int:
        """How many of the trials that wait go on from a checkpoint; the others begin again."""
        return sum(trial_files.newest(trial_folder(self.folder, trial.number), "last") is not None for trial in self._waiting)

    @property
    def left(self) -> int:
        """How many trials are to be trained yet, those that wait included."""
        return len(self._waiting) + max(0, self.study.rules.max_trials - len(self.study.trials))

    @property
    def is_done(self) -> bool:
        return self.left == 0

    def check_checkpoints(self) -> None:
        """CheckpointError if a trial that waits has a checkpoint which is not what was written: none starts again unsaid."""
        for trial in self._waiting:
            if last := trial_files.newest(trial_folder(self.folder, trial.number), "last"):
                try:
                    checkpoints.verify(last)
                except checkpoints.CheckpointError as error:
                    way = f"`hpo verify --repair {self.folder.name}` sets it aside"
                    raise checkpoints.CheckpointError(f"{error}; {way}, and the trial begins again") from error

    def next(self) -> Assignment | None:
        """The next trial for a free worker, one that lost its worker first; None while there is none."""
        with self.shield():
            trial = self._waiting.pop(0) if self._waiting else self.study.ask()
        if trial is None:
            return None
        rules, keep = self.study.rules, self.spec.checkpoints.keep
        return Assignment(
            number=trial.number,
            seed=trial.seed,
            entry=self.entry,
            arguments={**self._fixed, **trial.params},
            folder=trial_folder(self.folder, trial.number),
            metric=self.spec.objective.metric,
            direction=rules.direction,
            max_epochs=rules.max_epochs,
            rungs=rules.rungs,
            stopper=rules.stopper,
            checkpoint_every_s=self.spec.checkpoints.every_s,
            keep_below=self.study.loss(self._ranked[keep - 1]) if len(self._ranked) >= keep > 0 else math.inf,
            lease=self.lease,
            attempt=trial.attempts,
            timeout_s=self.spec.limits.trial_timeout_s,
        )

    def take(self, number: int, report: Report) -> Decision:
        """What a worker trained; whether its trial goes on. NoSpace if its disk is full."""
        if self.study.trials[number].state.finished:  # a late word of a worker that was given up
            return Decision.STOP
        with self.shield():
            return self._take(number, report)

    def _take(self, number: int, report: Report) -> Decision:
        decision = self.study.report(number, report.measurements)
        trial, failure = self.study.trials[number], report.failure
        if decision is Decision.CONTINUE:
            if failure is not None and failure.rule == "disk":
                raise NoSpace(f"{failure.reason}; trial {number} goes on from its checkpoint with `hpo resume {self.folder.name}`")
            if failure is not None:
                self.study.fail(number, failure.rule, failure.reason)
                damaged = trial_files.newest(trial_folder(self.folder, number), "last") if failure.rule == "checkpoint" else None
                if damaged:
                    trial_files.set_aside(damaged)
            elif report.ended:
                self.study.complete(number, "trainer", f"the trainer ended after {trial.epoch} epochs")
            elif (limit := self.spec.limits.trial_timeout_s) and sum(m.seconds for m in trial.measurements) >= limit:
                self.study.prune(number, "timeout", f"its time (limits.trial_timeout: {span(limit)}) was spent after {trial.epoch} epochs")
        if not trial.state.finished:
            return Decision.CONTINUE
        self._let_go(trial)
        return Decision.STOP

    def lost(self, number: int, reason: str, *, preempted: bool = False) -> None:
        """A trial's worker died: `next` gives the trial out again, unless it hung, or that happened too often."""
        trial = self.study.trials[number]
        if trial.state.finished:
            return
        hang = trial_files.hang_log(trial_folder(self.folder, number), self.lease, trial.attempts)
        with self.shield():
            if hang.exists() and hang.stat().st_size:
                limit = span(self.spec.limits.trial_timeout_s or 0.0)
                self.study.fail(number, "timeout", f"no epoch ended within limits.trial_timeout ({limit}); where it hung is in {hang}")
            elif self.study.retry(number, reason, counted=not preempted):
                self._waiting.append(trial)
            if self.study.trials[number].state.finished:
                self._let_go(trial)

    @property
    def spent_s(self) -> float:
        """For how long the study was run by now, in seconds."""
        return self.spent_before_s + time.monotonic() - self.started

    @property
    def time_is_up(self) -> bool:
        return self.time_limit_s is not None and self.spent_s >= self.time_limit_s

    def end(self, reason: str) -> None:
        """The search is over. What an interruption or an error cut off stays RUNNING, to be resumed; otherwise nothing does."""
        with self.shield():
            self._end(reason)

    def _end(self, reason: str) -> None:
        if reason not in ("interrupted", "error"):
            why = "the study's time was spent" if reason == "time" else f"the study ended: {reason}"
            for trial in self.study.trials:
                if not trial.state.finished:
                    self.study.prune(trial.number, reason, why)
                    self._let_go(trial)
        self.study.end(reason)

    def _let_go(self, trial: Trial) -> None:
        """Keep the best checkpoint of the best finished trials, and nothing of the rest."""
        folder = trial_folder(self.folder, trial.number)
        if trial.state is State.FAILED or not trial.measurements:
            trial_files.settle(folder, None)
            trial_files.forget(folder)
            return
        trial_files.settle(folder, lambda checkpoint: self._saved_loss(trial, checkpoint))
        self._ranked.append(trial)
        self._ranked.sort(key=lambda t: (self.study.loss(t), t.number))
        for loser in self._ranked[self.spec.checkpoints.keep :]:
            trial_files.forget(trial_folder(self.folder, loser.number))
        del self._ranked[self.spec.checkpoints.keep :]

    def _saved_loss(self, trial: Trial, checkpoint: Path) -> float:
        """The loss of what a checkpoint holds, if the journal has it; a worker that was given up may have trained on."""
        label = checkpoints.label(checkpoint)
        known = any((m.epoch, m.value) == (label.get("epoch"), label.get("value")) for m in trial.measurements)
        return self.study.rules.direction.loss(label["value"]) if known else math.inf

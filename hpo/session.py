"""One study being run: the study decides, the journal remembers, checkpoints worth it are kept; engines drive it."""

from __future__ import annotations

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
from hpo.retention import Retention
from hpo.rules import Rules, Sampler
from hpo.sampling import make_sampler, points_in_all
from hpo.spec import Asha, Spec
from hpo.study import replay
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
        reduction_factor=pruner.factor if pruner else None,
        stopper=spec.stopper,
        retries=spec.limits.retries,
        promotes=pruner is not None and pruner.rule == "promote",
        brackets=pruner.brackets if pruner else 1,
        audit=pruner.audit if pruner else 0.0,
        epoch_budget=spec.budget.epochs,
    )


def sampler_of(spec: Spec) -> Sampler:
    """Where the spec's trials get their parameters from."""
    return make_sampler(spec.sampler, spec.space, spec.start, rules_of(spec))


def at_most(spec: Spec, trials: int) -> int:
    """`trials`, or as many as the sampler has points where these are fewer."""
    points = points_in_all(spec.sampler, spec.space, spec.start)
    return trials if points is None else min(trials, points)


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
        try:
            self.study = replay(rules_of(spec), sampler_of(spec), [record.event for record in journal.records], journal.append)
        except (ValueError, LookupError) as error:
            raise JournalError(f"{journal.path} contradicts itself: {error}; no version of hpo writes that") from error
        self.shield: Callable[[], AbstractContextManager[None]] = nullcontext
        self._fixed = {name: value for name, value in spec.trainer.settings.items() if name != "max_epochs"}
        self._cut_off = [trial for trial in self.study.trials if trial.state is State.RUNNING]
        trial_files.drop_strangers(folder, len(self.study.trials), self.lease)
        self._retention = Retention(folder, spec.checkpoints, self.study)

    def resume(self, event: Resumed) -> None:
        """Say that this process goes on with the study, perhaps with another budget."""
        self.study.resume(event)
        if event.time_s is not None:
            self.time_limit_s = event.time_s

    @property
    def with_checkpoint(self) -> int:
        """How many of the trials that were cut off go on from a checkpoint; the others begin again."""
        return sum(trial_files.newest(trial_folder(self.folder, trial.number), "last") is not None for trial in self._cut_off)

    @property
    def paused(self) -> int:
        """How many trials wait for their promotion."""
        return sum(trial.state is State.PAUSED for trial in self.study.trials)

    @property
    def left(self) -> int:
        """How many trials may be trained yet: those that were cut off, new ones, and those that wait for their promotion."""
        return len(self._cut_off) + max(0, self.study.rules.max_trials - len(self.study.trials)) + self.paused

    @property
    def is_done(self) -> bool:
        """Whether nothing is to be trained any more, though trials may wait."""
        study = self.study
        if study.is_spent:
            return True
        return not self._cut_off and len(study.trials) >= study.rules.max_trials and not (study.promotion() or study.last_promotion())

    def check_checkpoints(self) -> None:
        """CheckpointError if a trial that was cut off has a checkpoint which is not what was written: none starts again unsaid.

        That of a paused trial is read when it goes on, and then fails that trial alone.
        """
        for trial in self._cut_off:
            if last := trial_files.newest(trial_folder(self.folder, trial.number), "last"):
                try:
                    checkpoints.verify(last)
                except checkpoints.CheckpointError as error:
                    way = f"`hpo verify --repair {self.folder.name}` sets it aside"
                    raise checkpoints.CheckpointError(f"{error}; {way}, and the trial begins again") from error

    def next(self) -> Assignment | None:
        """The next trial for a free worker: one that lost its worker, a paused one that goes on, or a new one; None while there is none."""
        was_cut_off = bool(self._cut_off)
        with self.shield():
            trial = self._cut_off.pop(0) if was_cut_off else self.study.next()
        if trial is None:
            return None
        self._retention.take_up(trial)
        rules = self.study.rules
        return Assignment(
            number=trial.number,
            seed=trial.seed,
            entry=self.entry,
            arguments={**self._fixed, **trial.params},
            folder=trial_folder(self.folder, trial.number),
            metric=self.spec.objective.metric,
            direction=rules.direction,
            max_epochs=rules.max_epochs,
            rungs=self.study.rungs(trial) + self._last_epoch(trial),
            pauses=rules.promotes,
            stopper=rules.stopper,
            checkpoint_every_s=self.spec.checkpoints.every_s,
            keep_below=self._retention.bar,
            lease=self.lease,
            attempt=trial.attempts,
            timeout_s=self.spec.limits.trial_timeout_s,
            known_epochs=trial.epoch if was_cut_off else None,
        )

    def _last_epoch(self, trial: Trial) -> tuple[int, ...]:
        """Where the trial would use up the budget of epochs by itself: its worker hands back what it has there, and trains no further."""
        budget = self.study.rules.epoch_budget
        return () if budget is None else (trial.epoch + max(1, budget - self.study.epochs),)

    def take(self, number: int, report: Report) -> Decision:
        """What a worker trained; whether its trial goes on. NoSpace if its disk is full."""
        if self.study.trials[number].state is not State.RUNNING:  # a late word of a worker that was given up
            return Decision.STOP
        with self.shield():
            return self._take(number, report)

    def _take(self, number: int, report: Report) -> Decision:
        decision = self.study.report(number, report.measurements)
        trial, failure = self.study.trials[number], report.failure
        if decision is not Decision.STOP:
            if failure is not None and failure.rule == "disk":
                raise NoSpace(f"{failure.reason}; trial {number} goes on from its checkpoint with `hpo resume {self.folder.name}`")
            if failure is not None:
                self.study.fail(number, failure.rule, failure.reason)
                damaged = trial_files.newest(trial_folder(self.folder, number), "last") if failure.rule == "checkpoint" else None
                if damaged:
                    trial_files.set_aside(damaged)
            elif report.ended and decision is Decision.CONTINUE:
                self.study.complete(number, "trainer", f"the trainer ended after {trial.epoch} epochs")
            elif (limit := self.spec.limits.trial_timeout_s) and sum(m.seconds for m in trial.measurements) >= limit:
                self.study.prune(number, "timeout", f"its time (limits.trial_timeout: {span(limit)}) was spent after {trial.epoch} epochs")
        if trial.state.finished:
            self._retention.let_go(trial)
            return Decision.STOP
        if trial.state is State.PAUSED:
            self._retention.put_by(trial)
            return Decision.PAUSE
        return Decision.CONTINUE

    def lost(self, number: int, attempt: int, reason: str, *, preempted: bool = False) -> None:
        """The worker of a trial's attempt died: `next` gives the trial out again, unless it hung, or that happened too often."""
        trial = self.study.trials[number]
        if trial.state is not State.RUNNING or attempt != trial.attempts:  # it died idle, behind the trial's segment
            return
        hang = trial_files.hang_log(trial_folder(self.folder, number), self.lease, trial.attempts)
        with self.shield():
            if hang.exists() and hang.stat().st_size:
                limit = span(self.spec.limits.trial_timeout_s or 0.0)
                self.study.fail(number, "timeout", f"no epoch ended within limits.trial_timeout ({limit}); where it hung is in {hang}")
            elif self.study.retry(number, reason, counted=not preempted):
                self._cut_off.append(trial)
            if self.study.trials[number].state.finished:
                self._retention.let_go(trial)

    @property
    def spent_s(self) -> float:
        """For how long the study was run by now, in seconds."""
        return self.spent_before_s + time.monotonic() - self.started

    @property
    def time_is_up(self) -> bool:
        return self.time_limit_s is not None and self.spent_s >= self.time_limit_s

    @property
    def over(self) -> str | None:
        """Why the search is over while trials run (time, or budget: its epochs); None while it goes on."""
        if self.time_is_up:
            return "time"
        return "budget" if self.study.is_spent else None

    def end(self, reason: str) -> None:
        """The search is over. What an interruption or an error cut off stays RUNNING, to be resumed; otherwise nothing does."""
        with self.shield():
            self._end(reason)

    def _end(self, reason: str) -> None:
        if reason not in ("interrupted", "error"):
            for trial in self.study.discard(reason):
                self._retention.let_go(trial)
        self.study.end(reason)

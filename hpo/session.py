"""One study being run: the study decides, the journal remembers, checkpoints worth it are kept; engines drive it."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from hpo import trial_files
from hpo.durations import span
from hpo.endings import Endings
from hpo.engine.assignment import Assignment, Report
from hpo.errors import NoSpace
from hpo.events import Created, Resumed
from hpo.going_on import GoingOn
from hpo.journal import Journal
from hpo.journal_format import JournalError
from hpo.places import Place
from hpo.retention import Retention
from hpo.space import Params, Value
from hpo.spec import Spec
from hpo.specified import rules_of, sampler_of
from hpo.storage import make_ready, of_study
from hpo.study import replay
from hpo.trial import Decision, State, Trial, name_of
from hpo.trial_files import trial_folder


class Session:
    """What an engine talks to: it asks for assignments, hands in reports and says what was lost.

    It goes on where the records of `journal` end; what was RUNNING there is given out again first.
    """

    def __init__(
        self, spec: Spec, entry: str, folder: Path, journal: Journal, defaults: Params | None = None, *, created: Created | None = None
    ) -> None:
        """`defaults` are the trainer's own values of what is searched, which the finals compare the winner with.

        `created` is the first line, which says where the checkpoints are, of a `journal` that was empty when it was opened; without
        one they are in `folder`.
        """
        self.spec, self.folder, self.entry, self.lease, self.defaults = spec, folder, entry, journal.lease, defaults
        self._journal = journal
        try:
            self.study = replay(rules_of(spec), sampler_of(spec), [record.event for record in journal.records], journal.append)
        except (ValueError, LookupError) as error:
            raise JournalError(f"{journal.path} contradicts itself: {error}; no version of hpo writes that") from error
        self.endings = Endings(self.study, spec, journal.records)
        self.shield: Callable[[], AbstractContextManager[None]] = nullcontext
        self._prepared_at = -1  # the journal's line by then
        self._searched_until = ""  # why the search is over, once it is
        self.opens_test_again = False  # the user forces another look at the test split
        self._fixed = {name: value for name, value in spec.trainer.settings.items() if name != "max_epochs"}
        self._cut_off = [trial for trial in (*self.study.trials, *self.study.finals) if trial.state is State.RUNNING]
        first = created or next((record.event for record in journal.records[:1] if isinstance(record.event, Created)), None)
        self.root: Place = folder if first is None else of_study(folder, first)
        self._going_on = GoingOn(self.root, journal)
        make_ready(self.root, is_new=not self.study.trials)
        if journal.records:
            trial_files.drop_strangers(self.root, len(self.study.trials), len(self.study.finals), self.lease)
        self._retention = Retention(self.root, spec.checkpoints, self.study)

    def resume(self, event: Resumed) -> None:
        """Say that this process goes on with the study, perhaps with another budget."""
        ended, is_reopened = self.study.ended, bool(event.trials or event.epochs or event.time_s)
        if ended is not None and ended.reason in ("budget", "time") and not is_reopened:
            self._searched_until = ended.reason  # nothing is searched any more: it stays what it was
        self.study.resume(event)
        if event.time_s is not None:
            self.endings.limit_s = event.time_s

    @property
    def with_checkpoint(self) -> int:
        """How many of the trials that were cut off go on from a checkpoint; the others begin again."""
        return self._going_on.count(self._cut_off)

    @property
    def paused(self) -> int:
        """How many trials wait for their promotion."""
        return self.study.count[State.PAUSED]

    @property
    def left_in_search(self) -> int:
        """How many trials of the search may be trained yet: cut off, new, or waiting for their promotion."""
        new = max(0, self.study.rules.max_trials - len(self.study.trials))
        return sum(not trial.in_finals for trial in self._cut_off) + new + self.paused

    @property
    def left(self) -> int:
        """How many trials may be trained yet, in the search or in the finals."""
        rules = self.study.rules
        return self.left_in_search + (rules.finalists + 1) * rules.final_seeds * (rules.finalists > 0)

    @property
    def is_done(self) -> bool:
        """Whether nothing is to be trained any more in the search, though trials may wait, or in the finals if these are on."""
        study = self.study
        if study.nominated is not None:
            return not self._cut_off and study.asked_of_finals() is None
        if study.is_spent:
            return True
        return not self._cut_off and len(study.trials) >= study.rules.max_trials and not (study.promotion() or study.last_promotion())

    def check_checkpoints(self) -> None:
        """CheckpointError if a trial that was cut off has a checkpoint which is not what was written: none starts again unsaid.

        That of a paused trial is read when it goes on, and then fails that trial alone.
        """
        self._going_on.verify(self._cut_off)

    def settled(self, trial: Trial | None = None) -> None:
        """Wait until a trial's checkpoints, or all, are as the study has decided; NoSpace where their storage refuses that."""
        try:
            self._retention.wait(trial)
        except OSError as error:
            raise NoSpace(f"{error.filename}: {error.strerror}; `hpo resume {self.folder.name}` does it again") from error

    def next(self) -> Assignment | None:
        """The next trial for a free worker: one that lost its worker, a paused one that goes on, or a new one; None while there is none."""
        with self.shield():
            trial, was_cut_off = self._next_trial()
        if trial is None:
            return None
        self._retention.take_up(trial)
        self.settled(trial)
        rules = self.study.rules
        return Assignment(
            number=trial.number,
            seed=trial.seed,
            entry=self.entry,
            arguments=self.arguments_of(trial),
            folder=trial_folder(self.root, trial.number),
            metric=self.spec.objective.metric,
            direction=rules.direction,
            max_epochs=rules.max_epochs,
            rungs=self.study.rungs(trial) + self._last_epoch(trial),
            pauses=rules.promotes and not trial.in_finals,
            stopper=rules.stopper,
            checkpoint_every_s=self.spec.checkpoints.every_s,
            keep_below=math.inf if trial.in_finals else self._retention.bar,
            lease=self.lease,
            attempt=trial.attempts,
            since=self._going_on.since(trial),
            timeout_s=self.spec.limits.trial_timeout_s,
            study=self.folder.name,
            known_epochs=trial.epoch if was_cut_off else None,
        )

    def prepare(self) -> None:
        """For when all workers are busy: do what a later `next` would have to do, as far as that is no decision.

        Costs nothing where nothing happened since the last time.
        """
        if self._prepared_at != self._journal.seq:
            self.study.prepare()
            self._prepared_at = self._journal.seq

    def arguments_of(self, trial: Trial) -> dict[str, Value]:
        """What the trainer is called with: its searched parameters and its fixed settings."""
        return {**self._fixed, **trial.params}

    def _next_trial(self) -> tuple[Trial | None, bool]:
        """Who is trained next, and whether its worker was cut off before."""
        if (ending := self.endings.before_finals) is None:
            if self._cut_off:
                return self._cut_off.pop(0), True
            if (trial := self.study.next()) is not None:
                return trial, False
        return self._first_of_finals(ending or "budget"), False

    def _first_of_finals(self, reason: str) -> Trial | None:
        """A run of the finals, where the last of the search's trials has just ended: its workers go on with them."""
        running = {trial.number for trial in self.study.trials if trial.state is State.RUNNING}
        is_over = self.study.nominated is None and running <= {trial.number for trial in self._cut_off}
        return self.study.next() if is_over and self.begin_finals(reason) else None

    def begin_finals(self, reason: str) -> bool:
        """The search is over by `reason` and nothing of it is trained any more: whether there are finals, which begin now."""
        if not self.study.rules.finalists or self.study.nominated is not None or reason not in ("budget", "time"):
            return False
        self._searched_until = self._searched_until or reason
        if self.endings.time_is_up:
            return False
        with self.shield():
            self._cut_off = []
            self._discard(reason)
            return self.study.nominate(reason, self.defaults)

    def _last_epoch(self, trial: Trial) -> tuple[int, ...]:
        """Where the trial would use up the budget of epochs by itself: its worker hands back what it has there, and trains no further."""
        budget = self.study.rules.epoch_budget
        return () if budget is None or trial.in_finals else (trial.epoch + max(1, budget - self.study.epochs),)

    def take(self, number: int, report: Report) -> Decision:
        """What a worker trained; whether its trial goes on. NoSpace if its disk is full."""
        if self.study.trial(number).state is not State.RUNNING:  # a late word of a worker that was given up
            return Decision.STOP
        with self.shield():
            return self._take(number, report)

    def _take(self, number: int, report: Report) -> Decision:
        decision = self.study.report(number, report.measurements)
        trial, failure = self.study.trial(number), report.failure
        if decision is not Decision.STOP:
            if failure is not None and failure.rule == "disk":
                raise NoSpace(f"{failure.reason}; {name_of(number)} goes on from its checkpoint with `hpo resume {self.folder.name}`")
            if failure is not None:
                self.study.fail(number, failure.rule, failure.reason)
                if failure.rule == "checkpoint" and (damaged := self._going_on.newest(trial)):
                    trial_files.set_aside(damaged)
            elif report.ended and decision is Decision.CONTINUE:
                self.study.complete(number, "trainer", f"the trainer ended after {trial.epoch} epochs")
            elif (limit := self.spec.limits.trial_timeout_s) and sum(m.seconds for m in trial.measurements) >= limit:
                why = f"its time (limits.trial_timeout: {span(limit)}) was spent after {trial.epoch} epochs"
                # in the finals each run has that time, and what it came to is a configuration's value
                (self.study.complete if trial.in_finals else self.study.prune)(number, "timeout", why)
            elif self.endings.before_finals is not None:
                self.study.cut_short(number, self.endings.before_finals)
        if trial.state.finished:
            self._retention.let_go(trial, was_heard=True)
            return Decision.STOP
        if trial.state is State.PAUSED:
            self._retention.put_by(trial)
            return Decision.PAUSE
        return Decision.CONTINUE

    def lost(self, number: int, attempt: int, reason: str, *, preempted: bool = False) -> None:
        """The worker of a trial's attempt died: `next` gives the trial out again, unless it hung, or that happened too often."""
        trial = self.study.trial(number)
        if trial.state is not State.RUNNING or attempt != trial.attempts:  # it died idle, behind the trial's segment
            return
        limit_s, folder = self.spec.limits.trial_timeout_s, trial_folder(self.root, number)
        with self.shield():
            if limit_s is not None and trial_files.has_hung(folder, self.lease, trial.attempts):
                where = f"where it hung is in {trial_files.hang_log(folder, self.lease, trial.attempts)}"
                self.study.fail(number, "timeout", f"no epoch ended within limits.trial_timeout ({span(limit_s)}); {where}")
            elif self.study.retry(number, reason, counted=not preempted):
                self._cut_off.append(trial)
            if trial.state.finished:
                self._retention.let_go(trial)

    @property
    def over(self) -> str | None:
        """Why all that runs is to be cut off; None while it goes on."""
        return self.endings.over

    def end(self, reason: str) -> None:
        """The study is over. What an interruption or an error cut off stays RUNNING, to be resumed; otherwise nothing does.

        `reason` is why the search is over, or the finals; where these were not cut short, the search's own counts.
        """
        with self.shield():
            if reason not in ("interrupted", "error"):
                self._discard(reason)
                self.settled()  # whoever reads that the study has ended finds its model
            nominated = self.study.nominated
            searched_until = self._searched_until or (nominated.reason if nominated else "")
            self.study.end(searched_until or reason if reason == "budget" else reason)

    def _discard(self, reason: str) -> None:
        for trial in self.study.discard(reason):
            self._retention.let_go(trial)

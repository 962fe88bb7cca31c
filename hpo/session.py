"""One study being run: the study decides, the journal remembers, checkpoints of the best are kept; engines drive it."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from hpo.engine.assignment import Assignment, Report
from hpo.journal import Journal
from hpo.sampling import make_sampler
from hpo.space import grid_size
from hpo.spec import Asha, Patience, Spec
from hpo.study import Rules, Study
from hpo.trial import Decision, State, Trial


def rules_of(spec: Spec) -> Rules:
    """The study's rules as the spec states them."""
    pruner = spec.pruner if isinstance(spec.pruner, Asha) else None
    return Rules(
        direction=spec.objective.direction,
        max_epochs=spec.max_epochs,
        max_trials=min(spec.budget.trials, grid_size(spec.space)) if spec.sampler.name == "grid" else spec.budget.trials,
        seed=spec.seed,
        grace_epochs=pruner.grace_epochs if pruner else 1,
        reduction_factor=pruner.reduction_factor if pruner else None,
        patience=spec.stopper.epochs if isinstance(spec.stopper, Patience) else None,
    )


def trial_folder(study: Path, number: int) -> Path:
    """Where a trial's checkpoints and logs are."""
    return study / "trials" / f"{number:05d}"


class Session:
    """What an engine talks to: it asks for assignments, hands in reports and says what was lost."""

    def __init__(self, spec: Spec, entry: str, folder: Path, journal: Journal) -> None:
        self.spec, self.folder, self.entry = spec, folder, entry
        self.started = time.monotonic()
        sampler = make_sampler(spec.sampler.name, spec.space, spec.objective.direction, spec.seed)
        self.study = Study(rules_of(spec), sampler, journal.append)
        self.shield: Callable[[], AbstractContextManager[None]] = nullcontext
        self._fixed = {name: value for name, value in spec.trainer.settings.items() if name != "max_epochs"}
        self._to_retry: list[Trial] = []
        self._ranked: list[Trial] = []  # finished trials whose checkpoints are kept, best first

    def next(self) -> Assignment | None:
        """The next trial for a free worker, one whose worker died first; None while there is none."""
        with self.shield():
            trial = self._to_retry.pop(0) if self._to_retry else self.study.ask()
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
            patience=rules.patience,
            checkpoint_every_s=self.spec.checkpoints.every_s,
            keep_below=self.study.loss(self._ranked[keep - 1]) if len(self._ranked) >= keep > 0 else math.inf,
        )

    def take(self, number: int, report: Report) -> Decision:
        """What a worker trained; whether its trial goes on."""
        if self.study.trials[number].state.finished:  # a late word of a worker that was given up
            return Decision.STOP
        with self.shield():
            return self._take(number, report)

    def _take(self, number: int, report: Report) -> Decision:
        decision = self.study.report(number, report.measurements)
        if decision is Decision.CONTINUE:
            if report.failure is not None:
                self.study.fail(number, report.failure.rule, report.failure.reason)
            elif report.ended:
                epochs = self.study.trials[number].epoch
                self.study.complete(number, "trainer", f"the trainer ended after {epochs} epochs")
        if not self.study.trials[number].state.finished:
            return Decision.CONTINUE
        self._let_go(self.study.trials[number])
        return Decision.STOP

    def lost(self, number: int, reason: str) -> None:
        """A trial's worker died: `next` gives the trial out again, unless that happened too often."""
        trial = self.study.trials[number]
        with self.shield():
            if self.study.retry(number, reason):
                self._to_retry.append(trial)
            elif trial not in self._ranked:
                self._let_go(trial)

    @property
    def time_is_up(self) -> bool:
        limit = self.spec.budget.time_s
        return limit is not None and time.monotonic() - self.started >= limit

    def end(self, reason: str) -> None:
        """The search is over. What an interruption or an error cut off stays RUNNING, to be resumed; otherwise nothing does."""
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
        shutil.rmtree(folder / "last", ignore_errors=True)
        if trial.state is not State.FAILED and trial.measurements:
            self._ranked.append(trial)
            self._ranked.sort(key=lambda t: (self.study.loss(t), t.number))
            dropped = self._ranked[self.spec.checkpoints.keep :]
            del self._ranked[self.spec.checkpoints.keep :]
        else:
            dropped = [trial]
        for loser in dropped:
            _remove(trial_folder(self.folder, loser.number))


def _remove(folder: Path) -> None:
    shutil.rmtree(folder / "best", ignore_errors=True)
    if folder.is_dir() and not any(folder.iterdir()):  # logs stay
        folder.rmdir()

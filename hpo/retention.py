"""Which checkpoints of a study stay on the disk: of the best finished trials, and of the paused ones that are most worth going on with."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from pathlib import Path

from hpo import checkpoints, trial_files
from hpo.sections import Checkpoints
from hpo.study import Study
from hpo.trial import State, Trial
from hpo.trial_files import trial_folder

RESERVE = 5  # paused trials beyond checkpoints.keep whose best stays: those before them may yet fail when they go on

Rank = tuple[float, ...]


class Retention:
    """Keeps, of the trials in `folder`, what is worth it, and removes the rest; done again after a crash it does the same.

    Every completed run of the finals keeps its best checkpoint: any of them may yet be the model.

    Best checkpoints: of the best `choice.keep` finished trials, and of the paused ones that are better than all but those,
    `choice.keep` and RESERVE at most. To go on from: of `choice.paused` paused trials, those at the highest rungs first, the best
    of a rung first. What another has to give up costs a trial that is promoted after all the few epochs of a low rung.
    """

    def __init__(self, folder: Path, choice: Checkpoints, study: Study) -> None:
        self._folder, self._choice, self._study = folder, choice, study
        self._finished: list[Rank] = []  # loss and number, the best first; so in all three
        self._paused: list[Rank] = []
        self._to_go_on: list[Rank] = []  # epoch (the highest first), loss there, number
        for trial in (*study.trials, *study.finals):
            if trial.state.finished and trial_folder(folder, trial.number).is_dir():
                self.let_go(trial)
        for trial in study.trials:
            if trial.state is State.PAUSED:
                self.put_by(trial)

    @property
    def bar(self) -> float:
        """What a trial's loss must fall below to be among the best."""
        return min(_last_of(self._finished, self._choice.keep), _last_of(self._paused, self._most_paused))

    def let_go(self, trial: Trial) -> None:
        """The trial is over: keep its best checkpoint if it is one of the best, and nothing else."""
        self.take_up(trial)
        folder = trial_folder(self._folder, trial.number)
        if trial.state is State.FAILED or not trial.measurements:
            trial_files.settle(folder, None)
            trial_files.forget(folder)
            return
        trial_files.settle(folder, lambda checkpoint: self._saved_loss(trial, checkpoint))
        if trial.in_finals:
            if trial.state is not State.COMPLETE:
                trial_files.forget(folder)
            return
        insort(self._finished, self._by_loss(trial))
        for loser in self._finished[self._choice.keep :]:
            trial_files.forget(trial_folder(self._folder, int(loser[-1])))
        del self._finished[self._choice.keep :]
        while self._paused and self._paused[-1][0] >= _last_of(self._finished, self._choice.keep):
            self._drop("best", self._paused.pop())

    def put_by(self, trial: Trial) -> None:
        """The trial waits: keep what it goes on from, and its best checkpoint, as long as no better ones need the room."""
        folder, rank = trial_folder(self._folder, trial.number), self._by_loss(trial)
        if rank[0] < _last_of(self._finished, self._choice.keep):
            insort(self._paused, rank)
            trial_files.keep_one_best(folder, lambda checkpoint: self._saved_loss(trial, checkpoint))
            for loser in self._paused[self._most_paused :]:
                self._drop("best", loser)
            del self._paused[self._most_paused :]
        else:
            self._drop("best", rank)
        if trial_files.newest(folder, "last"):
            insort(self._to_go_on, self._by_rung(trial))
            for loser in self._to_go_on[self._choice.paused :]:
                self._drop("last", loser)
            del self._to_go_on[self._choice.paused :]

    def take_up(self, trial: Trial) -> None:
        """The trial waits no longer."""
        _discard(self._paused, self._by_loss(trial))
        if trial.measurements:
            _discard(self._to_go_on, self._by_rung(trial))

    @property
    def _most_paused(self) -> int:
        return self._choice.keep + RESERVE

    def _by_loss(self, trial: Trial) -> Rank:
        return self._study.loss(trial), trial.number

    def _by_rung(self, trial: Trial) -> Rank:
        return -trial.epoch, self._study.rules.direction.loss(trial.measurements[-1].value), trial.number

    def _drop(self, kind: str, rank: Rank) -> None:
        trial_files.drop(trial_folder(self._folder, int(rank[-1])), kind)

    def _saved_loss(self, trial: Trial, checkpoint: Path) -> float:
        """The loss of what a checkpoint holds, if the journal has it; a worker that was given up may have trained on."""
        label = checkpoints.label(checkpoint)
        known = any((m.epoch, m.value) == (label.get("epoch"), label.get("value")) for m in trial.measurements)
        return self._study.rules.direction.loss(label["value"]) if known else math.inf


def _last_of(ranks: list[Rank], places: int) -> float:
    """The loss of the one in the last place; infinity while one is free."""
    return ranks[places - 1][0] if len(ranks) >= places else math.inf


def _discard(ranks: list[Rank], rank: Rank) -> None:
    place = bisect_left(ranks, rank)
    if place < len(ranks) and ranks[place] == rank:
        del ranks[place]

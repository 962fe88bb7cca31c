"""Which checkpoints of a study stay on the disk: of the best finished trials, and of the paused ones that are most worth going on with."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Callable, Collection, Mapping
from functools import partial

from hpo import checkpoints, trial_files
from hpo.in_turn import InTurn
from hpo.objects import ObjectPath
from hpo.places import Place, is_elsewhere
from hpo.sections import Checkpoints
from hpo.study import Study
from hpo.trial import State, Trial

RESERVE = 5  # paused trials beyond checkpoints.keep whose best stays: those before them may yet fail when they go on

Rank = tuple[float, ...]


class Retention:
    """Keeps, of the trials below `root`, what is worth it, and removes the rest; done again after a crash it does the same.

    Every completed run of the finals keeps its best checkpoint: any of them may yet be the model.

    Best checkpoints: of the best `choice.keep` finished trials, and of the paused ones that are better than all but those,
    `choice.keep` and RESERVE at most. To go on from: of `choice.paused` paused trials, those at the highest rungs first, the best
    of a rung first. What another has to give up costs a trial that is promoted after all the few epochs of a low rung.

    Which are kept is decided at once. Where it takes a network to reach them, the rest is removed beside, and nobody waits for that
    before `wait`.
    """

    def __init__(self, root: Place, choice: Checkpoints, study: Study) -> None:
        self._root, self._choice, self._study = root, choice, study
        self._beside = InTurn() if is_elsewhere(root) else None
        self._finished: list[Rank] = []  # loss and number, the best first; so in all three
        self._paused: list[Rank] = []
        self._to_go_on: list[Rank] = []  # epoch (the highest first), loss there, number
        ended = [trial for trial in (*study.trials, *study.finals) if trial.state.finished]
        waiting = [trial for trial in study.trials if trial.state is State.PAUSED]
        there = _there(root, [*ended, *waiting])
        for trial in ended:
            if trial.number in there:
                self.let_go(trial, there[trial.number])
        for trial in waiting:
            self.put_by(trial, there.get(trial.number, ()))

    @property
    def bar(self) -> float:
        """What a trial's loss must fall below to be among the best."""
        return min(_last_of(self._finished, self._choice.keep), _last_of(self._paused, self._most_paused))

    def let_go(self, trial: Trial, names: Collection[str] | None = None, *, was_heard: bool = False) -> None:
        """The trial is over: keep its best checkpoint if it is one of the best, and nothing else; `names` are there, if that is known.

        Unless its worker's last word `was_heard`, what it saved may be of an epoch that nobody heard of: that is not kept.
        """
        self.take_up(trial)
        keeps, losers = trial.state is State.COMPLETE, list[Rank]()
        if trial.state is State.FAILED or not trial.measurements:
            keeps = False
        elif not trial.in_finals:
            insort(self._finished, self._by_loss(trial))
            losers = self._finished[self._choice.keep :]
            del self._finished[self._choice.keep :]
            keeps = self._by_loss(trial) not in losers
        self._do(trial.number, partial(self._settle, trial, keeps=keeps, names=names, was_heard=was_heard))
        for number in (int(loser[-1]) for loser in losers):
            if number != trial.number:
                self._do(number, partial(trial_files.forget, self._folder(number)))
        while self._paused and self._paused[-1][0] >= _last_of(self._finished, self._choice.keep):
            self._drop("best", self._paused.pop())

    def put_by(self, trial: Trial, names: Collection[str] | None = None) -> None:
        """The trial waits: keep what it goes on from, and its best checkpoint, as long as no better ones need the room."""
        folder, rank = self._folder(trial.number), self._by_loss(trial)
        if rank[0] < _last_of(self._finished, self._choice.keep):
            insort(self._paused, rank)
            self._do(trial.number, partial(trial_files.keep_one_best, folder, partial(self._saved_loss, trial), names))
            for loser in self._paused[self._most_paused :]:
                self._drop("best", loser)
            del self._paused[self._most_paused :]
        else:
            self._drop("best", rank, names)
        if self._may_go_on(folder, names):
            insort(self._to_go_on, self._by_rung(trial))
            for loser in self._to_go_on[self._choice.paused :]:
                self._drop("last", loser)
            del self._to_go_on[self._choice.paused :]

    def take_up(self, trial: Trial) -> None:
        """The trial waits no longer."""
        _discard(self._paused, self._by_loss(trial))
        if trial.measurements:
            _discard(self._to_go_on, self._by_rung(trial))

    def wait(self, trial: Trial | None = None) -> None:
        """Wait until what was decided about a trial's checkpoints, or about any, is done; StorageError where it could not be."""
        if self._beside is not None:
            self._beside.wait(None if trial is None else trial.number)

    @property
    def _most_paused(self) -> int:
        return self._choice.keep + RESERVE

    def _by_loss(self, trial: Trial) -> Rank:
        return self._study.loss(trial), trial.number

    def _by_rung(self, trial: Trial) -> Rank:
        return -trial.epoch, self._study.rules.direction.loss(trial.measurements[-1].value), trial.number

    def _folder(self, number: int) -> Place:
        return trial_files.trial_folder(self._root, number)

    def _do(self, number: int, work: Callable[[], object]) -> None:
        if self._beside is None:
            work()
        else:
            self._beside.do(number, work)

    def _settle(self, trial: Trial, *, keeps: bool, names: Collection[str] | None, was_heard: bool) -> None:
        folder = self._folder(trial.number)
        trial_files.settle(folder, partial(self._saved_loss, trial) if keeps else None, names)
        unheard = keeps and not was_heard and self._saved_loss(trial, folder / trial_files.BEST) == math.inf
        if unheard or (not keeps and (names is None or trial_files.BEST in names)):
            trial_files.forget(folder)

    def _drop(self, kind: str, rank: Rank, names: Collection[str] | None = None) -> None:
        number = int(rank[-1])
        self._do(number, partial(trial_files.drop, self._folder(number), kind, names))

    def _may_go_on(self, folder: Place, names: Collection[str] | None) -> bool:
        """Whether a trial that waits has something to go on from, or, where that would have to be asked for, may have it."""
        if names is not None:
            return any(name.startswith("last-") for name in names)
        return self._beside is not None or trial_files.newest(folder, "last") is not None

    def _saved_loss(self, trial: Trial, checkpoint: Place) -> float:
        """The loss of what a checkpoint holds, if the journal has it; a worker that was given up may have trained on."""
        label = checkpoints.label(checkpoint)
        known = any((m.epoch, m.value) == (label.get("epoch"), label.get("value")) for m in trial.measurements)
        return self._study.rules.direction.loss(label["value"]) if known else math.inf


def _there(root: Place, trials: list[Trial]) -> Mapping[int, Collection[str] | None]:
    """The trials that have anything there, and what, where that is one answer; None: look."""
    if isinstance(root, ObjectPath):
        return trial_files.stored(root) if trials else {}
    found = trial_files.numbers(root) if trials else set()
    return {trial.number: None for trial in trials if trial.number in found}


def _last_of(ranks: list[Rank], places: int) -> float:
    """The loss of the one in the last place; infinity while one is free."""
    return ranks[places - 1][0] if len(ranks) >= places else math.inf


def _discard(ranks: list[Rank], rank: Rank) -> None:
    place = bisect_left(ranks, rank)
    if place < len(ranks) and ranks[place] == rank:
        del ranks[place]

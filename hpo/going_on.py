"""What trials of a study go on from: which checkpoint, and whether it is what was written. Decides nothing and removes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from hpo import checkpoints, trial_files
from hpo.events import Asked
from hpo.in_turn import THREADS
from hpo.journal import Journal
from hpo.places import Place, is_elsewhere
from hpo.trial import Trial

T = TypeVar("T")


class GoingOn:
    """The checkpoints below `root` of the trials that `journal` knew when it was opened, and of those asked for under its lease."""

    def __init__(self, root: Place, journal: Journal) -> None:
        self._root, self._lease, self._study = root, journal.lease, journal.path.parent.name
        self._asked_under = {record.event.trial: record.lease for record in journal.records if isinstance(record.event, Asked)}

    def since(self, trial: Trial) -> int:
        """The lease under which a trial was asked for: older checkpoints are of another one, which had its number before."""
        return self._asked_under.get(trial.number, self._lease)

    def newest(self, trial: Trial) -> Place | None:
        """What a trial goes on from, if there is anything."""
        return trial_files.newest(trial_files.trial_folder(self._root, trial.number), "last", self.since(trial))

    def count(self, trials: Sequence[Trial]) -> int:
        """How many of these have a checkpoint to go on from."""
        return sum(last is not None for last in self._side_by_side(self.newest, trials))

    def verify(self, trials: Sequence[Trial]) -> None:
        """Check every byte of what these go on from; CheckpointError, which says what to do, where one is not what was written."""
        try:
            list(self._side_by_side(self._check, trials))
        except checkpoints.CheckpointError as error:
            way = f"`hpo verify --repair {self._study}` sets it aside"
            raise checkpoints.CheckpointError(f"{error}; {way}, and the trial begins again") from error

    def _check(self, trial: Trial) -> None:
        if last := self.newest(trial):
            checkpoints.verify(last)

    def _side_by_side(self, look: Callable[[Trial], T], trials: Sequence[Trial]) -> Iterator[T]:
        """What a look at each trial's checkpoints gives; several at a time where it takes a network."""
        if not is_elsewhere(self._root):
            return map(look, trials)
        with ThreadPoolExecutor(THREADS) as threads:
            return threads.map(look, trials)

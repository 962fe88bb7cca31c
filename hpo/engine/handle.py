"""The trial as its trainer sees it: seed, device, folder, and the state it goes on from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hpo import checkpoints, durable, places, trial_files
from hpo.checkpoints import CheckpointError
from hpo.engine.assignment import Assignment
from hpo.places import Place
from hpo.trainer import TrainerError
from hpo.trial import Measurement


class Handle:
    """hpo.trainer.RunningTrial, and what the worker reads off it between two epochs."""

    def __init__(self, assignment: Assignment, device: str, folder: Path) -> None:
        """`folder` is the trial's own on this node."""
        self.number = assignment.number
        self.seed = assignment.seed
        self.device = device
        self.max_epochs = assignment.max_epochs
        self.measurements: list[Measurement] = []  # of every epoch trained so far, before a restart too
        self.offered: dict[str, Any] | None = None
        self.damage: CheckpointError | None = None  # why the trial cannot go on, whatever its trainer makes of the exception
        # names of what is stored of the trial, known until more is written: nothing where it was only just asked for
        self.names: list[str] | None = [] if (assignment.lease, assignment.attempt) == (assignment.since, 1) else None
        self._folder = folder
        self._study, self._since = assignment.study, assignment.since
        stored = assignment.folder
        self._stored = stored.absolute() if isinstance(stored, Path) else stored  # the trainer may change the working directory

    @property
    def folder(self) -> Path:
        durable.make_folder(self._folder)
        return self._folder

    def newest(self, kind: str) -> Place | None:
        """The newest stored checkpoint of that kind (last or best), None if there is none."""
        return trial_files.newest(self._stored, kind, self._since, self.stored())

    def stored(self) -> list[str]:
        """The names of what is stored of the trial."""
        if self.names is None:
            self.names = places.names(self._stored)
        return self.names

    def save(self, **state: Any) -> None:
        if checkpoints.LABEL in state:
            raise TrainerError(f"trial.save: the name {checkpoints.LABEL!r} is taken; choose another")
        self.offered = state

    def restored(self) -> dict[str, Any] | None:
        newest = self.newest("last")
        if newest is None:
            return None
        try:
            state = checkpoints.load(newest)
        except CheckpointError as error:
            what_to_do = f"the trial cannot go on and is not begun again; check its disk, then `hpo verify {self._study}` for the rest"
            self.damage = CheckpointError(f"{error}; {what_to_do}")
            raise self.damage from error
        saved = state.pop(checkpoints.LABEL)["measurements"]
        if not self.measurements:  # asked again later, the trial has trained on since
            self.measurements = [Measurement(*fields) for fields in saved]
        return state

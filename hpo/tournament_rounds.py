"""Runs a tournament study by study, whole rounds first; the same call again goes on where it was cut short."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from hpo.declarations import TrainerDeclaration
from hpo.home import HomeError, is_running, study_home
from hpo.journal import FILE_NAME
from hpo.journal_format import read
from hpo.launching import launch_spec
from hpo.preparing import completed, trainer_of
from hpo.problem import SpecError
from hpo.results import StoredStudy
from hpo.resuming import resume_study
from hpo.spec_difference import differences
from hpo.tournament import Entry, Tournament
from hpo.trust import demands, vouch

if TYPE_CHECKING:
    from rich.console import Console

OVER = ("budget", "time")
Tell = Callable[[str], None]


class Step(Enum):
    """What an entry needs."""

    LAUNCH = "launch"
    RESUME = "resume"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Played:
    """The studies of a tournament in the order of its entries, and the signal that cut it short, if one did."""

    studies: tuple[StoredStudy, ...]
    signal: int | None = None


def play(
    contest: Tournament, *, home: Path | None = None, local: bool = False, console: Console | None = None, tell: Tell = lambda _: None
) -> Played:
    """Run what is missing of the tournament. `tell` gets a line before and after each study.

    Raises HomeError, before anything is started, where a study of one of the names is another search or is running, and what
    `launch_spec` and `resume_study` raise.
    """
    home = home or study_home()
    steps = _steps(contest, home)
    vouch(demands(contest.entries[0].spec))  # the studies that go on are of this very spec
    studies: list[StoredStudy] = []
    for number, (entry, step) in enumerate(zip(contest.entries, steps, strict=True), start=1):
        folder, counted = home / entry.spec.name, f"{number} of {len(steps)}, round {entry.repeat}"
        if step is Step.NOTHING:
            studies.append(StoredStudy.open(folder))
            continue
        tell(f"{entry.spec.name} ({counted})" + (": goes on" if step is Step.RESUME else ""))
        if step is Step.RESUME:
            study = resume_study(folder, local=local, console=console)
        else:
            study = launch_spec(entry.spec, home=home, exactly=True, local=local, console=console)
        studies.append(study)
        if study.signal is not None:
            return Played(tuple(studies), study.signal)
        tell(f"{study.name} {study.standing}: {_outcome(study)}")
    return Played(tuple(studies))


def _outcome(study: StoredStudy) -> str:
    best = study.best
    return f"{best.metric} {best.value:.4g}, {study.epochs} epochs" if best else "no trial succeeded"


def _steps(contest: Tournament, home: Path) -> list[Step]:
    """What each entry needs; HomeError with every study that is in the way."""
    declaration = trainer_of(contest.entries[0].spec)
    steps: list[Step] = []
    obstacles: list[str] = []
    for entry in contest.entries:
        try:
            steps.append(_step(entry, home / entry.spec.name, declaration))
        except HomeError as error:
            obstacles.append(str(error))
    if obstacles:
        raise HomeError("\n".join([*obstacles, "give the tournament another name with --name, or remove these studies (`hpo delete`)"]))
    return steps


def _step(entry: Entry, folder: Path, declaration: TrainerDeclaration) -> Step:
    if is_running(folder):
        raise HomeError(f"study {folder.name} is running; wait for it, or stop it with `hpo stop {folder.name}`")
    if not (folder / FILE_NAME).exists() or not read(folder / FILE_NAME):
        return Step.LAUNCH  # a launch that died at once left no line
    try:
        study = StoredStudy.open(folder)
        changed = _changed(study, completed(entry.spec, declaration).to_dict())
    except SpecError as error:
        raise HomeError(f"study {folder.name} is of another version, and its spec cannot be read: {error}") from error
    if changed:
        raise HomeError("\n".join([f"study {folder.name} exists already and is another search:", *(f"  {line}" for line in changed)]))
    return Step.NOTHING if study.state in OVER else Step.RESUME


def _changed(study: StoredStudy, wanted: dict[str, object]) -> list[str]:
    """How the search of a study is not the one that is wanted; where MLflow is makes no other search."""
    there = {key: value for key, value in study.spec.to_dict().items() if key != "tracking"}
    lines = differences(there, {key: value for key, value in wanted.items() if key != "tracking"})
    given, now = study.spec.budget.epochs, study.study.rules.epoch_budget
    return lines + ([f"budget.epochs: {now} by `hpo resume` there, {given} here"] if not lines and given != now else [])

"""Going on with a study that exists: after a crash, a stop, or its end, perhaps with a larger budget."""

from __future__ import annotations

import math
import os
import socket
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from hpo.capacity import place
from hpo.durations import seconds, span
from hpo.events import Created, Resumed
from hpo.ground import check_storage, ground
from hpo.home import HomeError, no_line, original_of
from hpo.journal import FILE_NAME, Journal
from hpo.journal_format import JournalError, Record
from hpo.preparing import check_address, check_surroundings, defaults_of, trainer_of, versions
from hpo.results import StoredStudy
from hpo.running import run, ship
from hpo.session import Session
from hpo.site import Site, site
from hpo.spec import Spec, spec_from_dict
from hpo.specified import at_most
from hpo.trial import State
from hpo.trust import demands, of_record, require

if TYPE_CHECKING:
    from rich.console import Console


def resume_study(
    folder: Path,
    *,
    trials: int | None = None,
    time: str | None = None,
    epochs: int | None = None,
    open_test_again: bool = False,
    local: bool = False,
    where: Site | None = None,
    console: Console | None = None,
) -> StoredStudy:
    """Go on with the study in `folder` to the end of its budget and return it, MLflow told.

    Untrusted, before anything is imported or contacted, where it asks for what this user never vouched for (`hpo.trust`).

    Trials that were running go on from their checkpoints, and those that wait for their promotion wait on. `trials`, `time` (such as
    "2h") and `epochs` are a new budget, in all. With one the search goes on, and so do the finals after it; the test split stays
    closed for another model, unless `open_test_again` says that it is to be opened once more, which the record then says, too.
    A study that is over and gets no new budget is left as it is; MLflow gets what it lacks.

    Raises LeaseHeld while another process runs it, JournalDamaged or CheckpointError where a file is not what was
    written, HomeError for a budget that is spent already, and what `launch_spec` raises.
    """
    with Journal.open(folder / FILE_NAME) as journal:
        spec = _spec(journal)
        require([*demands(spec), *of_record(folder)], folder.name)
        declaration = trainer_of(spec)
        session = Session(spec, declaration.entry, folder, journal, defaults_of(spec, declaration))
        event = _resumed(session, trials, time, epochs)
        session.check_checkpoints()
        session.opens_test_again = open_test_again
        ended = session.study.ended
        check_address(spec)
        if not _is_new(event) and not open_test_again and ended is not None and ended.reason in ("budget", "time"):
            if console is not None:
                console.print(f"{folder.name} is over; --trials, --time or --epochs gives it a larger budget", highlight=False)
            return StoredStudy.open(folder, ship(session, journal, console))
        on = ground(where or site(), local=local)
        placement = place(spec.resources, on.there, 1 if local else max(1, session.left))
        check_surroundings(spec, workers_here=on.address is None)
        check_storage(spec, on)
        _tell(session, journal, event, console)
        session.resume(event)
        signal = run(session, journal, placement, on, local=local, console=console)
    return StoredStudy.open(folder, signal)


def _spec(journal: Journal) -> Spec:
    first = journal.records[0].event if journal.records else None
    if not isinstance(first, Created):
        raise JournalError(no_line(journal.path.parent))
    if original := original_of(journal.path.parent):
        raise HomeError(
            f"{journal.path.parent} is a copy of {original}: both would write to the same MLflow runs; remove one of them "
            "(`hpo delete`), or launch a study of another name"
        )
    return spec_from_dict(first.spec)


def _resumed(session: Session, trials: int | None, time: str | None, epochs: int | None) -> Resumed:
    """The event that goes on with the study; HomeError for a budget that cannot be meant."""
    asked, trained = len(session.study.trials), session.study.epochs
    if trials is not None and trials < max(1, asked):
        raise HomeError(f"--trials {trials}: it is the number in all, and the study has {asked} trials; give at least {max(1, asked)}")
    try:
        time_s = None if time is None else seconds(time)
    except ValueError as error:
        raise HomeError(f"--time: {error}") from None
    if time_s is not None and time_s <= session.endings.spent_s:
        spent = span(float(math.ceil(session.endings.spent_s)))
        raise HomeError(f"--time {time}: it is the time in all, and the study has run for {spent}; give a longer one")
    if epochs is not None and epochs <= trained:
        raise HomeError(f"--epochs {epochs}: it is the number in all, and the study has trained {trained}; give at least {trained + 1}")
    given = {"trials": trials, "time": time, "epochs": epochs}
    if (missing := _missing(session, given)) is not None:
        first = next(f"--{name} {value}" for name, value in given.items() if value is not None)
        raise HomeError(f"{first}: {missing}, too")
    trials = None if trials is None else at_most(session.spec, trials)
    return Resumed(socket.gethostname(), os.getpid(), versions(), trials, time_s, epochs)


def _missing(session: Session, given: Mapping[str, object]) -> str | None:
    """What else a new budget needs before anything can be trained, as the end of a sentence; None if it is nothing."""
    study = session.study
    if all(value is None for value in given.values()):
        return None
    if given["time"] is None and session.endings.search_time_is_up:
        whose = "the study's time" if session.endings.time_is_up else "the search's share of the study's time"
        return f"{whose} ({span(session.endings.limit_s or 0.0)}) is spent; give --time"
    if given["epochs"] is None and study.is_spent:
        return f"the study's epochs ({study.rules.epoch_budget}) are spent; give --epochs"
    if given["epochs"] is not None and given["trials"] is None and session.left_in_search == 0:
        return f"all of its {len(study.trials)} trials have ended; give --trials"
    return None


def _is_new(event: Resumed) -> bool:
    return event.trials is not None or event.time_s is not None or event.epochs is not None


def _tell(session: Session, journal: Journal, event: Resumed, console: Console | None) -> None:
    if console is None:
        return
    if journal.healed:
        console.print(f"the last write, {journal.healed} bytes, was never finished nor acknowledged and is dropped", highlight=False)
    known = (*session.study.trials, *session.study.finals)
    states, from_checkpoints = Counter(trial.state for trial in known), session.with_checkpoint
    parts = [
        f"{sum(states[state] for state in State if state.finished)} trials ended",
        f"{from_checkpoints} go on from their checkpoints",
        f"{states[State.RUNNING] - from_checkpoints} begin again",
    ]
    if states[State.PAUSED]:
        parts.append(f"{states[State.PAUSED]} wait for their promotion")
    console.print(f"resuming [bold]{session.folder.name}[/bold]: {', '.join(parts)}", highlight=False, soft_wrap=True)
    for name, (was, now) in _changed(journal.records, event.versions).items():
        console.print(f"  {name} was {was} and is {now}: results may differ from an uninterrupted run's", highlight=False)


def _changed(records: list[Record], now: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    was: Mapping[str, str] = {}
    for record in records:
        if isinstance(record.event, Created | Resumed):
            was = record.event.versions
    return {name: (version, now[name]) for name, version in was.items() if now.get(name, version) != version}

"""Whether all that is kept of a study agrees: journal, sampler's history, checkpoints, MLflow. The tests' oracle and the users'."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from itertools import chain, islice, pairwise
from pathlib import Path

from hpo import checkpoints, journal, lease, objects, trial_files, verifying_choice
from hpo.checkpoints import CheckpointError, NoCheckpoint
from hpo.doctor import Check
from hpo.events import Asked, Ended, Event, Finished, Measured, Paused, Promoted
from hpo.home import is_running, root_of
from hpo.journal import FILE_NAME
from hpo.journal_format import Follower
from hpo.objects import StorageError
from hpo.places import Place, is_elsewhere
from hpo.results import StoredStudy
from hpo.sampling import HISTORY_IN_OPTUNA
from hpo.specified import rules_of
from hpo.trial import FINALS_FROM, State, name_of
from hpo.trial_files import BEST
from hpo.trust import Untrusted, of_storage, require

MOST_SHOWN = 5
PATIENCE_S = 10.0


def verify(folder: Path, *, ask_mlflow: bool = True) -> list[Check]:
    """Every check of the study in `folder`, with what was counted; raises JournalDamaged for a journal that cannot be read.

    While the study runs, its checkpoints and MLflow change under the eyes and are left out.
    """
    study = StoredStudy.open(folder)
    events = [record.event for record in study.records]
    found = [_journal(folder), _endings(events), _values(events), _check("best", *verifying_choice.best(study, events)), _history(study)]
    if study.spec.finals or study.study.unsealed:
        found.append(_check("test split", *verifying_choice.openings(events)))
    if is_running(folder):
        return [*found, Check("running", True, "checkpoints and MLflow are compared when it has stopped")]
    found.append(_checkpoints(study))
    if ask_mlflow:
        found.append(_mlflow(study))
    return found


def repair(folder: Path) -> list[str]:
    """Drop what is damaged in the journal and of the checkpoints to go on from; what was done, in words.

    Nothing is destroyed: the journal's dropped bytes and the damaged checkpoints stay beside what is left. Raises
    LeaseHeld while the study runs.
    """
    done = []
    if dropped := journal.repair(folder / FILE_NAME):
        done.append(f"{folder / FILE_NAME}: {dropped.size} bytes behind line {dropped.records} were dropped; they are in {dropped.kept_in}")
    with lease.holding(folder / FILE_NAME):
        root = root_of(folder)
        require(of_storage(root), folder.name)
        for _, path in trial_files.checkpoints_of(root):
            if mistake := _mistake(path):
                aside = trial_files.set_aside(path)
                done.append(f"{mistake}; it is now {aside}, and a trial that runs goes on from an older one or from its beginning")
    return done


def _mistake(checkpoint: Place) -> str:
    """What is wrong with a checkpoint; empty if nothing is, or it went meanwhile."""
    try:
        checkpoints.verify(checkpoint)
    except NoCheckpoint:
        return ""
    except CheckpointError as error:
        return str(error)
    return ""


def _check(name: str, counted: str, mistakes: list[str], mend: str = "") -> Check:
    if not mistakes:
        return Check(name, True, counted)
    more = [f"and {len(mistakes) - MOST_SHOWN} more"] if len(mistakes) > MOST_SHOWN else []
    return Check(name, False, "; ".join([*mistakes[:MOST_SHOWN], *more]), mend)


def _journal(folder: Path) -> Check:
    follower = Follower(folder / FILE_NAME)
    processes = len({record.lease for record in follower.read()})
    torn = (folder / FILE_NAME).stat().st_size - follower.offset
    counted = f"{follower.seq} lines, every checksum right, written by {processes} process{'es one after another' if processes > 1 else ''}"
    if follower.stale:
        counted += f"; {follower.stale} lines of one that had lost the lease are left out"
    if torn and not is_running(folder):
        counted += f"; the last write, {torn} bytes, was never finished nor acknowledged and is left out"
    return Check("journal", True, counted)


def _endings(events: list[Event]) -> Check:
    asked, ended = Counter(e.trial for e in events if isinstance(e, Asked)), Counter(e.trial for e in events if isinstance(e, Finished))
    mistakes = [f"{name_of(trial)} was asked for {times} times" for trial, times in asked.items() if times > 1]
    mistakes += [f"{name_of(trial)} ended {times} times" for trial, times in ended.items() if times > 1]
    mistakes += [f"{name_of(trial)} ended and was never asked for" for trial in ended.keys() - asked.keys()]
    mistakes += [f"{name_of(trial)} is missing" for trial in _lacking(asked.keys())]
    running = sorted(asked.keys() - ended.keys())
    last = events[-1]
    if isinstance(last, Ended) and last.reason in ("budget", "time"):
        mistakes += [f"{name_of(trial)} never ended, though the study did" for trial in running]
    waiting = len(_waiting(events))
    finals = sum(trial >= FINALS_FROM for trial in asked)
    counted = [
        f"{len(asked) - finals} trials started",
        *([f"{finals} in the finals"] if finals else []),
        f"{len(ended)} ended exactly once",
    ]
    counted += [f"{len(running) - waiting} to be resumed"] if len(running) > waiting else []
    counted += [f"{waiting} paused"] if waiting else []
    return _check("trials", ", ".join(counted), mistakes)


def _lacking(asked: Collection[int]) -> list[int]:
    """The first numbers that were left out before others, of the search's trials and of the finals'."""
    lacking = []
    for first, last in ((0, FINALS_FROM), (FINALS_FROM, math.inf)):
        found = sorted(number for number in asked if first <= number < last)
        gaps = (range(before + 1, number) for before, number in pairwise([first - 1, *found]))  # may be 10^9 wide
        lacking += list(islice(chain.from_iterable(gaps), MOST_SHOWN + 1))
    return lacking


def _waiting(events: list[Event]) -> set[int]:
    """The trials that are paused at the end of `events`."""
    waiting: set[int] = set()
    for event in events:
        if isinstance(event, Paused):
            waiting.add(event.trial)
        elif isinstance(event, Promoted | Finished):
            waiting.discard(event.trial)
    return waiting


def _values(events: list[Event]) -> Check:
    seen: dict[int, int] = {}
    over: dict[int, str] = {}
    mistakes = []
    for event in events:
        if isinstance(event, Measured):
            if event.epoch != seen.get(event.trial, 0) + 1:
                mistakes.append(f"{name_of(event.trial)}: epoch {event.epoch} follows epoch {seen.get(event.trial, 0)}")
            if event.trial in over:
                mistakes.append(f"{name_of(event.trial)}: epoch {event.epoch} follows its {over[event.trial]}")
            seen[event.trial] = event.epoch
        elif isinstance(event, Finished | Paused):
            over[event.trial] = "end" if isinstance(event, Finished) else "pause"
        elif isinstance(event, Promoted) and over.pop(event.trial, "") != "pause":
            mistakes.append(f"{name_of(event.trial)}: was promoted at epoch {event.epoch}, where it did not wait")
    return _check("epochs", f"{sum(seen.values())} epochs, one value for each", mistakes)


def _history(study: StoredStudy) -> Check:
    """The history that the sampler is handed, rebuilt and compared with the trials."""
    if study.spec.sampler.name not in (*HISTORY_IN_OPTUNA, "auto", "ladders"):
        return Check("sampler", True, f"{study.spec.sampler.name} looks at no history")
    if study.spec.sampler.name not in HISTORY_IN_OPTUNA:
        return _ladders(study)
    from hpo.sampling.with_optuna import misfits

    mistakes = misfits(study.spec.space, study.spec.objective.direction, study.trials)
    return _check("sampler", f"{len(study.trials)} trials in Optuna's history, states, parameters and values the same", mistakes)


def _ladders(study: StoredStudy) -> Check:
    """Recomputed from the trials alone: the values at the rungs that the ladders' models are fitted to."""
    from hpo.sampling.ladder_view import misfits

    rules = rules_of(study.spec)
    mistakes = misfits(study.spec.space, rules, study.trials)
    counted = f"{len(study.trials)} trials at the rungs {', '.join(map(str, (*rules.rungs, rules.max_epochs)))} in the ladders' history"
    return _check("sampler", f"{counted}, values and failures the same", mistakes)


def _checkpoints(study: StoredStudy) -> Check:
    name = study.name
    try:
        require(of_storage(study.root), name)
        with objects.briefly():
            found = list(trial_files.checkpoints_of(study.root))
        return _stored(study, found)
    except StorageError as error:
        return Check("checkpoints", False, str(error), f"`hpo verify {name}` again, from a machine that reaches the storage")
    except Untrusted as error:
        return Check("checkpoints", False, str(error))


def _stored(study: StoredStudy, found: list[tuple[int, Place]]) -> Check:
    states = {trial.number: trial.state for trial in (*study.trials, *study.study.finals)}
    kept = [number for number, path in found if path.name == BEST]
    to_go_on = {number for number, path in found if path.name.startswith("last-")}
    finals, waiting = sum(number >= FINALS_FROM for number in kept), sum(number in states for number in to_go_on)
    late, mistakes = [], list(_beyond(study, states, kept, to_go_on))
    for number, path in found:
        if states.get(number, State.RUNNING).finished and path.name != BEST and is_elsewhere(path):
            late.append(path)
        elif number in states:
            mistakes += _misfits(study, number, path)
    strangers = trial_files.strangers(study.root, len(study.trials), len(study.study.finals))
    if is_elsewhere(study.root):  # of trials that a journal lost with its end, if their workers are still there
        late += strangers
    else:
        mistakes += [f"{path} belongs to no trial of the journal" for path in strangers]
    counted = (
        f"{len(kept) - finals} of finished trials"
        + (f", {finals} of the finals" if finals else "")
        + (f", {waiting} to go on from" if waiting else "")
        + ", every checksum right"
        + (f"; {len(late)} that workers wrote after they were given up are no harm and go with the next resume" if late else "")
    )
    mend = f"`hpo verify --repair {study.name}` sets damaged ones aside, `hpo resume {study.name}` puts the others in order"
    return _check("checkpoints", counted, mistakes, mend)


def _misfits(study: StoredStudy, number: int, path: Place) -> Iterator[str]:
    """What is wrong with a checkpoint of a trial of the study's."""
    trial = study.study.trial(number)
    if mistake := _mistake(path):
        yield mistake
    elif trial.state.finished and path.name != BEST:
        yield f"{path} is left over from a trial that ended"
    elif path.name == BEST:
        label = checkpoints.label(path)
        epoch, value = label.get("epoch", 0), label.get("value")
        journaled = next((m.value for m in trial.measurements if m.epoch == epoch), None)
        if value != journaled:
            yield f"{path} is of epoch {epoch} with {value}; the journal has {journaled}"


def _beyond(study: StoredStudy, states: Mapping[int, State], kept: list[int], to_go_on: Collection[int]) -> Iterator[str]:
    """What is there in too great numbers, or missing."""
    choice, best, model = study.spec.checkpoints, study.best, study.study.model()
    of_search = sum(number < FINALS_FROM for number in kept)
    if of_search and best and model is not None and model.state.finished and best.checkpoint is None:
        yield f"the best, {name_of(model.number)}, has no checkpoint, though others have"
    if of_search > choice.keep:
        yield f"{of_search} checkpoints of finished trials are kept; checkpoints.keep is {choice.keep}"
    paused = sum(states.get(number) is State.PAUSED for number in to_go_on)
    if paused > choice.paused:
        yield f"{paused} paused trials have checkpoints to go on from; checkpoints.paused is {choice.paused}"


def _mlflow(study: StoredStudy) -> Check:
    from hpo import recording

    name = study.name
    try:
        found = recording.check(study.folder, PATIENCE_S)
    except (recording.TrackingError, Untrusted) as error:
        return Check("mlflow", False, str(error), f"`hpo verify --offline {name}` leaves MLflow out; `hpo track {name}` brings it in line")
    counted = f"{found.runs} runs, {found.params} parameters, {found.tags} tags, {found.points} points, {found.models} models: each once"
    return _check("mlflow", counted, [str(row) for row in found.differences], f"`hpo track {name}` brings MLflow in line with the journal")

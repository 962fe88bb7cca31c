"""Where a trial's checkpoints and logs are. Every attempt writes under names of its own; no torch.

While a trial runs, attempt 2 under lease 3 writes `last-3.2` (to go on from) and `best-3.2` (the best epoch so far). When the
trial is over its best becomes `best`, and the others go. While it is paused they keep their names. On a disk a checkpoint is a
folder, in an object store an object.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import overload

from hpo import objects, places
from hpo.objects import ObjectPath, StorageError
from hpo.places import Place
from hpo.trial import FINALS_FROM

MANIFEST = "state.json"
BEST = "best"
ROOMS = {"trials": 0, "finals": FINALS_FROM}  # the folders of a study's trials, and the number of the first one there
_ATTEMPT = re.compile(r"(?:last|best)-([0-9]+)\.([0-9]+)")


@overload
def trial_folder(root: Path, number: int) -> Path: ...
@overload
def trial_folder(root: ObjectPath, number: int) -> ObjectPath: ...
def trial_folder(root: Place, number: int) -> Place:
    """The folder of a trial's checkpoints and logs below the study's; those of the finals are apart."""
    if number >= FINALS_FROM:
        return root / "finals" / f"{number - FINALS_FROM:05d}"
    return root / "trials" / f"{number:05d}"


def last_name(lease: int, attempt: int) -> str:
    """The name of the checkpoint that an attempt goes on from."""
    return f"last-{lease}.{attempt}"


def best_name(lease: int, attempt: int) -> str:
    """The name of the checkpoint of an attempt's best epoch."""
    return f"best-{lease}.{attempt}"


@overload
def hang_log(folder: Path, lease: int, attempt: int) -> Path: ...
@overload
def hang_log(folder: ObjectPath, lease: int, attempt: int) -> ObjectPath: ...
def hang_log(folder: Place, lease: int, attempt: int) -> Place:
    """Where a worker that hung wrote what it was doing; empty or missing unless it did."""
    return folder / f"hang-{lease}.{attempt}.log"


def has_hung(folder: Place, lease: int, attempt: int) -> bool:
    """Whether that worker hung; not if its log cannot be looked for."""
    log = hang_log(folder, lease, attempt)
    try:
        return bool(objects.size(log) if isinstance(log, ObjectPath) else log.stat().st_size)
    except OSError:
        return False


def death_log(folder: Path, lease: int, attempt: int) -> Path:
    """Where a worker's last words are kept, if it died and had any."""
    return folder / f"worker-{lease}.{attempt}.log"


def newest(folder: Place, kind: str, since: int = 0, names: Collection[str] | None = None) -> Place | None:
    """The checkpoint of that kind (last or best) of the newest attempt that finished writing one; None before the first.

    One of a lease before `since` is another trial's, of the same number, that a journal which lost its end does not know.
    """
    found = next(iter(_written(folder, kind, places.names(folder) if names is None else names)), None)
    return found if found and age(found.name) >= (since, 0) else None


def has_best(root: Place, number: int) -> bool:
    """Whether the best of a trial that ended is there; True where that cannot be known now."""
    best = trial_folder(root, number) / BEST
    try:
        with objects.briefly():
            return objects.size(best) is not None if isinstance(best, ObjectPath) else best.is_dir()
    except StorageError:
        return True


def best_of(root: Place, number: int) -> Place:
    """The checkpoint of a trial's best epoch; of one that was interrupted that of its newest attempt. It need not be there."""
    folder = trial_folder(root, number)
    names = places.names(folder)
    return folder / BEST if BEST in names else newest(folder, "best", names=names) or folder / BEST


def settle(folder: Place, rank: Callable[[Place], float] | None, names: Collection[str] | None = None) -> None:
    """The trial is over: of its best checkpoints the one of lowest `rank` becomes `best`, all others are removed.

    Without `rank` none is kept. May be done again, as after a crash in the middle. Logs stay, empty ones of watchdogs go.
    `names` are those of what is there, if that is known.
    """
    names = places.names(folder) if names is None else names
    if rank:
        best = folder / BEST
        found = [*([best] if BEST in names and _is_whole(best) else []), *_written(folder, "best", names)]
        kept = min(found, key=rank) if len(found) > 1 else next(iter(found), best)
        if kept != best:
            _put(kept, best)
    _remove(attempts(folder, names))
    if isinstance(folder, Path):
        for log in folder.glob("hang-*.log"):
            if not log.stat().st_size:
                log.unlink()


def keep_one_best(folder: Place, rank: Callable[[Place], float], names: Collection[str] | None = None) -> None:
    """The trial pauses: of its best checkpoints that of lowest `rank` stays, under its name."""
    found = _written(folder, "best", places.names(folder) if names is None else names)
    if len(found) > 1:
        kept = min(found, key=rank)
        _remove(path for path in found if path != kept)


def drop(folder: Place, kind: str, names: Collection[str] | None = None) -> None:
    """Remove all checkpoints of that kind (last or best) of a trial that pauses; logs stay."""
    _remove(path for path in attempts(folder, names) if path.name.startswith(f"{kind}-"))
    _remove_if_empty(folder)


def attempts(folder: Place, names: Collection[str] | None = None) -> list[Place]:
    """The checkpoints that attempts wrote under names of their own, finished or not; what a trainer put there is none."""
    return [folder / name for name in (places.names(folder) if names is None else names) if _ATTEMPT.fullmatch(name)]


def numbers(root: Path) -> set[int]:
    """The trials that have a folder below `root`."""
    return {first + int(own) for room, first in ROOMS.items() for own in places.names(root / room) if own.isdecimal()}


def stored(root: Place) -> Mapping[int, list[str]]:
    """What there is of each trial that has a folder below `root`, by name; an object store is asked once for each thousand."""
    found: dict[int, list[str]] = {}
    if isinstance(root, ObjectPath):
        for path in objects.below(root):
            room, _, rest = path.uri.removeprefix(f"{root}/").partition("/")
            own, _, name = rest.partition("/")
            _list(found, room, own).append(name.partition("/")[0])
    else:
        plain = Path(root)  # for one who only looks, what an NFS client remembers is new enough
        for room in ROOMS:
            for own in places.names(plain / room):
                _list(found, room, own).extend(places.names(plain / room / own))
    return {number: list(dict.fromkeys(names)) for number, names in found.items()}


def _list(found: dict[int, list[str]], room: str, own: str) -> list[str]:
    """The list of the trial whose folder is called so; one that nobody has for what is no trial's."""
    return found.setdefault(ROOMS[room] + int(own), []) if room in ROOMS and own.isdecimal() else []


def checkpoints_of(root: Place) -> Iterator[tuple[int, Place]]:
    """All whole checkpoints below `root` that a trial has, with its number; for a store with few requests."""
    for number, names in sorted(stored(root).items()):
        folder = trial_folder(root, number)
        found = [*([folder / BEST] if BEST in names else []), *attempts(folder, names)]
        yield from ((number, path) for path in found if _is_whole(path))


def strangers(root: Place, trials: int, finals: int) -> list[Place]:
    """The folders of trials from number `trials` on, and of finals likewise, which a journal that lost its end does not know."""
    found = [(root / room / name, most) for room, most in (("trials", trials), ("finals", finals)) for name in places.names(root / room)]
    return sorted((path for path, most in found if path.name.isdecimal() and int(path.name) >= most), key=str)


def drop_strangers(root: Place, trials: int, finals: int, lease: int) -> None:
    """Keep the folders of unknown trials out of the way of new ones with their numbers: in `dropped-LEASE`."""
    for path in strangers(root, trials, finals):
        places.move(path, root / f"dropped-{lease}" / path.parent.name / path.name)


def drop_older(folder: Place, lease: int, attempt: int, names: Collection[str] | None = None) -> None:
    """Remove what earlier attempts went on from; a later one's, which this one may have been given up for, stays."""
    _remove(path for path in attempts(folder, names) if path.name.startswith("last-") and age(path.name) < (lease, attempt))


def set_aside(checkpoint: Place) -> Place:
    """Keep a damaged checkpoint under another name, where nothing goes on from it; the new path."""
    aside = checkpoint.with_name(f"damaged-{checkpoint.name}")
    places.remove([aside])
    places.move(checkpoint, aside)
    return aside


def forget(folder: Place) -> None:
    """Remove a finished trial's best checkpoint; logs stay."""
    _remove([folder / BEST])
    _remove_if_empty(folder)


def age(name: str) -> tuple[int, int]:
    """Lease and attempt in a checkpoint's name; of two the greater is the newer."""
    match = _ATTEMPT.fullmatch(name)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _written(folder: Place, kind: str, names: Collection[str]) -> list[Place]:
    found = [path for path in attempts(folder, names) if path.name.startswith(f"{kind}-") and _is_whole(path)]
    return sorted(found, key=lambda path: age(path.name), reverse=True)


def _is_whole(path: Place) -> bool:
    """Whether a checkpoint of which there is something was written to its end; an object always was."""
    return isinstance(path, ObjectPath) or (path / MANIFEST).exists()


def _put(source: Place, target: Place) -> None:
    """Have `target` hold what `source` does, which is of no use any more: on a disk it is gone then."""
    if isinstance(source, ObjectPath) and isinstance(target, ObjectPath):
        objects.copy(source, target)  # in the place of an earlier one, in one step
    elif isinstance(source, Path) and isinstance(target, Path):
        _remove([target])
        source.rename(target)


def _remove(checkpoints: Iterable[Place]) -> None:
    """Remove checkpoints; what a crash leaves of one on a disk is none any more."""
    found = list(checkpoints)
    for path in found:
        if isinstance(path, Path):
            with suppress(OSError):
                (path / MANIFEST).unlink()
    places.remove(found)


def _remove_if_empty(folder: Place) -> None:
    if isinstance(folder, Path) and folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()

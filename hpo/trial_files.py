"""Where a trial's checkpoints and logs are. Every attempt writes under names of its own; no torch.

While a trial runs, attempt 2 under lease 3 writes `last-3.2` (to go on from) and `best-3.2` (the best epoch so far). When the
trial is over its best becomes `best`, and the others go. While it is paused they keep their names.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

from hpo.trial import FINALS_FROM

MANIFEST = "state.json"
_ATTEMPT = re.compile(r"(?:last|best)-([0-9]+)\.([0-9]+)")


def trial_folder(study: Path, number: int) -> Path:
    """The folder of a trial's checkpoints and logs; those of the finals are apart."""
    if number >= FINALS_FROM:
        return study / "finals" / f"{number - FINALS_FROM:05d}"
    return study / "trials" / f"{number:05d}"


def last_name(lease: int, attempt: int) -> str:
    """The name of the checkpoint that an attempt goes on from."""
    return f"last-{lease}.{attempt}"


def best_name(lease: int, attempt: int) -> str:
    """The name of the checkpoint of an attempt's best epoch."""
    return f"best-{lease}.{attempt}"


def hang_log(folder: Path, lease: int, attempt: int) -> Path:
    """Where a worker that hung wrote what it was doing; empty or missing unless it did."""
    return folder / f"hang-{lease}.{attempt}.log"


def death_log(folder: Path, lease: int, attempt: int) -> Path:
    """Where a worker's last words are kept, if it died and had any."""
    return folder / f"worker-{lease}.{attempt}.log"


def newest(folder: Path, kind: str) -> Path | None:
    """The checkpoint of that kind (last or best) of the newest attempt that finished writing one; None before the first."""
    return next(iter(_written(folder, kind)), None)


def settle(folder: Path, rank: Callable[[Path], float] | None) -> None:
    """The trial is over: of its best checkpoints the one of lowest `rank` becomes `best`, all others are removed.

    Without `rank` none is kept. May be done again, as after a crash in the middle. Logs stay, empty ones of watchdogs go.
    """
    if rank:
        best = folder / "best"
        found = [*([best] if (best / MANIFEST).exists() else []), *_written(folder, "best")]
        kept = min(found, key=rank) if len(found) > 1 else next(iter(found), best)
        if kept != best:
            shutil.rmtree(best, ignore_errors=True)
            kept.rename(best)
    for path in attempts(folder):
        shutil.rmtree(path, ignore_errors=True)
    for log in folder.glob("hang-*.log"):
        if not log.stat().st_size:
            log.unlink()


def keep_one_best(folder: Path, rank: Callable[[Path], float]) -> None:
    """The trial pauses: of its best checkpoints that of lowest `rank` stays, under its name."""
    found = _written(folder, "best")
    if len(found) > 1:
        kept = min(found, key=rank)
        for path in found:
            if path != kept:
                shutil.rmtree(path, ignore_errors=True)


def drop(folder: Path, kind: str) -> None:
    """Remove all checkpoints of that kind (last or best) of a trial that pauses; logs stay."""
    for path in attempts(folder):
        if path.name.startswith(f"{kind}-"):
            shutil.rmtree(path, ignore_errors=True)
    _remove_if_empty(folder)


def attempts(folder: Path) -> list[Path]:
    """The checkpoints that attempts wrote under names of their own, finished or not; what a trainer put there is none."""
    return [path for path in folder.glob("*-*") if _ATTEMPT.fullmatch(path.name)]


def strangers(study: Path, trials: int, finals: int) -> list[Path]:
    """The folders of trials from number `trials` on, and of finals likewise, which a journal that lost its end does not know."""
    found = [(path, most) for room, most in (("trials", trials), ("finals", finals)) for path in study.glob(f"{room}/[0-9]*")]
    return sorted(path for path, most in found if path.name.isdecimal() and int(path.name) >= most)


def drop_strangers(study: Path, trials: int, finals: int, lease: int) -> None:
    """Keep the folders of unknown trials out of the way of new ones with their numbers: in `dropped-LEASE`."""
    for path in strangers(study, trials, finals):
        aside = study / f"dropped-{lease}" / path.parent.name
        aside.mkdir(parents=True, exist_ok=True)
        path.rename(aside / path.name)


def drop_older(folder: Path, lease: int, attempt: int) -> None:
    """Remove what earlier attempts went on from; a later one's, which this one may have been given up for, stays."""
    for path in attempts(folder):
        if path.name.startswith("last-") and _age(path) < (lease, attempt):
            shutil.rmtree(path, ignore_errors=True)


def set_aside(checkpoint: Path) -> Path:
    """Keep a damaged checkpoint under another name, where nothing goes on from it; the new path."""
    aside = checkpoint.with_name(f"damaged-{checkpoint.name}")
    shutil.rmtree(aside, ignore_errors=True)
    return checkpoint.rename(aside)


def forget(folder: Path) -> None:
    """Remove a finished trial's best checkpoint; logs stay."""
    shutil.rmtree(folder / "best", ignore_errors=True)
    _remove_if_empty(folder)


def _remove_if_empty(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _written(folder: Path, kind: str) -> list[Path]:
    found = [path for path in attempts(folder) if path.name.startswith(f"{kind}-") and (path / MANIFEST).exists()]
    return sorted(found, key=_age, reverse=True)


def _age(path: Path) -> tuple[int, int]:
    match = _ATTEMPT.fullmatch(path.name)
    return (int(match[1]), int(match[2])) if match else (0, 0)

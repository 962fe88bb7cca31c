"""Journals that were cut or changed, and checkpoint manifests that were: what is resumed, and what is refused."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from hpo import checkpoints
from hpo.errors import exit_code
from hpo.events import Asked
from hpo.journal import FILE_NAME, repair
from hpo.journal_format import JournalDamaged, read
from hpo.results import StoredStudy
from hpo.resuming import resume_study
from hpo.trial_files import MANIFEST, last_name, trial_folder
from hpo.trust import of_study, vouch
from tests.chaos.outcome import Outcome, Tally
from tests.chaos.plan import Plan
from tests.chaos.simulated import go_on, trials_in, uninterrupted
from tests.conftest import run_hpo

PLAN = Plan("random", trials=6, slots=2, seed=3)
LOCK = "journal.lock"


def cuts(folder: Path, sample: int | None, seed: int) -> Outcome:
    """The journal cut at every byte (or at `sample` of them, the ends of the first line among them), then resumed."""
    tally = Tally()
    _, whole, _ = uninterrupted(PLAN)
    offsets = list(range(len(whole) + 1))
    if sample is not None:
        first = whole.index(b"\n")
        offsets = sorted({0, first, first + 1, *random.Random(f"cuts/{seed}").sample(offsets, sample)})
    for offset in offsets:
        _cut(tally, folder / "cut", whole, offset)
    return tally.outcome("journal cut", "at every byte offset" if sample is None else "at random byte offsets")


def _cut(tally: Tally, folder: Path, whole: bytes, offset: int) -> None:
    path, where = _fresh(folder) / FILE_NAME, f"cut at byte {offset}"
    path.write_bytes(whole[:offset])
    due = max((end for end in _ends_of_writes(whole) if end <= offset), default=0)
    tally.tries += 1
    tally.check("more lost than the last write", len(read(path)) != whole[:due].count(b"\n"), where)
    if not due:
        tally.check("unclear words", "nothing is lost" not in _refusal(folder)[1], where)
    go_on(folder, PLAN, folder.with_suffix(".told"))
    kept = path.read_bytes()
    # a study that began again has a first line of its own
    tally.check("whole writes changed", bool(due) and not kept.startswith(whole[:due]), where)
    tally.check("trials differing", trials_in(folder, PLAN) != uninterrupted(PLAN)[0], where)


def _ends_of_writes(whole: bytes) -> list[int]:
    """The offsets behind each write: it ends with the line that says that no more follow."""
    ends, at = [], 0
    for line in whole.splitlines(keepends=True):
        at += len(line)
        if b'"more":0,' in line:
            ends.append(at)
    return ends


def _fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _refusal(folder: Path) -> tuple[Exception | None, str]:
    """What `resume_study` says; nothing if it goes on."""
    try:
        resume_study(folder, local=True)
    except Exception as error:  # which one it has to be, the caller knows
        return error, str(error)
    return None, ""


def _flips(content: bytes, draw: random.Random, step: int) -> Iterator[tuple[int, bytes]]:
    """One bit changed: each one of every byte if `step` is 0, otherwise one that is drawn in every byte so far apart."""
    for offset in range(draw.randrange(step) if step else 0, len(content), step or 1):
        for bit in [draw.randrange(8)] if step else range(8):
            yield offset, content[:offset] + bytes([content[offset] ^ 1 << bit]) + content[offset + 1 :]


def _how(step: int) -> str:
    return "every bit of every byte" if not step else "one bit of every byte" if step == 1 else f"one bit of every {step}th byte"


def resumed_journal() -> bytes:
    """The journal of a study that broke off twice and is not over yet: three leases, trials that wait."""
    whole = uninterrupted(PLAN)[1]
    ends = _ends_of_writes(whole)
    with tempfile.TemporaryDirectory(prefix="hpo-chaos-") as scratch:
        path = _fresh(Path(scratch) / "chaos") / FILE_NAME
        path.write_bytes(whole[: ends[len(ends) // 3]])
        go_on(path.parent, PLAN, Path(scratch) / "told")
        ends = _ends_of_writes(path.read_bytes())
        path.write_bytes(path.read_bytes()[: ends[len(ends) // 2]])
        return path.read_bytes()


def journal_flips(folder: Path, seed: int, *, step: int, repairs: int, commands: int) -> Outcome:
    """A bit changed in every byte of a journal: refused with its place; `repairs` of them repaired, `commands` on the command line."""
    tally, draw = Tally(), random.Random(f"flips/{seed}")
    content = resumed_journal()
    path = _fresh(folder / "flip") / FILE_NAME
    for offset, damaged in _flips(content, draw, step):
        path.write_bytes(damaged)
        error, _ = _refusal(path.parent)
        begin = content.rfind(b"\n", 0, offset) + 1  # of the line that the byte is in
        right = isinstance(error, JournalDamaged) and exit_code(error) == 65
        tally.tries += 1
        tally.check("not detected", not right, f"byte {offset}")
        tally.check("wrong place", isinstance(error, JournalDamaged) and (error.path, error.offset) != (path, begin), f"byte {offset}")
        tally.check("files changed", path.read_bytes() != damaged or _names(path.parent) > {FILE_NAME, LOCK}, f"byte {offset}")
    for offset, damaged in draw.sample(list(_flips(content, draw, 1)), repairs):
        _repair(tally, path, content, damaged, offset)
    for offset, damaged in draw.sample(list(_flips(content, draw, 1)), commands):
        path.write_bytes(damaged)
        begin = content.rfind(b"\n", 0, offset) + 1
        _command(tally, path, [path, f"byte {begin} "])
    tally.seen["on the command line"] += commands
    return tally.outcome("a byte of the journal changed", _how(step))


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def _repair(tally: Tally, path: Path, content: bytes, damaged: bytes, offset: int) -> None:
    _fresh(path.parent)
    path.write_bytes(damaged)
    due = max((end for end in _ends_of_writes(content) if end <= offset), default=0)
    try:
        dropped = repair(path)
    except JournalDamaged:  # there would be nothing left
        tally.check("repairs refused", due > 0 or path.read_bytes() != damaged, f"byte {offset}")
        return
    tally.check("repairs that keep another part", path.read_bytes() != content[:due], f"byte {offset}")
    kept = dropped is not None and dropped.kept_in.read_bytes() == damaged[due:] and dropped.records == content[:due].count(b"\n")
    tally.check("repairs that drop bytes", not kept, f"byte {offset}")
    go_on(path.parent, PLAN, path.parent.with_suffix(".told"))
    tally.check("trials differing", trials_in(path.parent, PLAN) != uninterrupted(PLAN)[0], f"repaired at byte {offset}")
    tally.seen["repaired, then resumed to the same trials"] += 1


def _command(tally: Tally, path: Path, places: list[object]) -> None:
    """`hpo resume` in a process of its own."""
    before = path.read_bytes()
    done = run_hpo(path.parent.parent if path.name == FILE_NAME else path.parents[4], "resume", "flip", "--local")
    right = done.code == 65 and all(str(place) in done.err for place in places)
    tally.check("command not refused", not right or path.read_bytes() != before, f"{path}: exit {done.code}: {done.err}")


def manifest_flips(folder: Path, seed: int, *, step: int, commands: int) -> Outcome:
    """A bit changed in every byte of the checkpoint that a trial goes on from: refused with its path, and it starts nowhere."""
    tally, draw = Tally(), random.Random(f"manifest/{seed}")
    study = _fresh(folder / "flip")
    (study / FILE_NAME).write_bytes(resumed_journal())
    vouch(of_study(StoredStudy.open(study)))  # its trainer is code: of nobody's journal is that run unasked
    waiting = next(trial.number for trial in trials_in(study, PLAN) if not trial.state.finished)
    asked_under = next(
        record.lease for record in read(study / FILE_NAME) if isinstance(record.event, Asked) and record.event.trial == waiting
    )
    saved = trial_folder(study, waiting) / last_name(asked_under, 1)
    state = {"epoch": 1, "weights": np.arange(4.0), checkpoints.LABEL: {"measurements": [[1, 0.5, {"value": 0.5}, 0.1]]}}
    checkpoints.save(saved, state)
    for file in [saved / MANIFEST, next(saved.glob("tensors-*"))]:
        _refused_in_any_byte(tally, study, file, draw, step)
        content = file.read_bytes()
        for _, damaged in draw.sample(list(_flips(content, draw, 1)), commands):
            file.write_bytes(damaged)
            _command(tally, file, [file])
        file.write_bytes(content)
    tally.seen["on the command line"] += 2 * commands
    return tally.outcome("a byte of a checkpoint changed", f"{_how(step)} of manifest and tensors")


def _refused_in_any_byte(tally: Tally, study: Path, file: Path, draw: random.Random, step: int) -> None:
    journal, names, content = (study / FILE_NAME).read_bytes(), _names(file.parent), file.read_bytes()
    for offset, damaged in _flips(content, draw, step):
        file.write_bytes(damaged)
        error, words = _refusal(study)
        where = f"{file.name}, byte {offset}"
        tally.tries += 1
        right = isinstance(error, checkpoints.CheckpointError) and exit_code(error) == 65 and str(file) in words
        tally.check("not detected", not right, where)
        same = file.read_bytes() == damaged and _names(file.parent) == names and (study / FILE_NAME).read_bytes() == journal
        tally.check("files changed", not same, where)
    file.write_bytes(content)

"""A full disk: the study's home is on a small tmpfs, of every size from nothing to enough.

Mounting needs root and a mount namespace of its own, so a row runs as `unshare -m python -m tests.chaos.disk ...`; its
mounts go with it.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from hpo.errors import exit_code
from hpo.events import Event
from hpo.journal import FILE_NAME, Journal
from hpo.journal_format import JournalError, read
from hpo.lease import is_held
from tests.chaos.outcome import Outcome, Tally, skipped
from tests.chaos.plan import Plan
from tests.chaos.real_study import EPOCH_S, Real, check_study, ended, wait_until
from tests.chaos.simulated import acknowledged_in, check, go_on, trials_in, uninterrupted
from tests.conftest import ROOT

PAGE = 4096  # bytes: in steps of these a tmpfs is full
WITHIN_S = 2.0  # by when the study has stopped after the write that failed
PLAN = Plan("tpe", trials=60, slots=7, seed=5)
WORDS = re.compile(r"(\d[\d,]* bytes could not be written|cannot be (locked|created|opened for writing)): No space left on device")


def disk_full(folder: Path, seed: int, *, full: bool) -> Iterator[Outcome]:
    """The rows: every size on the simulated engine; a real trainer in one process; real Ray."""
    yield in_namespace(folder, "simulated", seed, 1)
    yield in_namespace(folder, "local", seed, 12 if full else 3)
    yield in_namespace(folder, "ray", seed, 3 if full else 1)


def in_namespace(folder: Path, kind: str, seed: int, size: int) -> Outcome:
    """One row, in a process with mounts of its own. `size` is how many tries, or the pages from one simulated size to the next."""
    if os.geteuid() != 0 or subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode:
        return skipped("disk full", "a tmpfs needs root and a mount namespace")
    scratch = folder / f"disk-{kind}"
    scratch.mkdir(parents=True)
    command = ["unshare", "-m", sys.executable, "-m", "tests.chaos.disk", str(scratch), kind, str(seed), str(size)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return Outcome(**json.loads(done.stdout.splitlines()[-1]))


class Disk:
    """A tmpfs at `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()

    def renew(self, pages: int) -> None:
        """Empty, with room for so many pages; none is a file system of one that is taken."""
        subprocess.run(["umount", str(self.path)], capture_output=True, check=False)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={max(1, pages) * PAGE}", "chaos", str(self.path)], check=True)
        if pages == 0:
            (self.path / "filler").write_bytes(b"x")

    def enlarge(self) -> None:
        """More room than anything here needs."""
        (self.path / "filler").unlink(missing_ok=True)
        subprocess.run(["mount", "-o", "remount,size=256m", str(self.path)], check=True)

    def fill(self, leaving: int = 0) -> None:
        """Take what is free, but for so many pages."""
        free = shutil.disk_usage(self.path).free - leaving * PAGE
        with suppress(OSError), (self.path / "filler").open("ab") as file:  # the study may have taken what was free
            file.write(b"x" * max(0, free))


def simulated(folder: Path, disk: Disk, step: int) -> Outcome:
    """Every number of pages up to what the study needs, or each `step`th."""
    tally = Tally()
    enough = len(uninterrupted(PLAN)[1]) // PAGE + 3
    for pages in range(enough % step, enough + 1, step):
        disk.renew(pages)
        fits = _simulated_once(tally, folder, disk, f"{pages} pages")
        tally.check("studies that fit and failed", pages == enough and not fits, f"{pages} pages")
    return tally.outcome("disk full", f"tmpfs of 0 to {enough} pages, simulated engine")


def _simulated_once(tally: Tally, folder: Path, disk: Disk, where: str) -> bool:
    """Whether the study fits; if it does not: closed, as before, refused again, and whole once there is room."""
    study, told = disk.path / "home" / "chaos", folder / "told"
    told.unlink(missing_ok=True)
    watch = Watch(tally, where)
    for _ in range(2):  # the second time it is full from the beginning
        try:
            watch(lambda: go_on(study, PLAN, told))
            return True
        except JournalError as error:
            _check_words(tally, error, study, where)
            tally.check_time(time.monotonic() - watch.failed, WITHIN_S, where)
            tally.check("leases kept", is_held(study / FILE_NAME), where)
            check(tally, read(study / FILE_NAME) if (study / FILE_NAME).exists() else [], acknowledged_in(told), where)
    tally.tries += 1
    disk.enlarge()
    go_on(study, PLAN, told)
    check(tally, read(study / FILE_NAME), acknowledged_in(told), where)
    tally.check("trials differing", trials_in(study, PLAN) != uninterrupted(PLAN)[0], where)
    return False


def _check_words(tally: Tally, error: Exception, study: Path, where: str) -> None:
    words = str(error)
    tally.check("unclear words", exit_code(error) != 1 or str(study) not in words or not WORDS.search(words), f"{where}: {words}")


class Watch:
    """Looks at every write to a journal: one that fails leaves the file as it was, and nothing is written after it."""

    def __init__(self, tally: Tally, where: str) -> None:
        self.failed = 0.0  # when
        self._tally, self._where = tally, where
        self._append = Journal.append

    def __call__(self, run: Callable[[], None]) -> None:
        """Run it under watch."""
        self.failed = time.monotonic()

        def append(journal: Journal, events: Sequence[Event]) -> None:
            self._watched(journal, events)

        Journal.append = append  # type: ignore[method-assign, assignment]
        try:
            run()
        finally:
            Journal.append = self._append  # type: ignore[method-assign]

    def _watched(self, journal: Journal, events: Sequence[Event]) -> None:
        before = journal.path.read_bytes()
        try:
            self._append(journal, events)
        except JournalError:
            self.failed = time.monotonic()
            self._tally.check("files changed", journal.path.read_bytes() != before, self._where)
            raise


def real(folder: Path, disk: Disk, seed: int, *, tries: int, on_ray: bool) -> Outcome:
    """A real trainer, whose checkpoints and journal find the disk full from a random moment on; then there is room again."""
    tally, draw = Tally(), random.Random(f"disk/{seed}/{on_ray}")
    while tally.tries < tries:
        disk.renew(20_000)
        study = Real(folder, f"full-{tally.tries}", disk.path / "home", local=not on_ray, tracked=on_ray)
        process, moment_s = study.launch(), draw.uniform(0, 3)
        wait_until(lambda: process.poll() is not None or len(study.notes()) > 2, f"{study.log}: nothing is trained")  # noqa: B023
        time.sleep(moment_s)
        _fill(tally, study, process, disk, 0 if on_ray else draw.randrange(5))
        kept = check_study(tally, study, [], f"see {study.log}")
        disk.enlarge()
        tally.check("resumes that failed", ended(study.resume()) != 0, f"see {study.log}")
        check_study(tally, study, kept, f"see {study.log}")
        tally.check("studies not over", not study.is_over(), f"see {study.log}")
    return tally.outcome("disk full", "filled at a random moment, " + ("real Ray, real MLflow" if on_ray else "real trainer, `--local`"))


def _fill(tally: Tally, study: Real, process: subprocess.Popen[str], disk: Disk, leaving: int) -> None:
    """Fill the disk, leaving so many pages, and see how the study stops; MLflow may free some, which are taken, too."""
    disk.fill(leaving)
    full, before = time.time(), study.journal.read_bytes()

    def is_closed() -> bool:
        if not leaving:
            disk.fill()
        return process.poll() is not None or not is_held(study.journal)

    wait_until(is_closed, f"{study.log}: it goes on")
    closed, where = time.time(), f"{leaving} pages left, see {study.log}"
    code = ended(process)
    tally.check("files changed", not study.journal.read_bytes().startswith(before), where)
    if code == 0:
        tally.seen["times the pages left were enough"] += 1
        return
    tally.tries += 1
    # what failed is what followed an epoch: its checkpoint, or its report; on Ray another worker may have trained one since
    trained = [note.time for note in study.notes() if note.kind == "trained"] if study.local else [full + EPOCH_S]
    tally.check_time(closed - max(full, *trained), WITHIN_S, where)
    tally.check("wrong exit codes", code != 1, f"{where}: exit {code}")
    words = study.log.read_text()
    tally.check("unclear words", not WORDS.search(words) or str(disk.path) not in words, where)


def main() -> None:
    """One row, printed as JSON."""
    folder, kind, seed, size = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    disk = Disk(folder / "disk")
    outcome = simulated(folder, disk, size) if kind == "simulated" else real(folder, disk, seed, tries=size, on_ray=kind == "ray")
    print(json.dumps(asdict(outcome)))


if __name__ == "__main__":
    main()

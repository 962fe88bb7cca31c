"""Signals at random moments against studies on real Ray: to the driver, to stop it or to kill it, and to its workers."""

from __future__ import annotations

import math
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from hpo.events import Retried
from tests.chaos.outcome import Outcome, Tally
from tests.chaos.real_study import EPOCH_S, EVERY_S, Note, Real, check_end, check_study, ended, wait_until
from tests.chaos.simulated import Fact

SCRATCH = "/tmp/hpo-ray-"
LOOK_S = 0.1
STOPPED, STOPPED_WITHIN_S = 75, 5.0
BACK_WITHIN_S = 10.0
Strike = Callable[["subprocess.Popen[str]", "Family", str], None]
AT_MOST = math.ceil(EVERY_S / EPOCH_S)  # epochs in the interval between two checkpoints


def driver_kills(folder: Path, kills: int, seed: int) -> Outcome:
    """SIGKILL to the driver at random moments, then resume at once, perhaps to be killed again."""
    tally, draw = Tally(), random.Random(f"ray-driver/{seed}")
    while tally.tries < kills:
        study = _study(folder, "killed", tally)

        def kill(process: subprocess.Popen[str], _family: Family, _where: str) -> None:
            process.kill()
            process.wait()
            tally.tries += 1

        _disturb(tally, study, draw, kills, kill)
    return tally.outcome("driver SIGKILL at any instant", "real Ray, real MLflow, random moments, then resume")


def stops(folder: Path, tries: int, seed: int) -> Outcome:
    """SIGTERM to the driver at random moments, then resume, perhaps to be stopped again."""
    tally, draw = Tally(), random.Random(f"ray-stop/{seed}")
    while tally.tries < tries:
        study = _study(folder, "stopped", tally)
        _disturb(tally, study, draw, tries, lambda process, family, where: _stop(tally, study, process, family, where))  # noqa: B023
    return tally.outcome("SIGTERM at random times", "real Ray, real MLflow, then resume")


def _study(folder: Path, name: str, tally: Tally) -> Real:
    """The next one; of every second the trials wait for their promotion."""
    number = tally.seen["studies"]
    return Real(folder, f"{name}-{number}", folder / "home", promotes=number % 2 == 1)


def _disturb(tally: Tally, study: Real, draw: random.Random, tries: int, strike: Strike) -> None:
    """Run a study to its end, striking its driver again and again as long as there are tries left."""
    before, families = list[Fact](), list[Family]()
    for attempt in range(1, 50):
        process = study.resume()
        where = f"{study.journal.parent}, start {attempt}, see {study.log}"
        families.append(Family(process.pid))
        if tally.tries < tries and _lives_until(_moment(study, draw), process, families[-1]):
            strike(process, families[-1], where)
        else:
            tally.check("starts that failed", ended(process) != 0, f"{where}: exit {process.returncode}")
        before = check_study(tally, study, before, where)
        if process.returncode == 0:
            break
    check_end(tally, study, where)
    for family in families:
        left = family.survivors(10.0)
        tally.check("processes left", len(left), f"{where}: {left}")
        family.sweep()


def _moment(study: Real, draw: random.Random) -> Callable[[], bool]:
    """A random moment of a command that begins now: while it starts, or when so much more was trained."""
    if draw.random() < 0.3:
        at = time.monotonic() + draw.uniform(0.3, 8.0)
        return lambda: time.monotonic() > at
    notes = len(study.notes()) + draw.randrange(60)
    return lambda: len(study.notes()) > notes


def _stop(tally: Tally, study: Real, process: subprocess.Popen[str], family: Family, where: str) -> None:
    leases, where = len({record.lease for record in study.records()}), f"{where}, {len(study.notes())} notes"
    sent = time.monotonic()
    process.send_signal(signal.SIGTERM)
    code, took_s = ended(process), time.monotonic() - sent
    if code == -signal.SIGTERM and leases == len({record.lease for record in study.records()}):
        tally.seen["so early that nothing had begun"] += 1
    elif code == 0 and study.is_over():
        tally.seen["so late that it was over"] += 1
    else:
        tally.tries += 1
        tally.check("wrong exit codes", code != STOPPED, f"{where}: exit {code}")
        tally.check_time(took_s, STOPPED_WITHIN_S, where)
    left = family.survivors(2.0)
    tally.check("processes left", len(left), f"{where}: {left}")
    family.sweep()


def _lives_until(moment: Callable[[], bool], process: subprocess.Popen[str], family: Family) -> bool:
    """Whether a command still runs at that moment; its family is looked at until then."""
    while not moment():
        try:
            process.wait(LOOK_S)
        except subprocess.TimeoutExpired:
            family.look()
        else:
            return False
    family.look()
    return process.poll() is None


class Family:
    """The processes that come from a command, wherever they moved to: as seen while they had a parent, or by Ray's scratch folder."""

    def __init__(self, ancestor: int) -> None:
        self._ancestor = ancestor
        self._members: dict[tuple[int, str], None] = {}  # (process, when it began)
        self._scratch: set[str] = set()

    def look(self) -> None:
        """Add who is there now."""
        parents = dict(_processes())
        known = {self._ancestor} | {process for process, began in self._members if _began(process) == began}  # numbers come again
        grew = True
        while grew:
            born = {process for process, parent in parents.items() if parent in known and process not in known}
            known |= born
            grew = bool(born)
        for process in known - {self._ancestor}:
            if began := _began(process):
                self._members[process, began] = None
            self._scratch |= {word.split("/")[2] for word in _words(process) if word.startswith(SCRATCH)}

    def survivors(self, within_s: float) -> list[str]:
        """The commands of those that are alive, after as long as it takes them to end, at most `within_s`."""
        until = time.monotonic() + within_s
        while (alive := self._alive()) and time.monotonic() < until:
            time.sleep(0.05)
        return [f"{process} {' '.join(_words(process))}".strip() for process in alive]

    def sweep(self) -> None:
        """End what is left and remove its scratch, so that the next try is alone."""
        for process in self._alive():
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                continue
        for name in self._scratch:
            shutil.rmtree(f"/tmp/{name}", ignore_errors=True)

    def _alive(self) -> set[int]:
        members = {process for process, began in self._members if _began(process) == began}
        return members | {process for process, _ in _processes() if any(name in word for name in self._scratch for word in _words(process))}


def _processes() -> Iterable[tuple[int, int]]:
    """Every process and its parent."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (stat := _stat(int(entry.name))):
            yield int(entry.name), int(stat[1])


def _stat(process: int) -> list[str]:
    """The fields of its stat behind the name: state, parent ...; empty if it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
    return [] if fields[0] in "ZX" else fields


def _began(process: int) -> str:
    stat = _stat(process)
    return stat[19] if stat else ""


def _words(process: int) -> list[str]:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().decode(errors="replace").replace("=", "\0").split("\0")
    except OSError:
        return []


def worker_kills(folder: Path, kills: int, seed: int) -> Outcome:
    """SIGKILL to random training workers, some time after the one before is back."""
    tally, draw = Tally(), random.Random(f"ray-worker/{seed}")
    while tally.tries < kills:
        study = Real(folder, f"workers-{tally.seen['studies']}", folder / "home", trials=8, epochs=24)
        process, where = study.launch(), f"see {study.log}"
        killed = 0
        while tally.tries < kills and _kill_one(tally, study, process, draw):
            killed += 1
        tally.check("studies that failed", ended(process) != 0, where)
        check_study(tally, study, [], where)
        retries = sum(isinstance(record.event, Retried) for record in study.records())
        tally.check("retries too many or too few", retries != killed, f"{where}: {retries} retries after {killed} kills")
        check_end(tally, study, where)
    return tally.outcome("worker SIGKILL", f"real Ray, a checkpoint every {EVERY_S:g} s, which is {AT_MOST} epochs of {EPOCH_S:g} s")


def _kill_one(tally: Tally, study: Real, process: subprocess.Popen[str], draw: random.Random) -> bool:
    """Kill a worker and see its trial come back; False when the study is over before."""
    from_now = time.time() + draw.uniform(0.2, 3.0)
    wait_until(lambda: process.poll() is not None or (time.time() > from_now and _training(study)), f"{study.log}: nobody trains")
    if process.poll() is not None:
        return False
    victim = draw.choice(_training(study))
    os.kill(victim.process, signal.SIGKILL)
    killed = time.time()
    where = f"trial {victim.trial} at epoch {victim.epoch}, see {study.log}"

    def back() -> list[Note]:
        return [note for note in study.notes() if note.trial == victim.trial and note.time > killed and note.process != victim.process]

    wait_until(lambda: process.poll() is not None or any(note.kind == "trained" for note in back()), f"{where}: it does not come back")
    if not back():
        tally.check("trials that were not tried again", victim.trial not in _finished(study), where)
        return False
    tally.tries += 1
    tally.check_time(next(note.time for note in back() if note.kind == "trained") - killed, BACK_WITHIN_S, where)
    trained = max((n.epoch for n in study.notes() if (n.trial, n.process, n.kind) == (victim.trial, victim.process, "trained")), default=0)
    repeated = max(0, trained - back()[0].first + 1)
    tally.seen["epochs repeated"] += repeated
    tally.check("times more than one interval repeated", repeated > AT_MOST, f"{where}: {repeated} epochs")
    return True


def _training(study: Real) -> list[Note]:
    """The latest note of each trial that is being trained."""
    latest = {note.trial: note for note in study.notes()}
    return [note for trial, note in latest.items() if trial not in _finished(study) and note.kind == "asked" and _began(note.process)]


def _finished(study: Real) -> set[int]:
    return {fact[1] for fact in check_study(Tally(), study, [], "") if fact[0] == "finished"}

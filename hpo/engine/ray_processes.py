"""Ray's processes on this machine and the scratch folder they share: made, ended, swept. Reads /proc; imports no ray."""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import signal
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

PREFIX = "hpo-ray-"
ROOT = Path("/tmp").resolve()  # because the paths of Ray's sockets must stay under 108 bytes
LOCK = "driver.lock"  # locked by the driver as long as it lives; its process number inside is for people
STREAMS = (".out", ".err")  # what Ray's daemons and workers, and whatever a trainer starts, print into
PATIENCE_S = 2.0  # with processes that even SIGKILL does not end, as they wait for a disk
PR_SET_PDEATHSIG = 1


class Scratch:
    """A new folder for all that one Ray and Tune write, this process's own until `clear`."""

    def __init__(self, root: Path = ROOT) -> None:
        while True:
            self.folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=root))
            with suppress(OSError):  # somebody swept the folder before it was locked: another one
                self._lock = (self.folder / LOCK).open("w")
                if _locked(self._lock):
                    break
        self._lock.write(f"{os.getpid()}\n")
        self._lock.flush()

    def clear(self) -> None:
        """End every process that belongs to the folder, then remove it. Harmless when done already, from any thread."""
        kill_all(self.folder)
        shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.close()


def sweep(root: Path = ROOT) -> None:
    """Clear the scratch folders in `root` whose drivers died without doing so; others' and those in use stay as they are."""
    for folder in root.glob(f"{PREFIX}*"):
        try:
            with (folder / LOCK).open("r+") as lock:
                if _locked(lock):
                    kill_all(folder)
                    shutil.rmtree(folder, ignore_errors=True)
        except FileNotFoundError:
            with suppress(OSError):
                folder.rmdir()  # which an empty one only is: made this moment, or by a driver that died in it
        except OSError:
            continue  # somebody else's


def kill_all(scratch: Path) -> None:
    """SIGKILL all processes that belong to a scratch folder, until none is left or `PATIENCE_S` is over."""
    until = time.monotonic() + PATIENCE_S
    while (left := belonging(scratch)) and time.monotonic() < until:
        for process in left:
            with suppress(OSError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.01)


def belonging(scratch: Path) -> set[int]:
    """The processes of the Ray in `scratch`: its daemons and workers, and all that these started; never this process.

    They write into a stream of Ray's there, or are children of this process that name the folder, or of one of those.
    """
    me, inside = os.getpid(), f"{scratch}/"
    parents: dict[int, int] = {}
    found = set()
    for process in (int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()):
        with suppress(OSError):  # gone meanwhile, or another user's
            parent = parents[process] = _parent(process)
            if process == me:
                del parents[process]
            elif (parent == me and _names(process, inside)) or _prints_into(process, inside):
                found.add(process)
    while more := {process for process, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def die_with_parent() -> None:
    """Have the kernel SIGKILL this process when its parent dies: a worker must not outlive its raylet, nor that its driver."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")


def _parent(process: int) -> int:
    stat = Path(f"/proc/{process}/stat").read_bytes()
    return int(stat[stat.rindex(b")") :].split()[2])  # a program's name, in parentheses, may hold anything


def _names(process: int, text: str) -> bool:
    return text.encode() in Path(f"/proc/{process}/cmdline").read_bytes()


def _prints_into(process: int, inside: str) -> bool:
    for descriptor in Path(f"/proc/{process}/fd").iterdir():
        with suppress(OSError):
            target = str(descriptor.readlink()).removesuffix(" (deleted)")
            if target.startswith(inside) and target.endswith(STREAMS) and _is_written(process, descriptor.name):
                return True
    return False


def _is_written(process: int, descriptor: str) -> bool:
    """Whether the file is open for writing: who reads a log there, as `tail -f` does, is none of Ray's."""
    flags = Path(f"/proc/{process}/fdinfo/{descriptor}").read_text().partition("flags:")[2].split()[0]
    return int(flags, 8) & os.O_ACCMODE != os.O_RDONLY


def _locked(lock: IO[str]) -> bool:
    """Whether the lock is ours now, on a file that is still there."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return os.fstat(lock.fileno()).st_nlink > 0

"""Work in threads of its own, so that nobody waits for a network: what belongs to one trial in turn, several trials' side by side."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

THREADS = 8


class InTurn:
    """Does what it is given, each trial's in the order in which it came; what one raised is raised where that trial is waited for.

    Its threads end with the process, whatever is left to do: whoever gives it work must be able to do that again.
    """

    def __init__(self) -> None:
        self._waiting: dict[int, deque[Callable[[], object]]] = {}  # by trial; the first of each is being done, or next
        self._ready: deque[int] = deque()  # trials of which nothing is being done
        self._failed: dict[int, Exception] = {}
        self._threads = 0
        self._changed = threading.Condition()

    def do(self, trial: int, work: Callable[[], object]) -> None:
        """Have `work` done, after what came before it for this trial."""
        with self._changed:
            if trial in self._waiting:
                self._waiting[trial].append(work)
                return
            self._waiting[trial] = deque([work])
            self._ready.append(trial)
            if self._threads < min(THREADS, len(self._waiting)):
                self._threads += 1
                threading.Thread(target=self._run, name=f"in-turn-{self._threads}", daemon=True).start()
            self._changed.notify_all()

    def wait(self, trial: int | None = None) -> None:
        """Wait until all is done that was given for this trial, or for any; raises the first of what that raised, once."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting if trial is None else trial not in self._waiting)
            failed = [key for key in self._failed if trial in (None, key)]
            errors = [self._failed.pop(key) for key in failed]
        if errors:
            raise errors[0]

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._ready)
                trial = self._ready.popleft()
                work = self._waiting[trial][0]
            error = self._done(work)
            with self._changed:
                if error is not None:
                    self._failed.setdefault(trial, error)
                    self._waiting[trial].clear()  # what follows may rest on it
                else:
                    self._waiting[trial].popleft()
                if self._waiting[trial]:
                    self._ready.append(trial)
                else:
                    del self._waiting[trial]
                self._changed.notify_all()

    def _done(self, work: Callable[[], object]) -> Exception | None:
        try:
            work()
        except Exception as error:  # the border of a thread: it is raised again where somebody waits
            return error
        return None

"""Ends the shipper where a store keeps it waiting without end: a database that is locked or frozen gives no error. Imports no mlflow.

While the study runs nobody minds. Once its process has nothing more to say, that waits for the shipper, and its user for both.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable

from hpo.tracking import GAVE_UP

LOOK_S = 1.0
CALL_S = 60.0  # the longest that one call to a store may take, when patience is over
CROWN_S = 900.0  # and the registration of a model, whose file may be large


class Overdue(threading.Thread):
    """Looks whether there is progress: `seen()` changes with every step, `limit_s()` is how long it may stay the same.

    When the parent is gone and it stayed the same for longer, `say(what)` is told, and the process ends by `leave`, at once.
    """

    def __init__(
        self,
        seen: Callable[[], object],
        limit_s: Callable[[], float],
        say: Callable[[str], object],
        gone: Callable[[], bool] = lambda: bool(select.select([0], [], [], 0)[0]),  # stdin is at its end; nothing ever comes there
        leave: Callable[[int], object] = os._exit,
    ) -> None:
        super().__init__(name="overdue", daemon=True)
        self._seen, self._limit_s, self._say, self._gone, self._leave = seen, limit_s, say, gone, leave

    def run(self) -> None:
        """Look until the process ends."""
        seen, since = self._seen(), time.monotonic()
        while True:
            time.sleep(LOOK_S)
            now = self._seen()
            if now != seen or not self._gone():
                seen, since = now, time.monotonic()
            elif (waited := time.monotonic() - since) > self._limit_s():
                self._say(f"MLflow's store has kept a call waiting for {waited:.0f} s: locked, frozen, or behind a cut link")
                self._leave(GAVE_UP)
                return

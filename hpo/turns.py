"""Whose turn it is to write a study's record, and whether the study's process is still there."""

from __future__ import annotations

import math
import os
import select
import time
from collections.abc import Callable
from pathlib import Path

from hpo import lease
from hpo.tracking import STATE_FILE

POLL_S = 0.5


class Parent:
    """The process at the other end of stdin."""

    def __init__(self) -> None:
        self.gone = False

    def wait(self, seconds: float) -> bool:
        """Pause, at most until the parent goes; whether it is gone."""
        if self.gone:
            time.sleep(seconds)
        elif select.select([0], [], [], seconds)[0]:
            self.gone = not os.read(0, 4096)
        return self.gone


def take_turn(folder: Path, wait: Callable[[float], bool], patience_s: float) -> bool:
    """Wait until no other process writes the study's record, and keep others from it until this one ends; whether that is so.

    It waits no longer than `patience_s` after the study's process is gone.
    """
    patient_until = math.inf
    while True:
        try:
            lease.take(folder / STATE_FILE)
            return True
        except lease.LeaseHeld as error:
            if time.monotonic() > patient_until:
                print(error, flush=True)
                return False
        if wait(POLL_S):
            patient_until = min(patient_until, time.monotonic() + patience_s)

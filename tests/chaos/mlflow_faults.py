"""Whole studies whose MLflow server is absent, frozen, killed, failing, late or losing answers, or whose shipper is killed.

Each is shipped by the real process to a real server behind a proxy; afterwards MLflow is compared with the journal row by
row. Every function returns a row of the fault table, and takes a server that runs already, if there is one.
"""

from __future__ import annotations

import os
import random
import signal
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from hpo.comparing import Kind
from hpo.recording import check, track
from hpo.shipping import RESTARTS, Shipping
from tests.chaos.mlflow_scene import PATIENCE_S, Scene, Server, scene
from tests.chaos.outcome import Outcome
from tests.chaos.proxy import Faults


def absent(folder: Path, trials: int = 12, seed: int = 0, server: Server | None = None) -> Outcome:
    """No server for the whole study; then `hpo track`, twice."""
    with scene(folder, seed, server, "budget") as at:
        at.proxy.faults.refuse = True
        with Shipping(at.folder, patience_s=0.0) as shipping:
            at.wait_for_trials(trials)
            at.study.finish()
            at.tally.check("pretended to be shipped", shipping.close(), at.folder)
        at.proxy.faults.refuse = False
        track(at.folder)
        at.tally.check("changed by a second track", track(at.folder).changed, at.folder)
        at.judge()
    return at.tally.outcome("MLflow absent", "for a whole study, then `hpo track`")


def frozen(folder: Path, freezes: int = 1, seed: int = 0, server: Server | None = None) -> Outcome:
    """The server's processes are stopped (SIGSTOP) while the study goes on, and continued."""
    chance = random.Random(seed)
    with scene(folder, seed, server) as at, Shipping(at.folder, PATIENCE_S) as shipping:
        for _ in range(freezes):
            at.wait_for_calls(chance.randrange(1, 12))
            at.server.signal(signal.SIGSTOP)
            try:
                at.wait_for_error()
                at.wait_for_trials(chance.randrange(1, 6))
            finally:
                at.server.signal(signal.SIGCONT)
            at.wait_for_calls(10)
        _finish(at, shipping)
    return at.tally.outcome("MLflow frozen", "SIGSTOP while the study goes on, then SIGCONT")


def killed(folder: Path, kills: int = 1, seed: int = 0, server: Server | None = None) -> Outcome:
    """The server is killed (SIGKILL) while it is written to, and started again on its database."""
    chance = random.Random(seed)
    with scene(folder, seed, server) as at, Shipping(at.folder, PATIENCE_S) as shipping:
        for _ in range(kills):
            at.wait_for_calls(chance.randrange(1, 12))
            at.server.kill()
            at.wait_for_error()
            at.server.start()
            at.wait_for_calls(10)
        _finish(at, shipping)
    return at.tally.outcome("MLflow killed", "SIGKILL while it is written to, then started again on its database")


def failing(folder: Path, calls: int = 300, seed: int = 0, server: Server | None = None) -> Outcome:
    """A fifth of the answers is a 500, for a request that the server did or did not see."""
    with scene(folder, seed, server) as at, Shipping(at.folder, PATIENCE_S) as shipping:
        at.proxy.faults.error = 0.2
        at.wait_for_calls(calls)
        _finish(at, shipping)
        at.tally.seen["answers of 500"] += at.proxy.errors
    return at.tally.outcome("MLflow failing", "20 % of the answers are 500, the request done or not")


def dropping(folder: Path, calls: int = 500, seed: int = 0, server: Server | None = None) -> Outcome:
    """A fifth of the answers never comes back, in a study of at least `calls` requests."""
    with scene(folder, seed, server, "budget") as at, Shipping(at.folder, PATIENCE_S) as shipping:
        at.proxy.faults.drop = 0.2
        at.wait_for_calls(calls)
        _finish(at, shipping)
        at.tally.seen["answers dropped"] += at.proxy.dropped
    return at.tally.outcome("MLflow dropping 20 % of answers", "the request done, the connection closed without a word")


def late(folder: Path, seed: int = 0, server: Server | None = None) -> Outcome:
    """Requests for new runs arrive long after their caller gave them up: some while it still ships, one when it is gone."""
    with scene(folder, seed, server) as at:
        at.proxy.faults = Faults(hold=3, held_path="/runs/create")
        with Shipping(at.folder, PATIENCE_S) as shipping:
            at.until(lambda: len(at.proxy.held) == 3, "three requests")
            last = at.proxy.held.pop()
            at.wait_for_calls(5)
            at.proxy.release()
            at.study.finish()
            at.tally.check("not shipped", not shipping.close(), at.log())
        at.proxy.held.append(last)
        at.proxy.release()
        found = check(at.folder, PATIENCE_S)
        at.tally.check("late runs not found", found.count(Kind.DOUBLED) != 1, found.differences)
        at.tally.check("late runs not deleted", track(at.folder).deleted != 1, at.folder)
        at.judge()
    return at.tally.outcome("MLflow late", "3 new runs are made after their request was given up, 1 after the end, then `hpo track`")


def shipper_killed(folder: Path, kills: int = 3, seed: int = 0, server: Server | None = None) -> Outcome:
    """The shipper is killed (SIGKILL) after so many requests, again and again; the driver starts it anew, or another driver."""
    chance = random.Random(seed)
    with scene(folder, seed, server) as at, ExitStack() as stack:
        shipping = stack.enter_context(Shipping(at.folder, PATIENCE_S, pause_s=0.0))
        for kill in range(kills):
            if kill and kill % RESTARTS == 0:
                shipping.close(0.0)
                shipping = stack.enter_context(Shipping(at.folder, PATIENCE_S, pause_s=0.0))
            at.wait_for_calls(chance.randrange(1, 20))
            os.kill(at.until(partial(getattr, shipping, "process"), "a shipper"), signal.SIGKILL)
            at.tally.seen["kills"] += 1
        _finish(at, shipping)
    return at.tally.outcome("shipper killed", "SIGKILL after some requests, again and again; the driver starts it anew")


def _finish(at: Scene, shipping: Shipping) -> None:
    at.study.finish()
    at.tally.check("not shipped", not shipping.close(), at.log())
    at.judge()

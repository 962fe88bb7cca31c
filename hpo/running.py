"""Runs a study that is open for writing: the engine, MLflow's shipper beside it, the end. The one place that starts things."""

from __future__ import annotations

import os
import traceback
from contextlib import ExitStack, nullcontext, suppress
from typing import TYPE_CHECKING

from hpo.capacity import Placement, this_machine
from hpo.errors import EngineError, NoSpace
from hpo.interrupt import Interrupts
from hpo.journal import Journal
from hpo.journal_format import JournalError
from hpo.session import Session
from hpo.shipping import Shipping

if TYPE_CHECKING:
    from rich.console import Console

SHIP_AT_LEAST_S = 2.5  # for what was measured last, when the command has to end within five seconds


def run(session: Session, journal: Journal, placement: Placement, *, local: bool, console: Console | None) -> int | None:
    """Run the session's trials and bring what happened into MLflow; the number of the signal that cut it short, if one did.

    Raises EngineError or JournalError; what was journaled until then stays.
    """
    with Interrupts() as interrupts, Shipping(session.folder, session.spec.tracking.patience_s) as shipping:
        interrupts.last_acts.append(shipping.kill)
        wait_s: float | None = SHIP_AT_LEAST_S
        try:
            _search(session, placement, interrupts, local=local, console=console)
            if interrupts.signal is None:
                wait_s = None
        finally:
            journal.close()
            _finish(shipping, wait_s, console)
        return interrupts.signal


def ship(session: Session, journal: Journal, console: Console | None) -> int | None:
    """Bring a study that is over into MLflow, as `run` does at its end."""
    with Interrupts() as interrupts, Shipping(session.folder, session.spec.tracking.patience_s) as shipping:
        interrupts.last_acts.append(shipping.kill)
        journal.close()
        _finish(shipping, None, console)
        return interrupts.signal


def _finish(shipping: Shipping, wait_s: float | None, console: Console | None) -> None:
    showing = console.status("recording in MLflow") if console is not None and console.is_terminal else nullcontext()
    with suppress(KeyboardInterrupt), showing:
        shipping.close(wait_s)


def _search(session: Session, placement: Placement, interrupts: Interrupts, *, local: bool, console: Console | None) -> None:
    session.shield = interrupts.shielded
    reason = "interrupted"
    try:
        if session.is_done:
            reason = "budget"
        elif local:
            from hpo.engine import local as here

            reason = here.run(session, "cuda:0" if placement.gpus else "cpu")
        else:
            reason = _on_ray(session, placement, interrupts, console)
    except (KeyboardInterrupt, SystemExit):  # the latter is what Ray makes of SIGTERM while it starts
        pass
    except (JournalError, NoSpace):
        with suppress(JournalError):
            session.end("error")
        raise
    except Exception as error:  # the border to Ray, which may fail in any way: the study ends with that reason
        traceback.print_exc()  # into ray.log, unless this is --local
        with suppress(JournalError):
            session.end("error")
        log = "" if local else f" (see {session.folder / 'ray.log'})"
        raise EngineError(f"the search broke off: {type(error).__name__}: {error}{log}") from error
    if session.study.ended is None:
        with suppress(KeyboardInterrupt), interrupts.shielded():
            session.end(reason)


def _on_ray(session: Session, placement: Placement, interrupts: Interrupts, console: Console | None) -> str:
    from hpo.progress import quiet, watched

    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, int(placement.cpus))))  # torch's threads: as many as a trial's CPUs
    with ExitStack() as stack:
        terminal = stack.enter_context(quiet(session.folder / "ray.log"))
        from hpo.engine import ray_tune

        if console is not None:
            stack.callback(setattr, console, "file", console.file)
            console.file = terminal
            stack.enter_context(watched(session, console))
        with ray_tune.cluster(this_machine(), interrupts) as scratch:
            reason = ray_tune.run(session, placement, scratch, interrupts)
            if reason == "budget":  # nothing runs any more: MLflow's last part and Ray's end go side by side
                session.end(reason)
    return reason

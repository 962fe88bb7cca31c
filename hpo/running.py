"""Runs a study that is open for writing: the engine, MLflow's shipper beside it, the end. The one place that starts things."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, nullcontext, suppress
from typing import TYPE_CHECKING

from hpo.capacity import Placement
from hpo.declarations import is_ours
from hpo.errors import ClusterError, EngineError, NoSpace
from hpo.ground import Ground
from hpo.interrupt import Interrupts
from hpo.journal import Journal
from hpo.journal_format import JournalError
from hpo.redacted_output import print_exception
from hpo.redaction import hidden
from hpo.session import Session
from hpo.shipping import Shipping

if TYPE_CHECKING:
    from rich.console import Console

SHIP_AT_LEAST_S = 2.5  # for what was measured last, when the command has to end within five seconds


def run(session: Session, journal: Journal, placement: Placement, on: Ground, *, local: bool, console: Console | None) -> int | None:
    """Run the session's trials on that ground and bring what happened into MLflow; the number of the signal that cut it short, if one did.

    Raises EngineError or JournalError; what was journaled until then stays.
    """
    with Interrupts() as interrupts, Shipping(session.folder, session.spec.tracking.patience_s) as shipping:
        interrupts.last_acts.append(shipping.kill)
        wait_s: float | None = SHIP_AT_LEAST_S
        try:
            _search(session, placement, on, interrupts, local=local, console=console)
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


def _search(session: Session, placement: Placement, on: Ground, interrupts: Interrupts, *, local: bool, console: Console | None) -> None:
    session.shield = interrupts.shielded
    reason = "interrupted"
    try:
        if session.is_done and not session.begin_finals("budget"):
            reason = "budget"
        elif local:
            reason = _here(session, placement)
        else:
            reason = _on_ray(session, placement, on, interrupts, console)
        if session.study.ended is None:
            conclude(session, console)
    except (KeyboardInterrupt, SystemExit):  # the latter is what Ray makes of SIGTERM while it starts
        pass
    except (JournalError, NoSpace, ClusterError):
        with suppress(JournalError):
            session.end("error")
        raise
    except Exception as error:  # the border to Ray, which may fail in any way: the study ends with that reason
        hidden.add_environment(os.environ)  # the token of the search's own Ray was made meanwhile
        print_exception(error)  # into ray.log, unless this is --local
        with suppress(JournalError):
            session.end("error")
        log = "" if local else f" (see {session.folder / 'ray.log'})"
        raise EngineError(hidden(f"the search broke off: {type(error).__name__}: {error}{log}")) from error
    if session.study.ended is None:
        with suppress(KeyboardInterrupt), interrupts.shielded():
            session.end(reason)


def conclude(session: Session, console: Console | None) -> None:
    """The finals are over: choose the winner, and open the test split for it, once, if the spec wants that.

    Without finals nobody is chosen, and the test split stays closed unless the user insists.
    """
    finals, again = session.spec.finals, session.opens_test_again
    with session.shield():
        chosen = session.study.choose() if finals is not None else None
    if not again and (finals is None or not finals.test or chosen is None):
        return
    from hpo.unsealing import unseal, why_sealed

    why = why_sealed(session)
    if not why or again:
        unseal(session, force=again)
    elif console is not None and session.study.model() is not None:
        console.print(f"[yellow]not tested[/yellow]: {why}; `hpo resume {session.folder.name} --open-test-again` does", highlight=False)


def _here(session: Session, placement: Placement) -> str:
    from hpo.engine import local as here

    device = "cuda:0" if placement.gpus else "cpu"
    reason = here.run(session, device)
    return here.run(session, device) if session.begin_finals(reason) else reason


def _on_ray(session: Session, placement: Placement, on: Ground, interrupts: Interrupts, console: Console | None) -> str:
    from hpo.progress import quiet, watched

    with ExitStack() as stack:
        if "OMP_NUM_THREADS" not in os.environ:
            os.environ["OMP_NUM_THREADS"] = str(max(1, int(placement.cpus)))  # torch's threads: as many as a trial's CPUs
            stack.callback(os.environ.pop, "OMP_NUM_THREADS", None)
        terminal = stack.enter_context(quiet(session.folder / "ray.log"))
        from hpo.engine import ray_cluster  # noqa: F401  # here, where what it prints goes to the log

        if console is not None:
            stack.callback(setattr, console, "file", console.file)
            console.file = terminal
            stack.enter_context(watched(session, console))
        reason = _in_cluster(session, placement, on, interrupts, console)
        if session.begin_finals(reason):  # what ran was cut off, and Tune leaves its workers behind: the finals get a Ray of their own
            reason = _in_cluster(session, placement, on, interrupts, console)
    return reason


def _imported(session: Session) -> list[str]:
    """The modules that each worker needs from the start; other people's code is imported by the trial.

    There it may fail, print and hang; the test data are sealed by then, and the GPU is chosen.
    """
    trainer = [session.entry.partition(":")[0]] if is_ours(session.entry) else []
    return ["hpo.engine.ray_worker", *trainer]


def _in_cluster(session: Session, placement: Placement, on: Ground, interrupts: Interrupts, console: Console | None) -> str:
    from hpo.engine import ray_cluster

    with ThreadPoolExecutor(1) as beside:
        prepared = beside.submit(session.prepare)  # Ray's start is waiting, mostly
        if on.address is None:
            # no more than there are trials, and none for a GPU, which those that start with Ray do not see
            workers = 0 if placement.gpus else min(placement.slots, session.spec.budget.trials)
            started = ray_cluster.cluster(on.there[0], interrupts, workers=workers, modules=_imported(session))
        else:
            started = ray_cluster.joined(on.address, session.spec.trainer.name, interrupts)
        with started as scratch:
            from hpo.engine import ray_tune  # while the workers start

            prepared.result()
            reason = ray_tune.run(session, placement, scratch, interrupts, shared=on.address is not None)
            if (
                reason == "budget" and session.study.nominated is not None
            ):  # nothing runs any more: the last part and Ray's end go side by side
                conclude(session, console)
                session.end(reason)
    return reason

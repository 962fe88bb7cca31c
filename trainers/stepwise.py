"""Makes a generator of code that calls back: a framework's own loop, stopped after each epoch until the next is asked for."""

from __future__ import annotations

import contextvars
import queue
import threading
from collections.abc import Callable, Generator

from hpo.trainer import Metrics

Report = Callable[[Metrics], None]


class Closed(BaseException):
    """Raised in a framework's thread: nobody asks for a further epoch. No Exception, which frameworks may catch."""


class _Over:
    """The last word of a thread: that its code returned, or what it raised."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


def epochs_of(run: Callable[[Report], None]) -> Generator[Metrics, None, None]:
    """Yield each of the metrics that `run(report)` reports by calling `report(metrics)` after an epoch.

    `run` is called in a thread of its own, but never at the same time as the code that asks for the epochs: `report` returns when
    the next one is asked for. When the generator is closed instead, `report` raises `Closed`, now and whenever it is
    called again, and closing waits until `run` has ended. What `run` raises comes out of the generator.
    """
    epochs: queue.SimpleQueue[Metrics | _Over] = queue.SimpleQueue()
    turn = threading.Semaphore(0)
    closed = threading.Event()

    def report(metrics: Metrics) -> None:
        if not closed.is_set():
            epochs.put(metrics)
            turn.acquire()
        if closed.is_set():
            raise Closed

    def work() -> None:
        try:
            run(report)
            epochs.put(_Over())
        except BaseException as error:  # the border of the thread: whatever it is, the generator raises it
            epochs.put(_Over(error))

    # a daemon, so that a generator that is never closed does not keep the process from ending
    thread = threading.Thread(target=contextvars.copy_context().run, args=(work,), name="epochs", daemon=True)
    thread.start()
    try:
        while not isinstance(told := epochs.get(), _Over):
            yield told
            turn.release()
    except GeneratorExit:  # raised at the yield, while the thread waits
        closed.set()
        turn.release()
        _raise(epochs.get())
        raise
    finally:
        closed.set()  # after a Ctrl-C the thread still runs, up to its next report
    thread.join()
    _raise(told)


def _raise(told: Metrics | _Over) -> None:
    """Raise what the thread's code has raised, if that was not our own way to end it."""
    if isinstance(told, _Over) and told.error is not None and not isinstance(told.error, Closed):
        raise told.error

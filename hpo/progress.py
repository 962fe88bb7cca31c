"""What a person sees while a search runs: one calm table on the terminal. Shows, decides nothing."""

from __future__ import annotations

import os
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TextIO

from rich.console import Console, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from hpo.brief import duration, params_text, short
from hpo.redacted_output import redacted
from hpo.session import Session
from hpo.trial import State

LINES = "HPO_PROGRESS"  # `lines` has a plain line written now and then where there is no terminal, for a job's log
LINE_EVERY_S = 10.0


class Watch:
    """Renders the session as it stands at each refresh."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def __rich__(self) -> RenderableType:
        study, spec = self._session.study, self._session.spec
        count = study.count
        done, most = sum(count[state] for state in State if state.finished), study.rules.max_trials
        table = Table(box=None, show_header=False, pad_edge=False)
        table.add_column(style="dim")
        table.add_column()
        shown = [state for state in State if state is not State.PAUSED or study.rules.promotes]
        table.add_row("trials", f"{done} of {most} done: {', '.join(f'{count[state]} {state}' for state in shown)}")
        best = study.best()
        measured = best.best(study.rules.direction) if best else None
        if best is not None and measured is not None:
            table.add_row("best", escape(f"{spec.objective.metric} {short(measured.value)} in trial {best.number}, epoch {measured.epoch}"))
            table.add_row("", escape(params_text(best.params)))
        budget = study.rules.epoch_budget
        table.add_row("epochs", f"{study.epochs} of {f'at most {most * study.rules.max_epochs}' if budget is None else budget}")
        if study.nominated is not None:
            states = Counter(run.state for run in list(study.finals))
            runs = ", ".join(f"{states[state]} {state}" for state in State if states[state])
            table.add_row("finals", f"the best are trained again: {runs}")
            table.add_row("time", duration(self._session.endings.spent_s))
            return table
        # a paused trial counts as done: few of them go on, and each further trial adds its share of those that do
        table.add_row("time", self._time(done + count[State.PAUSED], most) if budget is None else self._time(study.epochs, budget))
        return table

    def line(self) -> str:
        """The session as it stands, in one line."""
        study = self._session.study
        done, most = sum(study.count[state] for state in State if state.finished), study.rules.max_trials
        best = study.best()
        measured = best.best(study.rules.direction) if best else None
        parts = [f"{done} of {most} trials done, {study.count[State.RUNNING]} running", f"{study.epochs} epochs"]
        if best is not None and measured is not None:
            parts.append(f"best {self._session.spec.objective.metric} {short(measured.value)} in trial {best.number}")
        if study.nominated is not None:
            parts.append(f"{sum(run.state.finished for run in list(study.finals))} runs of the finals done")
        return "; ".join(parts)

    def _time(self, done: int, most: int) -> str:
        """The time spent, and what is left of it at the pace of `done` of `most`."""
        spent, limit = self._session.endings.spent_s, self._session.endings.limit_s
        left = spent / done * (most - done) if done else None
        if limit is not None:
            left = limit - spent if left is None else min(left, limit - spent)
        return duration(spent) + (f", about {duration(max(left, 0))} left" if left is not None else "")


@contextmanager
def watched(session: Session, console: Console) -> Iterator[None]:
    """Show the session on `console` while inside, if that is a terminal, or lines are wanted; the last state stays."""
    if not console.is_terminal:
        with _lines(Watch(session), console) if os.environ.get(LINES) == "lines" else nullcontext():
            yield
        return
    with Live(Watch(session), console=console, refresh_per_second=2, redirect_stdout=False, redirect_stderr=False):
        yield


@contextmanager
def _lines(watch: Watch, console: Console) -> Iterator[None]:
    """Write how it stands, whenever that changed, at most every `LINE_EVERY_S` seconds, and at the end."""
    over, said = threading.Event(), ""

    def write() -> None:
        nonlocal said
        while True:
            last = over.wait(LINE_EVERY_S)
            line = watch.line()
            if line != said:
                console.print(line, markup=False, soft_wrap=True)
                said = line
            if last:
                return

    thread = threading.Thread(target=write, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(1.0)


@contextmanager
def quiet(log: Path) -> Iterator[TextIO]:
    """Send all that this process and its children print to the file `log`; yields the real standard error."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(1), os.dup(2)]
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.dup2(file, 1)
        os.dup2(file, 2)
        with os.fdopen(os.dup(kept[1]), "w", encoding="utf-8") as terminal, redacted():
            yield terminal
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, descriptor in enumerate(kept, start=1):
            os.dup2(descriptor, number)
            os.close(descriptor)
        os.close(file)

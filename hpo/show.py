"""How studies and trials look on a terminal. Text only: nothing here decides, reads or writes a study."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hpo.brief import duration, params_text, short
from hpo.problem import shown
from hpo.show_choice import judgement_rows, replicated, tested, why_optimistic
from hpo.trial import State

if TYPE_CHECKING:
    from hpo.arguments import Argument, TrainerDeclaration
    from hpo.doctor import Check
    from hpo.findings import Finding
    from hpo.results import StoredStudy
    from hpo.tracking import TrackingState

COLOUR = {State.COMPLETE: "green", State.PRUNED: "yellow", State.FAILED: "red", State.RUNNING: "cyan", State.PAUSED: "cyan"}


def out() -> Console:
    """Standard output; as wide as it needs to be where it is no terminal, so that nothing is cut."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=240)


def facts(rows: list[tuple[str, str]]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, escape(value))
    return table


def summary(study: StoredStudy) -> None:
    """What was chosen, and the commands to go on with."""
    console, counts = out(), study.counts
    states = ", ".join(f"{counts[state]} {state}" for state in State if counts[state])
    states = states or "no trials"
    fresh = sum(run.epoch for run in study.study.finals)
    epochs = f"{study.epochs} epochs" + (f", and {fresh} in the finals," if fresh else "")
    console.print(f"[bold]{study.name}[/bold] {study.standing}: {states}; {epochs} in {duration(study.seconds)}")
    if study.best is not None:
        best(study)
    tracking = study.tracking
    if tracking is None or not tracking.done:
        console.print(f"[yellow]MLflow does not have all of it[/yellow]: {escape(_untold(tracking))}")
        console.print(f"  the journal has; `hpo track {study.name}` sends the rest; its log is {study.folder / 'tracking.log'}")
    if study.state not in ("budget", "time"):
        console.print(f"\n  hpo resume {study.name}    go on with it: nothing that was measured is lost", end="")
    console.print(f"\n  hpo trials {study.name}    every trial, with why it ended")
    if study.best is not None:
        console.print(f"  hpo best {study.name}      the chosen model and how to load it")
    if tracking is None or tracking.uri.startswith("sqlite:"):
        console.print("  hpo ui" + " " * (len(study.name) + 9) + "compare the trials in MLflow")
    else:
        console.print(f"  {escape(tracking.uri)}    compare the trials in MLflow")


def _untold(tracking: TrackingState | None) -> str:
    if tracking is None:
        return "it was never reached"
    return tracking.error or "its process ended before it was done"


def best(study: StoredStudy) -> None:
    """The best trial, where its model is and how to load it."""
    found = study.best
    assert found is not None
    rows = [
        *choice(study),
        ("parameters", params_text(found.params)),
        ("model", (found.model_uri or "not registered") + _note(study)),
        ("checkpoint", str(found.checkpoint) if found.checkpoint else "none was kept"),
        ("load it", found.how_to_load),
    ]
    out().print(facts(rows))


def choice(study: StoredStudy) -> list[tuple[str, str]]:
    """What was chosen and how good it is, as facts: by the finals where there were any, else by the search alone."""
    found, judged = study.best, study.judged
    assert found is not None
    where = f"{found.metric} {found.value:.6g} (validation, {found.name}, epoch {found.epoch}, seed {found.seed})"
    if judged is None or study.study.chosen is None:
        looked = [("test", tested(study))] if study.study.unsealed else []
        return [("best", where), ("honesty", why_optimistic(study)), *looked]
    rows = [("best", replicated(judged, found.metric)), *judgement_rows(judged, study.epochs)]
    return [*rows, ("test", tested(study)), ("the model", where)]


def finding(found: Finding) -> None:
    """A piece of advice, with what it rests on."""
    out().print(f"[bold]advice[/bold]  {escape(found.advice)}\n        [dim]{escape(found.evidence)}[/dim]")


def _note(study: StoredStudy) -> str:
    return f" ({study.tracking.champion_note})" if study.tracking and study.tracking.champion_note else ""


def failures(study: StoredStudy, most: int = 3) -> list[str]:
    """Why trials failed: each reason once, with how many trials it ended."""
    reasons: dict[str, list[int]] = {}
    for trial in study.trials:
        if trial.state is State.FAILED:
            reasons.setdefault(trial.reason.partition(" (see ")[0], []).append(trial.number)
    lines = [f"trial {numbers[0]}{f' and {len(numbers) - 1} more' if numbers[1:] else ''}: {why}" for why, numbers in reasons.items()]
    return lines[:most] + ([f"and {len(lines) - most} other reasons: hpo trials {study.name}"] if lines[most:] else [])


def status(studies: list[StoredStudy]) -> None:
    """One line a study."""
    table = Table(box=None, pad_edge=False)
    states = [State.COMPLETE, State.PRUNED, State.FAILED] + ([State.PAUSED] if any(study.counts[State.PAUSED] for study in studies) else [])
    owners = ["owner"] if any(study.owner for study in studies) else []
    for name in ("study", *owners, "state", "trials", *states, "epochs", "best", "time"):
        table.add_column(name)
    for study in studies:
        found, counts = study.best, study.counts
        counted = [str(counts[state]) for state in states]
        shown = escape(f"{found.metric} {short(found.value)}") if found else ""
        total = f"{len(study.trials)} of {study.study.rules.max_trials}"
        whose = [escape(study.owner) for _ in owners]
        table.add_row(study.name, *whose, study.state, total, *counted, str(study.epochs), shown, duration(study.seconds))
    out().print(table)
    for study in studies:
        if study.holder:
            out().print(f"{study.name}: {escape(str(study.holder))}")
        elif study.state not in ("budget", "time"):
            out().print(f"{study.name}: nothing runs it now; go on with it by `hpo resume {study.name}`", soft_wrap=True)


def trials(study: StoredStudy) -> None:
    """The table of trials, and that of the finals below it."""
    _trials(study, finals=False)
    if study.study.finals:
        out().print("\n[bold]finals[/bold]: configurations trained again with fresh seeds")
        _trials(study, finals=True)


def _trials(study: StoredStudy, *, finals: bool) -> None:
    frame = study.trials_dataframe(finals=finals)
    columns = [name for name in frame.columns if name not in ("seed", "attempts", "reason")]
    rows = frame.to_dict("records")
    cells = [["" if row[name] != row[name] or row[name] is None else short(row[name]) for name in columns] for row in rows]
    reasons = [str(row["reason"]) for row in rows]
    taken = sum(2 + max(map(len, (name, *column))) for name, column in zip(columns, zip(*cells, strict=True), strict=False))
    console = out()
    longest = max(map(len, reasons), default=0)
    room = max(14, console.width - taken) if console.is_terminal else longest
    table = Table(box=None, pad_edge=False)
    for name in columns:
        table.add_column(escape(name), justify="left" if name == "state" else "right", no_wrap=True)
    table.add_column("why it ended", no_wrap=True)
    for row, texts, reason in zip(rows, cells, reasons, strict=True):
        state = f"[{COLOUR[State(row['state'])]}]{row['state']}[/]"
        shown = reason if len(reason) <= room else reason[: room - 1] + "…"
        table.add_row(escape(texts[0]), state, *map(escape, texts[2:]), escape(shown))
    Console(highlight=False, width=taken + max(room, len("why it ended"))).print(table)


def trainers(found: dict[str, TrainerDeclaration]) -> None:
    """Every trainer with what it takes."""
    console = out()
    for name, trainer in found.items():
        console.print(f"[bold]{name}[/bold]  {escape(trainer.summary)}")
        if trainer.metrics:
            console.print("  reports " + ", ".join(escape(f"{metric} ({way})") for metric, way in trainer.metrics.items()))
        if trainer.takes_any:
            console.print("  takes any hyperparameter")
        for title, arguments in (("hyperparameters", trainer.hyperparameters), ("settings", trainer.settings)):
            if not arguments:
                continue
            table = Table(box=None, pad_edge=False, header_style="dim")
            table.add_column(f"  {title}", no_wrap=True)
            table.add_column("default", no_wrap=True)
            table.add_column("what it is; what it takes", overflow="fold")
            for key, argument in arguments.items():
                what = f"{argument.summary}; " if argument.summary else ""
                table.add_row(f"  {key}", escape(_default(argument)), escape(what) + f"[dim]{escape(argument.legal)}[/dim]")
            console.print(table)


def _default(argument: Argument) -> str:
    """As a spec would have it."""
    if argument.required or argument.default is None:
        return "required" if argument.required else "null"
    return argument.default if isinstance(argument.default, str) else shown(argument.default)


def checks(found: list[Check]) -> None:
    """Each check with what was found, and how to mend what is wrong."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for check in found:
        mark = "[green]ok[/green]" if check.ok else "[red]wrong[/red]"
        table.add_row(mark, check.name, escape(check.found) + (f"\n[yellow]{escape(check.mend)}[/yellow]" if check.mend else ""))
    out().print(table)

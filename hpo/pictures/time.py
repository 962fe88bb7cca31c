"""Where the time went: worker-seconds by what they were spent on. Reads the journal's clock; draws, decides nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from hpo.brief import duration
from hpo.events import Asked, Event, Finished, Paused, Promoted
from hpo.pictures import style
from hpo.pictures.measured import NOTHING, replicated, searched
from hpo.pictures.picture import Drawn
from hpo.results import StoredStudy
from hpo.trial import State, Trial

TITLE = "Where the time went"
WORDS = {
    State.COMPLETE: "complete trials",
    State.PRUNED: "pruned trials",
    State.PAUSED: "waiting trials",
    State.RUNNING: "running trials",
    State.FAILED: "failed trials",
}
IDLE = "not training"


@dataclass(frozen=True, slots=True)
class Spent:
    """Worker-seconds by what they were spent on, in order of the chart; `slots` trials ran at once at most, for `wall_s` in all.

    `idle_s` is what is left of slots times wall; None where the epochs took longer than that, as on a clock that is not the journal's.
    """

    training: tuple[tuple[str, float], ...]
    idle_s: float | None
    slots: int
    wall_s: float


def spent(study: StoredStudy) -> Spent:
    """How much time the trials of each state took, those of the finals, and what was left."""
    seconds = dict.fromkeys(WORDS, 0.0)
    for trial in searched(study):
        seconds[trial.state] += trained_s(trial)
    finals = sum(map(trained_s, replicated(study)))
    training = [(WORDS[state], took) for state, took in seconds.items() if took > 0] + ([("finals", finals)] if finals > 0 else [])
    slots, wall = at_once(record.event for record in study.records), study.seconds
    idle = slots * wall - sum(took for _, took in training)
    return Spent(tuple(training), idle if idle >= 0 else None, slots, wall)


def trained_s(trial: Trial) -> float:
    """The seconds that a trial's epochs took."""
    return sum(measured.seconds for measured in trial.measurements)


def at_once(events: Iterable[Event]) -> int:
    """The largest number of trials that were RUNNING at the same time."""
    running: set[int] = set()
    most = 0
    for event in events:
        match event:
            case Asked(trial=number) | Promoted(trial=number):
                running.add(number)
            case Paused(trial=number) | Finished(trial=number):
                running.discard(number)
        most = max(most, len(running))
    return most


def chart(study: StoredStudy) -> Drawn | str:
    """One bar for each thing that time was spent on; or why there is none."""
    found = spent(study)
    if not found.training:
        return NOTHING
    bars = [*found.training, *([(IDLE, found.idle_s)] if found.idle_s is not None else [])]
    total = sum(took for _, took in bars)
    unit, size = next(
        (unit, size) for unit, size, least in (("hours", 3600, 7200), ("minutes", 60, 300), ("seconds", 1, 0)) if total >= least
    )
    drawn, axes = style.single(6.6, 1.1 + 0.34 * len(bars), f"{TITLE}: {style.shortened(study.name, 40)}")
    for at, (what, took) in enumerate(bars):
        idle = what == IDLE
        axes.barh(
            at,
            took / size,
            height=0.62,
            color="white" if idle else style.DARK,
            edgecolor=style.DARK,
            hatch="////" if idle else "",
            linewidth=0.8,
        )
        axes.annotate(
            f"{_in_words(took)}, {took / total:.0%}",
            (took / size, at),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
        )
    axes.set_yticks(range(len(bars)), [what for what, _ in bars])
    axes.set_ylim(len(bars) - 0.4, -0.6)
    axes.set_xlim(0, 1.25 * max(took for _, took in bars) / size)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(f"worker time ({unit})")
    return Drawn(drawn, _caption(found))


def _in_words(seconds: float) -> str:
    return f"{seconds:.1f}s" if seconds < 10 else duration(seconds)


def _caption(found: Spent) -> str:
    workers = f"{found.slots} worker{'s' * (found.slots != 1)} (as many as ran at once)"
    words = f"Time of {workers} in {duration(found.wall_s)}, by what became of the trials"
    if found.idle_s is None:
        return f"{words}; the epochs took longer than that by their own account, so what was not training is not known."
    return f"{words}; not training is starting up, waiting for work, saving and the end."

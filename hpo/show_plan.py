"""How a plan and a forecast look on a terminal. Text only: nothing here decides, reads or writes a study."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hpo.brief import duration
from hpo.finals import SHARE
from hpo.show import facts, out

if TYPE_CHECKING:
    from hpo.capacity import Capacity
    from hpo.forecast import Forecast
    from hpo.plan import Plan


def plan(found: Plan) -> None:
    """Trials, rungs, epochs and placement."""
    at, expected = found.placement, found.expected
    gpus = f" and {at.gpus:g} GPU" if at.gpus else ""
    custom = "".join(f" and {amount:g} {name}" for name, amount in at.custom.items())
    where = " on this machine" if len(found.there) == 1 else f" on {len(found.there)} nodes"
    rows = [
        ("study", found.name),
        ("trials", _trials(found)),
        ("rungs", _rungs(found)),
        ("stops early", found.stopper),
        ("epochs", f"at most {found.epochs_worst:,}; about {found.epochs_expected:,} if ranks are random, more as the sampler learns"),
        ("finals", _finals(found)),
        ("time", "at most " + duration(found.time_limit_s) if found.time_limit_s else "no limit"),
        *_machines(found),
        ("placed", f"{at.slots} trials at a time{where}, each with {at.cpus:g} CPU{gpus}{custom}"),
    ]
    if found.rule == "promote":
        spent = f"about {found.epochs_expected:,}, {expected.complete} of the trials trained to their end"
        rows[4] = ("epochs", f"{spent}; at most {found.epochs_worst:,}")
    if len(found.brackets) > 1:
        shares = ", ".join(f"{count} trials skip {skipped or 'none'}" for skipped, count in enumerate(found.brackets))
        rows.insert(3, ("brackets", f"{shares} of the lowest rungs"))
    if found.audit:
        rows.insert(4, ("audit", f"{found.audit:.0%} of those outside the best train on, about {expected.audit:,} epochs of all"))
    if found.epoch_limit is not None and expected.trials < found.trials:
        rows[1] = ("trials", f"about {expected.trials} of {found.trials}, until {found.epoch_limit:,} epochs are spent")
    out().print(facts(rows))


def _machines(found: Plan) -> list[tuple[str, str]]:
    """What each machine has and how much fits there, a row each."""
    alone, on = len(found.there) == 1, zip(found.there, found.placement.on, strict=True)
    return [("here" if alone else machine.name, _machine(machine, fits)) for machine, fits in on]


def _machine(there: Capacity, fits: int) -> str:
    custom = "".join(f", {amount:g} {name}" for name, amount in there.custom.items())
    return f"{there.cpus:g} CPUs, {there.gpus:g} GPUs{custom}: {fits or 'no'} trial{'' if fits == 1 else 's'} at a time"


def _trials(found: Plan) -> str:
    if not found.grid_points:
        return str(found.trials)
    return (
        f"{found.trials} (" + ("all points of the sampler" if found.trials == found.grid_points else f"of {found.grid_points} points") + ")"
    )


def _finals(found: Plan) -> str:
    if not found.finals_runs:
        return "none: the reported value is the best of all looks at the validation data, and better than the model is"
    share = f"{SHARE:.0%} of the search's epochs, about {found.finals_epochs:,}"
    possible = min(found.finals_runs, found.finals_epochs // found.max_epochs)
    if not possible:
        return f"none are possible: {share}, are less than one training of {found.max_epochs}"
    return f"up to {possible} fresh runs of {found.max_epochs} epochs ({found.finals_runs} are wanted): at most {share}"


def _rungs(found: Plan) -> str:
    if not found.rungs:
        return "none: every trial may train to its end"
    epochs, eta = ", ".join(map(str, found.rungs)), found.reduction_factor
    rule = "others stop" if found.rule == "stop" else "others wait, some of them for good"
    return f"after epochs {epochs}: the best 1/{eta} go on, the {rule}"


def forecast(found: Forecast) -> None:
    """What the budget would do on made-up curves."""
    search, random = found.search, found.random
    reached = [f"{trials:.0f} reach epoch {rung}" for rung, trials in search.reached.items()]
    starts = ", ".join([f"{search.started:.0f} trials", *reached, f"{search.complete:.0f} are trained to their end"])
    rows = [
        ("simulated", f"{found.seeds} searches on made-up curves, {found.slots} trials at a time; all numbers are means"),
        ("spends", f"{starts}: {search.epochs:,.0f} epochs, in the time of {search.time:,.0f}"),
        ("finds", f"{search.best:.3f} of at most {found.possible:.3f} (1 is perfect)"),
        ("random", f"{random.best:.3f} from {random.started:.0f} random points with ASHA (stopping, eta 4) on as many epochs"),
        *(("otherwise", note) for note in found.notes),
        ("beware", "the curves are made up: this shows how a budget is spent, not how good your model will be"),
    ]
    out().print(facts(rows))

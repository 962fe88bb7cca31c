"""What to change about pruning, in a sentence, from a study's audit. Pure."""

from __future__ import annotations

import math

from hpo.audit import Audit, RungAudit, Stops
from hpo.estimates import share_interval
from hpo.rules import Rules

TOLERABLE = 0.15  # false stops: blind ones are false half of the time, so pruning then still finds the better trials
CLOSE = 0.05  # a rate so near to the tolerable one that no affordable audit tells them apart
AGREES = 0.7  # a rung whose order agrees with that at the end as much is one to judge by
SURELY_AGREES = 0.5  # the same for the lower end of its interval, which must carry a change that saves epochs
LARGE = 0.2  # an audit that is not to be larger
MOST = 400  # audited trials, enough for any answer
POPULATION = 20  # how many stand behind an audited one
SHOWN = "`pruner.audit: 0.05` trains one of twenty to its end, which shows what stopping costs"


def advice(rules: Rules, audit: Audit, trials: int) -> str:
    """One sentence for a study that has asked for `trials` trials: what its next search should change, or that it is too early to say.

    The whole interval of the false-stop rate must lie above the tolerable 15 % before less pruning is advised, and below it
    before more is: less pruning costs epochs, more costs models. Where most false stops were at the lowest rung, it comes too early
    (raise the grace); where they were at higher ones, too few go on (lower eta). More pruning begins with the grace,
    if the lowest rung surely agrees with the end, else with eta, up to 4, behind which little is saved.
    """
    stops = audit.stops
    if too_early := _unknown(rules, audit, trials):
        return too_early
    if stops.low > TOLERABLE:
        return _prune_less(rules, audit)
    if stops.high < TOLERABLE:
        return _prune_more(rules, audit)
    if (stops.high - stops.low) / 2 < CLOSE:
        return f"nothing: about {TOLERABLE:.0%} of the stops are false, which pruning may cost"
    return f"too few audited to say: {_more(stops, rules, trials)}"


def _unknown(rules: Rules, audit: Audit, trials: int) -> str:
    """Why nothing at all is known; empty if something is."""
    stops = audit.stops
    if rules.reduction_factor is None:
        return "nothing is pruned"
    if not stops.outside:
        return "nothing was outside the best of a rung yet"
    if not rules.audit and not stops.known:
        return f"none was audited: {SHOWN}"
    return f"too early to say: {_lacking(rules, audit, trials)}" if stops.rate is None else ""


def _lacking(rules: Rules, audit: Audit, trials: int) -> str:
    if audit.reference is None:
        return "no trial that competed was trained to its end, so there is nothing to compare the audited with"
    return f"no audited trial was trained to its end; {_more(audit.stops, rules, trials)}"


def _more(stops: Stops, rules: Rules, trials: int) -> str:
    """How many more trials would settle it, if what was seen goes on."""
    needed = max(_enough(stops), stops.known + 1)
    known_per_trial = max(stops.known, stops.outside * rules.audit) / max(trials, 1)
    more = max(1, math.ceil((needed - stops.known) / known_per_trial)) if known_per_trial else trials
    rounded = more if more < 20 else round(more, -1)
    return f"about {rounded:,} more trials would tell" + (", or a larger pruner.audit" if rules.audit < LARGE else "")


def _enough(stops: Stops) -> int:
    """How many audited trials would tell, if as large a share of them were false: the tolerable rate is then outside the interval."""
    likely, sample = stops.false / max(stops.known, 1), 5.0
    while sample < MOST:
        size = round(sample)
        low, high = share_interval(round(likely * size), size, POPULATION * size)
        if low > TOLERABLE or high < TOLERABLE or high - low < 2 * CLOSE:
            return size
        sample *= 1.1
    return MOST


def _prune_less(rules: Rules, audit: Audit) -> str:
    stops, eta = audit.stops, rules.reduction_factor
    assert eta is not None
    why = f"{stops.rate:.0%} of the stops were false"
    lowest, *others = audit.rungs
    share = _false(lowest) / (sum(map(_false, audit.rungs)) or 1.0)
    if share >= 0.5 and others:
        better = next((rung for rung in others if rung.correlation and rung.correlation.value >= AGREES), others[0])
        return f"raise pruner.grace_epochs from {rules.grace_epochs} to {better.epoch}: {why}, most of them at epoch {lowest.epoch}"
    if eta > 2:
        return f"lower pruner.reduction_factor from {eta} to {eta - 1}, so that more go on: {why}"
    return f"prune less, with a larger pruner.grace_epochs or `pruner.name: none`: {why}"


def _false(rung: RungAudit) -> float:
    """How many of all stops at a rung are false, by estimate."""
    return (rung.stops.rate or 0.0) * rung.stops.outside


def _prune_more(rules: Rules, audit: Audit) -> str:
    eta, lowest = rules.reduction_factor, audit.rungs[0]
    assert eta is not None
    why = f"at most {audit.stops.high:.0%} of the stops are false"
    if rules.grace_epochs > 1 and lowest.correlation and lowest.correlation.low >= SURELY_AGREES:
        earlier = max(1, rules.grace_epochs // eta)
        return f"lower pruner.grace_epochs from {rules.grace_epochs} to {earlier}: {why}, and epoch {lowest.epoch} tells the last order"
    if eta < 4:
        return f"raise pruner.reduction_factor from {eta} to {eta + 1}, so that fewer go on: {why}"
    return f"nothing: {why}"

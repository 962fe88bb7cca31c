"""How often the 95 % interval of the false-stop rate covers the true rate: 200 simulated studies of each kind.

    python -m benchmarks.audit_coverage [STUDIES]

In a simulation it is known how every trial that was stopped would have ended: its curve goes on. Studies are of random points
on typical curves, each with a task of its own, with both rules and audits of 5, 10 and 20 %.
"""

from __future__ import annotations

import sys

from hpo.audit import audit, outside
from hpo.spec import Spec
from hpo.specified import rules_of
from tests.simulations import Simulated, simulated, spec

TRIALS = 80


def study(rule: str, share: float, seed: int) -> tuple[Spec, Simulated]:
    """A study of 80 random points, its stops audited with chance `share`."""
    what = spec(max_epochs=27, budget={"trials": TRIALS}, seed=seed, pruner={"name": "asha", "rule": rule, "audit": share})
    return what, simulated(what)


def truth(done: Simulated, reference: float) -> float:
    """The share of all stops after which the curve would have risen above the reference."""
    stops = [done.study.trials[stop.trial] for stop in outside(done.events)]
    return sum(max(done.curve(trial.params, trial.seed)) > reference for trial in stops) / len(stops)


def covers(found: tuple[Spec, Simulated]) -> bool | None:
    """Whether the interval covers the truth; None where the audit says nothing."""
    what, done = found
    said = audit(rules_of(what), done.events)
    if said.reference is None or said.stops.rate is None:
        return None
    return said.stops.low - 1e-9 <= truth(done, said.reference) <= said.stops.high + 1e-9


def main(studies: int) -> None:
    """One line for each kind of study."""
    print("rule     audit  known  covered  estimate    true   width")
    for rule in ("stop", "promote"):
        for share in (0.05, 0.1, 0.2):
            rows = [row for seed in range(studies) if (row := _row(*study(rule, share, seed))) is not None]
            covered, estimate, true, width = (sum(column) / len(rows) for column in zip(*rows, strict=True))
            print(f"{rule:8} {share:5.2f}  {len(rows):5}  {covered:7.3f}  {estimate:8.3f}  {true:6.3f}  {width:6.3f}", flush=True)


def _row(what: Spec, done: Simulated) -> tuple[float, float, float, float] | None:
    said = audit(rules_of(what), done.events)
    covered = covers((what, done))
    if covered is None or said.stops.rate is None or said.reference is None:
        return None
    return covered, said.stops.rate, truth(done, said.reference), said.stops.high - said.stops.low


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)

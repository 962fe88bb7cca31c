"""A study on the simulated engine, in a process that is killed at any instant; and what its journal must hold then."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import pairwise
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hpo.engine import simulate
from hpo.engine.assignment import Assignment, Failure, Report
from hpo.events import Asked, Chosen, Created, Ended, Event, Finished, Measured, Paused, Promoted, Resumed
from hpo.home import begin
from hpo.journal import FILE_NAME, Journal
from hpo.journal_format import Record, read
from hpo.replaying import replay_decisions
from hpo.rules import NoFurther
from hpo.session import Session
from hpo.spec import Spec
from hpo.specified import rules_of, sampler_of
from hpo.study import replay
from hpo.trial import Decision, Trial
from tests.chaos.outcome import Outcome, Tally
from tests.chaos.plan import Plan, curve

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["tests.chaos.simulated", "hpo.sampling.with_optuna", "optuna._gp.gp", "scipy.stats", "cmaes"])
END_S = 60.0  # by when a simulated study is over, on any machine
STARTS, LATER = 100, 1.1  # it is over in spite of kills, because these come later from start to start

Fact = tuple[Any, ...]  # what was acknowledged, or journaled: ("measured", 3, 1, 0.5)
ONCE = {"asked": 2, "measured": 3, "paused": 3, "promoted": 3, "finished": 2, "chosen": 1}  # how much of a fact there is once


class Told(Session):
    """A session that writes down what it acknowledged as soon as each call returned. It makes reports of curves' ends, too."""

    def __init__(self, spec: Spec, journal: Journal, told: int) -> None:
        super().__init__(spec, spec.trainer.name, journal.path.parent, journal)
        self._told = told

    def tell(self, *fact: Any) -> None:
        os.write(self._told, json.dumps(fact).encode() + b"\n")

    def next(self) -> Assignment | None:
        known, finals, promotions = len(self.study.trials), len(self.study.finals), self.study.promotions
        assignment = super().next()
        for trial in (*self.study.trials[known:], *self.study.finals[finals:]):
            self.tell("asked", trial.number, json.dumps(dict(trial.params)), trial.seed)
        if assignment is not None and self.study.promotions > promotions:
            self.tell("promoted", assignment.number, self.study.trials[assignment.number].epoch)
        return assignment

    def take(self, number: int, report: Report) -> Decision:
        (measurement,) = report.measurements
        if "failing" in measurement.metrics:
            report = Report((), failure=Failure("error", "ValueError: as it was told to"))
        elif "short" in measurement.metrics:
            report = Report((), ended=True)
        decision = super().take(number, report)
        trial = self.study.trial(number)
        for m in report.measurements:
            self.tell("measured", number, m.epoch, m.value)
        if trial.state.finished:
            self.tell("finished", number, trial.state.value, trial.reason)
        if decision is Decision.PAUSE:
            self.tell("paused", number, trial.epoch)
        return decision


def go_on(folder: Path, plan: Plan, acknowledged: Path) -> None:
    """Begin the study in `folder`, or resume it, and run it to its end; what is acknowledged goes into a file of its own."""
    path = folder / FILE_NAME
    is_new = not path.exists() or not read(path)
    journal = begin(folder.parent, folder.name, exactly=True) if is_new else Journal.open(path)
    with journal, acknowledged.open("ab", buffering=0) as told:
        if is_new:
            journal.append([Created(folder.name, plan.spec.to_dict(), {})])
        session = Told(plan.spec, journal, told.fileno())
        if is_new:
            session.tell("created")
        else:
            session.resume(Resumed("here", os.getpid(), {}))
            session.tell("resumed")
        reason = simulate.run(session, curve, plan.slots, journal.records)
        if (chosen := session.study.choose()) is not None:
            session.tell("chosen", chosen.winner, chosen.champion)
        session.end(reason)
        session.tell("over")


def facts(events: Iterable[Event]) -> Iterator[Fact]:
    """What was journaled, in the words of `Told`."""
    for event in events:
        match event:
            case Created():
                yield ("created",)
            case Asked(trial, params, seed):
                yield ("asked", trial, json.dumps(dict(params)), seed)
            case Measured(trial, epoch, value):
                yield ("measured", trial, epoch, value)
            case Paused(trial, epoch):
                yield ("paused", trial, epoch)
            case Promoted(trial, epoch):
                yield ("promoted", trial, epoch)
            case Finished(trial, state, _, reason):
                yield ("finished", trial, state.value, reason)
            case Chosen(winner, champion):
                yield ("chosen", winner, champion)
            case Resumed():
                yield ("resumed",)
            case Ended():
                yield ("over",)


def acknowledged_in(file: Path) -> list[Fact]:
    """What `Told` wrote; its last line may be torn."""
    content = file.read_bytes() if file.exists() else b""
    return [tuple(json.loads(line)) for line in content.split(b"\n")[:-1]]


def trials_in(folder: Path, plan: Plan) -> list[Trial]:
    """The study's trials as its journal tells them, those of its finals last."""
    study = replay(rules_of(plan.spec), NoFurther(), [record.event for record in read(folder / FILE_NAME)])
    return [*study.trials, *study.finals]


@cache
def uninterrupted(plan: Plan) -> tuple[list[Trial], bytes, float]:
    """The trials and the journal that nothing disturbs, and how many seconds their process takes."""
    with TemporaryDirectory(prefix="hpo-chaos-") as scratch:
        folder = Path(scratch) / "chaos"
        server_is_up = SERVER.Process(target=int)
        server_is_up.start()
        server_is_up.join(END_S)
        began = time.monotonic()
        process = start(folder, plan, Path(scratch) / "told")
        process.join(END_S)
        took_s = time.monotonic() - began
        if process.exitcode != 0:
            process.kill()
            raise RuntimeError(f"{plan}: its process ended with {process.exitcode}")
        return trials_in(folder, plan), (folder / FILE_NAME).read_bytes(), took_s


def start(folder: Path, plan: Plan, acknowledged: Path) -> ForkServerProcess:
    """A process that runs `go_on`."""
    process = SERVER.Process(target=go_on, args=(folder, plan, acknowledged), daemon=True)
    process.start()
    return process


def check(tally: Tally, records: list[Record], acknowledged: list[Fact], where: object) -> None:
    """Every acknowledged fact is in the journal, none twice, and every resume has a lease of its own."""
    kept, told = Counter(facts(record.event for record in records)), Counter(acknowledged)
    tally.check("acknowledged lost", sum((told - kept).values()), where)
    keys = Counter(fact[:length] for fact in kept.elements() if (length := ONCE.get(fact[0])))
    tally.check("doubled", sum(keys.values()) - len(keys), where)
    wrong = 0
    for before, record in pairwise(records):
        wrong += record.lease <= before.lease if isinstance(record.event, Resumed) else record.lease != before.lease
    tally.check("wrong leases", wrong, where)
    tally.seen["journaled when its acknowledgement was cut off"] += sum((kept - told).values())


def kill_until_the_end(tally: Tally, folder: Path, plan: Plan, moments: random.Random) -> None:
    """Run one study, killing its process at random moments, until it ends; then compare it with the undisturbed one."""
    expected, _, took_s = uninterrupted(plan)
    kept: list[Fact] = []
    for attempt in range(1, STARTS + 1):
        told, left = folder.parent / f"{folder.name}.{attempt}", max(0.0, 1 - sum(fact[0] == "finished" for fact in kept) / plan.trials)
        process = start(folder, plan, told)
        was_alive = not wait([process.sentinel], moments.uniform(0, took_s * (left + 0.2) * LATER**attempt))
        process.kill()
        process.join()
        records = read(folder / FILE_NAME) if (folder / FILE_NAME).exists() else []
        where = f"{plan}, start {attempt} in {folder}"
        check(tally, records, kept + acknowledged_in(told), where)
        kept = list(facts(record.event for record in records))  # from now on these must stay
        tally.tries += was_alive
        tally.check("starts that failed", not was_alive and process.exitcode != 0, where)
        if ("over",) in kept:
            break
    trials = trials_in(folder, plan)
    tally.check("trials differing", len(expected) - sum(a == b for a, b in zip(trials, expected, strict=False)), where)
    again = replay_decisions(rules_of(plan.spec), sampler_of(plan.spec), records)
    tally.check("decisions that replay differently", again.divergence is not None, f"{where}: {again.divergence}")
    tally.check("not ended once", sum(not trial.state.finished for trial in trials) + (kept.count(("over",)) != 1), where)
    tally.seen["runs of finals"] += sum(trial.in_finals for trial in trials)
    tally.seen["studies"] += 1


SIZES = ((40, 4), (25, 1), (60, 7))
PLANS = [
    Plan(sampler, trials, slots, seed=7 * trials + slots, rule=rule, finals=True)
    for sampler, rule in (("tpe", "stop"), ("random", "stop"), ("cmaes", "stop"), ("random", "promote"), ("ladders", "promote"))
    for trials, slots in SIZES
]


def driver_kills(folder: Path, kills: int, seed: int, plans: list[Plan] | None = None) -> Outcome:
    """SIGKILL to the driver at random moments of its life, `kills` times, each time followed by a resume."""
    tally, moments = Tally(), random.Random(f"driver/{seed}")
    plans = plans or PLANS
    while tally.tries < kills and tally.seen["studies"] < 20 * kills:  # most of them are hit
        plan = plans[tally.seen["studies"] % len(plans)]
        kill_until_the_end(tally, folder / f"killed-{tally.seen['studies']}", plan, moments)
    return tally.outcome("driver SIGKILL at any instant", "simulated engine, random moments, then resume")

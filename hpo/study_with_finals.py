"""What a study decides once its search is over: who is trained again, who wins, which run is the model. Pure, as `study` is."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from hpo.events import Asked, Chosen, Event, Finished, Nominated, Tested, Unsealed
from hpo.finals import SHARE, next_run, shortlist, why_out
from hpo.history import History
from hpo.rules import Rules
from hpo.space import Params
from hpo.trial import FINALS_FROM, State, Trial, trial_seed


def remember_nothing(events: Sequence[Event]) -> None:
    """The `record` of a study that needs no memory, as in a simulation."""


class StudyWithFinals(History):
    """The decisions about the finals; every one is an event that is handed to `record` before it takes effect."""

    def __init__(self, rules: Rules, record: Callable[[Sequence[Event]], None]) -> None:
        super().__init__(rules)
        self._record = record

    def nominate(self, reason: str, defaults: Params | None) -> bool:
        """The search is over by `reason`, with nothing running: whether there are finals, which then begin.

        There are none without a trial that may win, or where 30 % of the search's epochs are less than one training.
        """
        if (nominated := self.nomination(reason, defaults)) is None:
            return False
        self._commit([nominated])
        return True

    def nomination(self, reason: str, defaults: Params | None) -> Nominated | None:
        """Who would be nominated now."""
        rules, limit = self.rules, math.floor(SHARE * self.epochs)
        found = shortlist(self.trials, rules.direction, rules.finalists)
        return Nominated(reason, found, rules.final_seeds, limit, defaults) if found and limit >= rules.max_epochs else None

    def asked_of_finals(self) -> Asked | None:
        """The run of the finals that begins now, as `finals.next_run` says; None when nobody's may."""
        rules, nominated = self.rules, self.nominated
        if nominated is None or self.chosen is not None:
            return None
        spent = sum(rules.max_epochs if run.state is State.RUNNING else run.epoch for run in self.finals)
        runs_left = (nominated.epochs - spent) // rules.max_epochs
        contender = next_run(self.contenders, nominated.seeds, runs_left) if runs_left > 0 else None
        if contender is None:
            return None
        number = FINALS_FROM + len(self.finals)
        return Asked(number, dict(contender.params), trial_seed(rules.seed, number), replicates=contender.trial)

    def _next_of_finals(self) -> Trial | None:
        if (asked := self.asked_of_finals()) is None:
            return None
        self._commit([asked])
        return self.finals[-1]

    def choose(self) -> Chosen | None:
        """The finals are over: their winner, and the run of it that is the model; None if no run of them was completed."""
        found = self.chosen or self.choice()
        if found is not None and self.chosen is None:
            self._commit([found])
        return found

    def choice(self) -> Chosen | None:
        """Who is chosen as things stand."""
        judged = self.judged
        return None if judged is None else Chosen(judged.winner.trial, judged.champion, judged.detail)

    def remember(self, event: Unsealed | Tested) -> None:
        """That the test split is opened, before it happens; what it said."""
        self._commit([event])

    def model(self) -> Trial | None:
        """The trial that is the study's model: the champion of its finals, else the best of its search."""
        return self.best() if self.chosen is None else self.trial(self.chosen.champion)

    def _out_of_race(self, run: Trial) -> Finished | None:
        """The end of a run of the finals whose configuration can no longer win; None for all others."""
        field = self.contenders
        mine = next((one for one in field if one.trial == run.replicates), None) if run.in_finals else None
        if mine is None or self.nominated is None or not (why := why_out(mine, field, self.nominated.seeds)):
            return None
        return Finished(run.number, State.PRUNED, "race", why)

    def _commit(self, events: Sequence[Event]) -> None:
        self._record(events)
        for event in events:
            self.apply(event)

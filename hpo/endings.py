"""When a study's search is over, and when the study: by its time, or by its budget of epochs. Decides about no trial."""

from __future__ import annotations

import time
from collections.abc import Sequence

from hpo.finals import SHARE
from hpo.journal_format import Record
from hpo.spec import Spec
from hpo.specified import spent_s, time_limit_s
from hpo.study import Study

WIND_DOWN_S = 5.0  # a new worker takes two


class Endings:
    """What a running study has left. `limit_s` is its time over all processes that ran it, None without a limit."""

    def __init__(self, study: Study, spec: Spec, records: Sequence[Record]) -> None:
        self._study = study
        self.started = time.monotonic()
        self._spent_before_s = spent_s(records)
        self.limit_s = time_limit_s(spec, records)
        self._ending_since: float | None = None

    @property
    def spent_s(self) -> float:
        """For how long the study was run by now, in seconds."""
        return self._spent_before_s + time.monotonic() - self.started

    @property
    def time_is_up(self) -> bool:
        """Whether all of the study's time is spent."""
        return self.limit_s is not None and self.spent_s >= self.limit_s

    @property
    def search_time_is_up(self) -> bool:
        """Whether what is left of the study's time is the finals': these take 30 % of the search's epochs at most."""
        share = 1 / (1 + SHARE) if self._study.rules.finalists else 1.0
        return self.limit_s is not None and self.spent_s >= self.limit_s * share

    @property
    def before_finals(self) -> str | None:
        """Why the search ends now, where finals follow it: no trial is given out, and those that run end with their next report."""
        if self._study.nominated is not None or not self._study.rules.finalists:
            return None
        return self._of_search

    @property
    def over(self) -> str | None:
        """Why all that runs is to be cut off (time, or budget: its epochs are spent); None while it goes on.

        Where finals follow, what runs has WIND_DOWN_S seconds to report, so that its workers may go on with them.
        """
        if self._study.nominated is not None:
            return "time" if self.time_is_up else None
        reason = self._of_search
        if reason is None or not self._study.rules.finalists:
            return reason
        self._ending_since = self._ending_since or time.monotonic()
        return reason if time.monotonic() - self._ending_since > WIND_DOWN_S else None

    @property
    def _of_search(self) -> str | None:
        return "time" if self.search_time_is_up else "budget" if self._study.is_spent else None

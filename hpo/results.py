"""A study as its journal tells it, running or over: states, the table of trials, the best one. Reads, never writes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpo.events import Asked, Created, Finished, Measured
from hpo.home import is_running, no_line
from hpo.journal import FILE_NAME
from hpo.journal_format import JournalError, Record, read
from hpo.judging import Judgement
from hpo.lease import Holder, holder
from hpo.objects import ObjectPath
from hpo.places import Place
from hpo.references import OPENS
from hpo.rules import NoFurther
from hpo.space import Params
from hpo.spec import Spec, spec_from_dict
from hpo.specified import rules_of, spent_s
from hpo.storage import of_study
from hpo.study import Study, replay
from hpo.terminal import harmless
from hpo.tracking import TrackingState, read_state
from hpo.trial import Course, State, Trial, key_of, name_of
from hpo.trial_files import BEST, has_best, trial_folder

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class Best:
    """The study's model: its value is that of its best epoch, on the validation data it was chosen by.

    `trial` is the search's trial whose configuration it has (DEFAULTS: the trainer's own); `run` is that trial, or the one of
    the finals that trained the model itself, as `hpo.trial.key_of` writes it.
    """

    trial: int
    run: str
    metric: str
    value: float
    epoch: int
    params: Params
    seed: int
    checkpoint: Place | None
    model_uri: str | None
    tracking_uri: str | None

    @property
    def name(self) -> str:
        """The run in words: `trial 17`, or `final-3`."""
        return f"trial {self.run}" if self.run.isdecimal() else self.run

    @property
    def how_to_load(self) -> str:
        """A line of Python that loads the model, or its saved state where no model is registered."""
        if self.model_uri:
            uri = self.tracking_uri or ""
            address, imports = (f"address({_quoted(uri)})", "from hpo.tracking import address; ") if OPENS in uri else (_quoted(uri), "")
            model = f"mlflow.pyfunc.load_model({_quoted(self.model_uri)})"
            return f"import mlflow; {imports}mlflow.set_tracking_uri({address}); model = {model}"
        if isinstance(self.checkpoint, ObjectPath):
            return f"from hpo import checkpoints, places; state = checkpoints.load(places.place({_quoted(self.checkpoint)}))"
        if self.checkpoint:
            return f"from pathlib import Path; from hpo import checkpoints; state = checkpoints.load(Path({_quoted(self.checkpoint)}))"
        return "nothing was kept"


def _quoted(text: object) -> str:
    """As Python reads it: whoever runs the line runs nothing that a name in it says."""
    return json.dumps(str(text), ensure_ascii=False)


@dataclass
class StoredStudy:
    """The study in `folder`, as of the moment it was opened; `signal` cut short the command that returns it."""

    folder: Path
    records: list[Record] = field(repr=False)
    signal: int | None = None
    _bests: dict[int, bool] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def open(cls, folder: Path, signal: int | None = None) -> StoredStudy:
        """Read the journal in `folder`; JournalError if it is damaged or empty."""
        records = read(folder / FILE_NAME)
        if not records:
            starting = f"study {folder.name} is starting: {holder(folder / FILE_NAME)}"
            raise JournalError(starting if is_running(folder) else no_line(folder))
        return cls(folder, harmless(records, folder / FILE_NAME), signal)

    @property
    def name(self) -> str:
        return self.folder.name

    @cached_property
    def spec(self) -> Spec:
        return spec_from_dict(self._created.spec)

    @cached_property
    def study(self) -> Study:
        try:
            return replay(rules_of(self.spec), NoFurther(), [record.event for record in self.records])
        except (ValueError, LookupError) as error:
            raise JournalError(f"{self.folder / FILE_NAME} contradicts itself: {error}; no version of hpo writes that") from error

    @property
    def trials(self) -> list[Trial]:
        return self.study.trials

    @property
    def judged(self) -> Judgement | None:
        """What the finals say by now; None where there are none."""
        return self.study.judged

    @property
    def tracking(self) -> TrackingState | None:
        """What the process that writes to MLflow said last."""
        return read_state(self.folder)

    @property
    def state(self) -> str:
        """`running`, `stopped` (its process is gone, nothing ended it), or why it ended."""
        if self.study.ended is not None:
            return self.study.ended.reason
        return "running" if is_running(self.folder) else "stopped"

    @property
    def standing(self) -> str:
        """The state in words that follow the study's name: `is done`, `is interrupted`."""
        words = {"budget": "is done", "time": "is done (its time is spent)", "error": "broke off"}
        return words.get(self.state, f"is {self.state}")

    @property
    def holder(self) -> Holder | None:
        """The process that runs it now; None if none does."""
        return holder(self.folder / FILE_NAME) if is_running(self.folder) else None

    @property
    def best(self) -> Best | None:
        """The model, or the best trial so far while none is chosen; None while nothing was measured."""
        trial = self.study.model()
        measured = trial.best(self.spec.objective.direction) if trial else None
        if trial is None or measured is None:
            return None
        tracking = self.tracking
        return Best(
            trial=trial.number if trial.replicates is None else trial.replicates,
            run=key_of(trial.number),
            metric=self.spec.objective.metric,
            value=measured.value,
            epoch=measured.epoch,
            params=trial.params,
            seed=trial.seed,
            checkpoint=trial_folder(self.root, trial.number) / BEST if self._has_best(trial.number) else None,
            model_uri=(tracking.champion_uri or None) if tracking else None,
            tracking_uri=tracking.uri if tracking else None,
        )

    @cached_property
    def root(self) -> Place:
        """Where its checkpoints are."""
        return of_study(self.folder, self._created)

    def _has_best(self, number: int) -> bool:
        """Whether a trial's best is kept, as of the first time that this was asked.

        A storage may keep it that does not answer, or is not asked, because only a stranger's journal names it.
        """
        from hpo import trust  # which reads studies

        if number not in self._bests:
            self._bests[number] = bool(trust.doubted(trust.of_storage(self.root))) or has_best(self.root, number)
        return self._bests[number]

    @property
    def counts(self) -> dict[State, int]:
        """How many trials of the search are in each state."""
        return {state: sum(trial.state is state for trial in self.trials) for state in State}

    @property
    def epochs(self) -> int:
        """Epochs trained by all trials of the search together."""
        return sum(len(trial.measurements) for trial in self.trials)

    def waits(self, trial: Trial) -> str:
        """How a paused trial stands at its rung now: `waits at epoch 4, rank 7 of 30; 7 go on`; empty for one that is not paused."""
        rung = self.study.standings.waiting.get(trial.number)
        if rung is None:
            return ""
        quota = len(rung.losses) // (self.study.rules.reduction_factor or 1)
        return f"waits at epoch {rung.epoch}, rank {rung.rank(trial.number)} of {len(rung.losses)}; {quota} go on"

    @property
    def seconds(self) -> float:
        """For how long the study was run, pauses left out."""
        return spent_s(self.records)

    def trials_dataframe(self, *, finals: bool = False) -> pd.DataFrame:
        """One row a trial of the search, or of the `finals`.

        Number, state, best value and its epoch, epochs trained, each parameter, seconds, seed, reason.

        Where trials compete in ladders, `ladder` says in which. The finals' are called `final-0` and so on. The reason says why it
        ended, or where it waits. A parameter called like another column stands under `param_<name>`.
        """
        import pandas as pd

        metric, rows = self.spec.objective.metric, []
        taken = {"trial", "state", metric, "best_epoch", "epochs", "seconds", "seed", "attempts", "reason"}
        in_ladders = any(trial.ladder for trial in self.trials)
        taken |= {"ladder"} if in_ladders else set()
        for trial in self.study.finals if finals else self.trials:
            best = trial.best(self.spec.objective.direction)
            row: dict[str, Any] = {"trial": key_of(trial.number) if finals else trial.number, "state": trial.state.value}
            row |= {metric: best.value if best else None, "best_epoch": best.epoch if best else None, "epochs": trial.epoch}
            row |= {name if name not in taken else f"param_{name}": value for name, value in trial.params.items()}
            row |= {"ladder": trial.ladder} if in_ladders else {}
            row |= {"seconds": self._seconds_of(trial), "seed": trial.seed, "attempts": trial.attempts, "reason": self._reason(trial)}
            rows.append(row)
        frame = pd.DataFrame(rows)
        return frame.astype({metric: "float64", "best_epoch": "Int64"}) if rows else frame

    def _reason(self, trial: Trial) -> str:
        why = "audited" if trial.course is Course.AUDIT else ""
        if trial.replicates is not None:
            why = f"{name_of(trial.replicates)} again"
        return ": ".join(filter(None, (why, trial.reason or self.waits(trial))))

    def _seconds_of(self, trial: Trial) -> float | None:
        if self.study.rules.promotes:  # from its first epoch to its last it mostly waits
            return round(sum(m.seconds for m in trial.measurements), 3)
        asked, finished = self._spans.get(trial.number, (None, None))
        return round((finished - asked).total_seconds(), 3) if asked and finished else None

    @cached_property
    def _spans(self) -> dict[int, tuple[datetime | None, datetime | None]]:
        spans: dict[int, tuple[datetime | None, datetime | None]] = {}
        for record in self.records:
            if isinstance(record.event, Asked):
                spans[record.event.trial] = (record.at, None)
            elif isinstance(record.event, Finished | Measured):
                spans[record.event.trial] = (spans[record.event.trial][0], record.at)
        return spans

    @property
    def owner(self) -> str:
        """Who launched it; empty where the journal is from before owners."""
        return self._created.owner

    @property
    def versions(self) -> Mapping[str, str]:
        """What the study began on."""
        return self._created.versions

    @property
    def _created(self) -> Created:
        first = self.records[0].event
        assert isinstance(first, Created)
        return first

"""The chosen model and how good it is, as plain numbers: for machines, the model card and the registry. Reads, decides nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from hpo.results import StoredStudy
from hpo.show_choice import why_optimistic
from hpo.space import Params, Value
from hpo.trial import key_of

SPLIT = ("dataset", "train_size", "val_size")
SPLIT_OF = {  # what else decides which examples are in which part
    "proben1": ("problem",),
    "imdb": ("vocabulary",),
    "sst2": ("vocabulary", "validation"),
    "file": ("path", "target", "val_share", "test_share", "split_seed"),
}


@dataclass(frozen=True, slots=True)
class Choice:
    """What the model is and what is known of it; None where it is not known.

    `winner` is the configuration, `run` what trained the model: both as `hpo.trial.key_of` writes them. `looks` counts the values that
    the search saw on the validation data. `selected_on` is the value that the search chose the winner by, an optimistic one; `mean`,
    `low` and `high` are of its `fresh` runs, `sd` is of one configuration's runs. `test` has each metric's mean and 95 % interval
    over `test_examples`; `test_openings` says how often the test split was opened. `note` says what is missing.
    """

    metric: str
    winner: str
    run: str
    params: Params
    seed: int
    epoch: int
    value: float
    trials: int
    looks: int
    selected_on: float | None
    fresh: tuple[float, ...]
    mean: float | None
    sd: float | None
    low: float | None
    high: float | None
    gap: float | None
    not_told_apart: tuple[str, ...]
    beats_defaults: bool | None
    defaults_mean: float | None
    test: Mapping[str, tuple[float, ...]]
    test_examples: int
    test_openings: int
    splits: Mapping[str, Value]
    study_seed: int
    fresh_seeds: tuple[int, ...]
    note: str


def choice(study: StoredStudy) -> Choice | None:
    """What is known of the study's model, or of its best trial so far; None while nothing was measured."""
    best, history = study.best, study.study
    if best is None:
        return None
    judged = history.judged if history.chosen is not None else None
    winner = judged.winner if judged else None
    defaults = next((one for one in judged.finalists if one.is_default), None) if judged else None
    model = history.model()
    tested = next((one for one in reversed(history.test_results) if model is not None and one.trial == model.number), None)
    return Choice(
        metric=best.metric,
        winner=key_of(best.trial),
        run=best.run,
        params=best.params,
        seed=best.seed,
        epoch=best.epoch,
        value=best.value,
        trials=len(study.trials),
        looks=study.epochs,
        selected_on=winner.selected_on if winner else best.value,
        fresh=winner.values if winner else (),
        mean=winner.mean if winner else None,
        sd=judged.sd if judged else None,
        low=winner.low if winner else None,
        high=winner.high if winner else None,
        gap=judged.gap if judged else None,
        not_told_apart=tuple(map(key_of, judged.not_told_apart)) if judged else (),
        beats_defaults=judged.beats_defaults if judged else None,
        defaults_mean=defaults.mean if defaults else None,
        test={name: tuple(values) for name, values in tested.scores.items()} if tested else {},
        test_examples=tested.examples if tested else 0,
        test_openings=sum(1 for one in history.test_results if one.scores),
        splits=_splits(study.spec.trainer.settings),
        study_seed=study.spec.seed,
        fresh_seeds=tuple(history.trial(number).seed for number in winner.runs) if winner else (),
        note=(tested.note if tested else "") if judged else why_optimistic(study),
    )


def _splits(settings: Mapping[str, Value]) -> dict[str, Value]:
    names = (*SPLIT, *SPLIT_OF.get(str(settings.get("dataset")), ()))
    return {name: settings[name] for name in names if settings.get(name) is not None}


def tags(found: Choice) -> dict[str, str]:
    """The same as tags of the registered model, each under a name of its own; what is not known is left out."""
    apart = ("params", "test", "splits", "epoch", "metric")
    plain = {name: value for name, value in dataclasses.asdict(found).items() if name not in apart}
    plain |= {f"test.{name}": values for name, values in found.test.items()}
    plain |= {f"split.{name}": value for name, value in found.splits.items()}
    return {f"hpo.choice.{name}": _text(value) for name, value in plain.items() if value not in (None, "", ())}


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return " ".join(map(_text, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)

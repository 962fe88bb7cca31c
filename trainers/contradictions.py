"""Which settings and ranges of the built-in trainers contradict each other, before any trial is started. Imports no torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from hpo.space import Categorical, Parameter
from trainers.recipe import Layers, Recipe, Source

Mistake = tuple[tuple[str, ...], str]
IMAGES = {"digits": (8, 10), "fashion-mnist": (28, 10), "mnist": (28, 10)}  # pixels of a side, classes
CLASSES = {"imdb": 2, "sst2": 2} | {name: classes for name, (_, classes) in IMAGES.items()}
VALUES = ("building", "flare", "hearta", "heartac")  # Proben1's problems whose targets are values
DISTORTIONS = ("shift", "rotation", "scaling", "flip")
DEFAULTS = {field.name: field.default for kind in (Source, Recipe, Layers) for field in dataclasses.fields(kind)} | {"blocks": 2}


@dataclasses.dataclass(frozen=True, slots=True)
class Asked:
    """What a spec asks of a trainer: fixed settings, searched parameters, and defaults for the rest."""

    trainer: str
    settings: Mapping[str, Any]
    space: Mapping[str, Parameter | None]

    def possible(self, name: str) -> tuple[Any, ...]:
        """The values that a trial may have: the fixed one, the choices, or both ends of a range."""
        match self.space.get(name):
            case None:
                return (self.settings.get(name, DEFAULTS[name]),)
            case Categorical(choices):
                return choices
            case parameter:
                return parameter.low, parameter.high

    def may(self, name: str, is_so: Callable[[Any], bool]) -> bool:
        return any(is_so(value) for value in self.possible(name) if value is not None)

    def place(self, name: str) -> tuple[str, ...]:
        return (
            ("space", name) if name in self.space else ("trainer", "settings", name) if name in self.settings else ("trainer", "settings")
        )

    @property
    def dataset(self) -> Any:
        return self.settings.get("dataset", DEFAULTS["dataset"])


def find(trainer: str, settings: Mapping[str, Any], space: Mapping[str, Parameter | None]) -> Iterator[Mistake]:
    """What some trial of the search could not be trained with, each with its place; the values by themselves are legal."""
    asked = Asked(trainer, settings, space)
    yield from _of_files(asked)
    yield from _of_images(asked)
    yield from _of_targets(asked)
    yield from _of_layers(asked)
    yield from _of_optimizers(asked)


def _of_files(asked: Asked) -> Iterator[Mistake]:
    if asked.dataset != "file":
        for name in ("path", "target"):
            if asked.settings.get(name) is not None:
                yield asked.place(name), f"is of a file of your own, and dataset is {asked.dataset}; set dataset: file, or leave it out"
        return
    for name in ("path", "target"):
        if asked.settings.get(name) is None:
            yield ("trainer", "settings"), f"dataset: file needs {name}, as in `path: my.csv, target: species`"
    val, test = (asked.settings.get(name, DEFAULTS[name]) for name in ("val_share", "test_share"))
    if val + test >= 1:
        yield (
            asked.place("val_share"),
            f"val_share {val:g} and test_share {test:g} leave nothing to train on; together they must be below 1",
        )


def _of_images(asked: Asked) -> Iterator[Mistake]:
    dataset = asked.dataset
    if dataset not in IMAGES:
        if asked.trainer == "convnet":
            yield asked.place("dataset"), f"convnet learns images, and {dataset} holds none; known are {', '.join(IMAGES)}"
        for name in DISTORTIONS:
            if asked.may(name, bool):
                yield asked.place(name), f"is for images, and {dataset} holds none; leave it out"
        return
    if dataset != "fashion-mnist" and asked.may("flip", bool):
        yield asked.place("flip"), f"the mirror image of a digit is none, and {dataset} holds digits; leave it out"
    most = IMAGES[dataset][0].bit_length() - 1
    if asked.trainer == "convnet" and asked.may("blocks", lambda blocks: blocks > most):
        yield asked.place("blocks"), f"{dataset} has {IMAGES[dataset][0]} pixels a side, which {most} blocks at most can halve"


def _of_targets(asked: Asked) -> Iterator[Mistake]:
    classes = CLASSES.get(asked.dataset)
    if classes and asked.may("label_smoothing", lambda share: share >= 1 - 1 / classes):
        limit = f"{1 - 1 / classes:g}"
        yield asked.place("label_smoothing"), f"from {limit} on, {classes} classes cannot be told apart any more; stay below {limit}"
    problem = str(asked.settings.get("problem", DEFAULTS["problem"]))
    if asked.dataset == "proben1" and problem[:-1] in VALUES and asked.may("loss", lambda loss: loss != "squared_error"):
        yield asked.place("loss"), f"the targets of {problem} are values, which cross_entropy cannot learn; set loss: squared_error"


def _of_layers(asked: Asked) -> Iterator[Mistake]:
    given = asked.settings.keys() | asked.space.keys()
    if "widths" in given:
        for name in sorted({"width", "depth"} & given):
            yield asked.place(name), "widths says the units of every layer, so this would change nothing; keep one of the two"
    if asked.trainer == "mlp" and asked.may("batch_size", lambda size: size == 1) and asked.may("batch_norm", bool):
        yield asked.place("batch_size"), "a batch of one example has no variance for batch_norm; 2 is the least"


def _of_optimizers(asked: Asked) -> Iterator[Mistake]:
    if asked.may("optimizer", lambda name: name == "rprop"):
        for name, is_used in (("schedule", lambda value: value != "constant"), ("warmup_epochs", bool)):
            if asked.may(name, is_used):
                yield asked.place(name), "rprop finds its own step sizes, so no schedule and no warm-up act on them; leave it out"
    if asked.may("optimizer", lambda name: name == "adamw") and asked.may("decay", lambda kind: kind == "coupled"):
        yield asked.place("decay"), "adamw is Adam with decoupled decay; for coupled decay take optimizer: adam"

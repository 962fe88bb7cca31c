"""What a peer is asked to do, as one JSON file, and the reports that it leaves. Standard library only."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

Params = dict[str, Any]


class Kind(StrEnum):
    """What is trained: a classifier of images, or of texts, or nothing at all."""

    IMAGES = "images"
    TEXTS = "texts"
    NOTHING = "nothing"


class Axis(NamedTuple):
    """The range of a hyperparameter, both bounds included."""

    low: float
    high: float
    log: bool
    whole: bool


class Report(NamedTuple):
    """One epoch of a trial, validation included: between which seconds since 1970 it ran, and the accuracy that it reached."""

    trial: str
    epoch: int
    began: float
    ended: float
    value: float
    width: int


@dataclass(frozen=True)
class Task:
    """One search: these configurations, each trained for at most `max_epochs`, as many at a time as there are `cores`.

    `examples` is an .npz with x, y, x_val and y_val (images: bytes), or with starts, indices, y and the same of `_val` (texts).
    `width` holds where it is not searched. `epochs` says how many each configuration gets, for a peer that prunes nothing.
    Files go to `home`, records to the MLflow server `tracking_uri` (None: SQLite in `home`).
    """

    kind: Kind
    home: str
    space: dict[str, Axis]
    configurations: list[Params]
    max_epochs: int
    cores: int
    examples: str = ""
    batch: int = 128
    width: int = 0
    seed: int = 0
    tracking_uri: str | None = None
    epochs: list[int] | None = None

    @classmethod
    def read(cls, path: str) -> Task:
        fields = json.loads(Path(path).read_text())
        space = {name: Axis(*axis) for name, axis in fields.pop("space").items()}
        return cls(**fields | {"kind": Kind(fields["kind"]), "space": space})

    def write(self) -> str:
        """The path of the file, in `home`."""
        path = Path(self.home) / "task.json"
        path.write_text(json.dumps(dataclasses.asdict(self)))
        return str(path)

    @property
    def tracking(self) -> str:
        """The address that MLflow is given."""
        return self.tracking_uri or f"sqlite:///{self.home}/mlflow.db"


def keep(task: Task, report: Report) -> None:
    """Append a report to the file of its trial: microseconds, in every peer alike."""
    folder = Path(task.home) / "reports"
    folder.mkdir(exist_ok=True)
    with (folder / report.trial).open("a") as file:
        file.write(json.dumps(report) + "\n")


def kept(home: str) -> tuple[Report, ...]:
    """The reports of a search, in the order in which the epochs ended."""
    lines = [line for file in (Path(home) / "reports").glob("*") for line in file.read_text().splitlines()]
    return tuple(sorted((Report(*json.loads(line)) for line in lines), key=lambda report: report.ended))

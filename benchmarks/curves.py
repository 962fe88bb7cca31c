"""Tables of recorded learning curves, and replaying a search on them: a configuration is answered by its nearest neighbour's curve.

Two formats are read, both NumPy's .npz. Ours (`benchmarks/curves/`, written by `benchmarks/record_curves.py`), one task a file:

    hp_names         [d]          names of the hyperparameters
    hp               [n, d]       float64, their values
    correct          [n, R]       uint16, validation examples that were right after each epoch; 65535: training had diverged
    val_loss         [n, R]       float32, NaN where training had diverged
    seconds          [n]          float32, median of an epoch, validation included, on the machine that recorded it
    repeat_of        [m]          int32, the rows that were trained again with another seed
    repeat_correct   [m, R]       as `correct`, of the second training
    repeat_val_loss  [m, R]       as `val_loss`
    about            JSON         spec, trainer, settings, train_size, val_size, space

The general one, any number of tasks over the same configurations:

    hp_names, hp     as above
    tasks            [t]          names (0, 1, ... without it)
    values           [t, n, R]    the metric after each epoch, NaN for a failed one; or `val_accuracy_x500`, percent times 500
    direction        text         maximize (the default) or minimize
    hp_low, hp_high, hp_log, hp_int   [d]   the ranges, which axes are logarithmic and which whole numbers

What the last four do not say is LCBench's range for a name that LCBench has, and otherwise guessed from the column: its ends,
whole if all of it is, logarithmic if it is positive and spans a factor of 100.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpo.space import Categorical, Float, Int, Parameter, Params, SearchSpace
from hpo.spec import spec_from_dict
from hpo.trial import Direction

Array = NDArray[np.float64]

OWN = Path(__file__).parent / "curves"
DIVERGED = 65535
LCBENCH: dict[str, Parameter] = {
    "batch_size": Int(16, 512, log=True),
    "learning_rate": Float(1e-4, 1e-1, log=True),
    "momentum": Float(0.1, 0.99),
    "weight_decay": Float(1e-5, 1e-1),
    "num_layers": Int(1, 5),
    "max_units": Int(64, 1024, log=True),
    "max_dropout": Float(0.0, 1.0),
}


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """One task: the curves of n configurations, in the direction's own sense.

    `unit` [n, d] are the configurations in the unit cube, `curves` [n, R] their values after epochs 1 to R, NaN or infinite
    where an epoch failed; `repeats` has the further curves of a row, and `seconds` [n] the length of its epochs.
    """

    task: str
    space: dict[str, Parameter]
    unit: Array
    curves: Array
    direction: Direction = Direction.MAXIMIZE
    repeats: Mapping[int, Sequence[Array]] = field(default_factory=dict)
    seconds: Array | None = None

    @property
    def max_epochs(self) -> int:
        """R: the epochs of a full training."""
        return int(self.curves.shape[1])

    def nearest(self, params: Params) -> int:
        """The row whose configuration is the nearest in the unit cube, the first of equals."""
        return int(np.argmin(((self.unit - unit_point(self.space, params)) ** 2).sum(axis=1)))

    def curve(self, params: Params, seed: int = 0) -> list[float]:
        """The values after epochs 1 to R of the nearest configuration; where it was trained repeatedly, the seed draws one."""
        row = self.nearest(params)
        runs = (self.curves[row], *self.repeats.get(row, ()))
        return list(map(float, runs[seed % len(runs)]))

    def epoch_seconds(self, params: Params) -> float:
        """What an epoch of the nearest configuration took; 1 where nobody measured it."""
        return 1.0 if self.seconds is None else float(self.seconds[self.nearest(params)])

    def params(self, row: int) -> Params:
        """The parameters of a row, whole numbers where the space has them."""
        return {name: _value(p, u) for (name, p), u in zip(self.space.items(), self.unit[row].tolist(), strict=True)}

    @property
    def best(self) -> float:
        """The best value of all epochs of all curves."""
        return self.direction.loss(float(self._losses().min()))

    @property
    def median(self) -> float:
        """The median over configurations of the value after R epochs; failures are the worst."""
        last = np.sort(self._losses()[: len(self.curves), -1])
        return self.direction.loss(float(last[(len(last) - 1) // 2]))

    def _losses(self) -> Array:
        """All curves [n + repeats, R] as losses, failed epochs infinite."""
        curves = np.vstack([self.curves, *(run for runs in self.repeats.values() for run in runs)])
        losses = -curves if self.direction is Direction.MAXIMIZE else curves
        return np.where(np.isfinite(losses), losses, np.inf)


@dataclass(frozen=True, slots=True)
class Scale:
    """A task's regret: 0 at the best known value, 1 at the median full training."""

    direction: Direction
    best: float
    median: float

    @classmethod
    def of(cls, table: Table) -> Scale:
        """The scale of a table. Raises ValueError where half of all full trainings fail, or are as good as the best."""
        best, median = table.best, table.median
        if not math.isfinite(median) or best == median:
            raise ValueError(f"{table.task}: best {best:g}, median full training {median:g}: no regret can be measured on this table")
        return cls(table.direction, best, median)

    def regret(self, value: float) -> float:
        """(best known - value) / (best known - median full training), at most 1, which is also that of no value (NaN)."""
        if not math.isfinite(value):
            return 1.0
        loss = self.direction.loss
        return min((loss(value) - loss(self.best)) / (loss(self.median) - loss(self.best)), 1.0)


def unit_point(space: SearchSpace, params: Params) -> Array:
    """The parameters in the unit cube [d]; what lies outside its range is at the range's end. Categories have no place there."""
    return np.array([_unit(parameter, float(params[name])) for name, parameter in space.items()])


def _unit(parameter: Parameter, value: float) -> float:
    if isinstance(parameter, Categorical):
        raise ValueError("a table of curves has no axis for a categorical parameter")
    low, high = float(parameter.low), float(parameter.high)
    if low == high:
        return 0.0
    value = min(max(value, low), high)
    return math.log(value / low) / math.log(high / low) if parameter.log else (value - low) / (high - low)


def _value(parameter: Parameter, u: float) -> float | int:
    assert not isinstance(parameter, Categorical)  # no table has one
    low, high = float(parameter.low), float(parameter.high)
    value = min(max(low * (high / low) ** u if parameter.log else low + u * (high - low), low), high)
    return round(value) if isinstance(parameter, Int) else value


def plain_space(space: SearchSpace) -> dict[str, dict[str, Any]]:
    """The space as a spec's own dict has it."""
    found: dict[str, dict[str, Any]] = {}
    for name, parameter in space.items():
        assert not isinstance(parameter, Categorical)  # no table has one
        found[name] = {"type": parameter.type, "low": parameter.low, "high": parameter.high}
        if parameter.log:
            found[name]["log"] = True
    return found


def load(path: str | Path) -> list[Table]:
    """The tasks of a file, in its order. Raises ValueError, naming the file, where it has neither format."""
    file = Path(path)
    with np.load(file, allow_pickle=False) as arrays:
        content = {key: arrays[key] for key in arrays.files}
    if "correct" in content:
        return [_own(file.stem, content)]
    if not {"hp", "hp_names"} <= content.keys() or not {"values", "val_accuracy_x500"} & content.keys():
        raise ValueError(f"{file}: found {', '.join(content)}; a table of curves has hp, hp_names and values (see benchmarks/curves.py)")
    return _general(content)


def _own(task: str, content: Mapping[str, Any]) -> Table:
    about = json.loads(str(content["about"]))
    outline = {
        "name": task,
        "trainer": {"name": "simulated"},
        "objective": {"metric": "m", "direction": "maximize"},
        "budget": {"trials": 1},
    }
    space = spec_from_dict({**outline, "space": about["space"]}).space
    repeats: dict[int, list[Array]] = {}
    for row, correct in zip(content["repeat_of"].tolist(), content["repeat_correct"], strict=True):
        repeats.setdefault(row, []).append(_accuracy(correct, about["val_size"]))
    curves = _accuracy(content["correct"], about["val_size"])
    seconds = content["seconds"].astype(np.float64)
    return Table(task, space, _unit_rows(space, content), curves, Direction.MAXIMIZE, repeats, seconds)


def _accuracy(correct: NDArray[np.uint16], examples: int) -> Array:
    return np.where(correct == DIVERGED, np.nan, correct / examples)


def _general(content: Mapping[str, Any]) -> list[Table]:
    values = content["values"].astype(np.float64) if "values" in content else content["val_accuracy_x500"] / 50_000
    space = {str(name): _range(i, str(name), content) for i, name in enumerate(content["hp_names"])}
    names = content.get("tasks", range(len(values)))
    direction = Direction(str(content.get("direction", "maximize")))
    unit = _unit_rows(space, content)
    return [Table(str(name), space, unit, curves, direction) for name, curves in zip(names, values, strict=True)]


def _unit_rows(space: SearchSpace, content: Mapping[str, Any]) -> Array:
    return np.array([unit_point(space, dict(zip(space, row, strict=True))) for row in content["hp"].tolist()])


def _range(i: int, name: str, content: Mapping[str, Any]) -> Parameter:
    column = content["hp"][:, i].astype(np.float64)
    if "hp_low" not in content and name in LCBENCH:
        return LCBENCH[name]
    low, high = (float(content[key][i]) if key in content else float(end(column)) for key, end in (("hp_low", np.min), ("hp_high", np.max)))
    log = bool(content["hp_log"][i]) if "hp_log" in content else low > 0 and high / low >= 100
    whole = bool(content["hp_int"][i]) if "hp_int" in content else bool((column == np.rint(column)).all())
    return Int(round(low), round(high), log=log) if whole else Float(low, high, log=log)

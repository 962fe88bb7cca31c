"""The simulated studies that are killed and cut: their specs, and what their trials measure."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from hpo.engine.assignment import Assignment
from hpo.spec import Spec, spec_from_dict
from hpo.trial import Measurement


@dataclass(frozen=True, slots=True)
class Plan:
    """A simulated study: its sampler, its size, its seed; `rule` is that of its rungs, where the sampler leaves a choice.

    With `finals` its best are trained again.
    """

    sampler: str = "random"
    trials: int = 6
    slots: int = 2
    seed: int = 0
    max_epochs: int = 9
    rule: str = "stop"
    finals: bool = False

    @property
    def spec(self) -> Spec:
        space: dict[str, Any] = {
            "x": {"type": "float", "low": 0.0, "high": 1.0},
            "y": {"type": "float", "low": 1e-4, "high": 1.0, "log": True},
        }
        if self.sampler != "cmaes":  # which searches no categorical parameter
            space["kind"] = {"type": "categorical", "choices": ["good", "too", "failing", "short"]}
        return spec_from_dict(
            {
                "name": "chaos",
                "trainer": {"name": "tests.chaos.trainers:steady", "settings": {"max_epochs": self.max_epochs}},
                "objective": {"metric": "value", "direction": "maximize"},
                "space": space,
                "sampler": {"name": self.sampler},
                "pruner": self._pruner,
                "stopper": {"name": "patience", "epochs": 3},
                "budget": {"trials": self.trials},
                "finals": {"top": 3, "seeds": 2} if self.finals else "none",
                "seed": self.seed,
                "tracking": {"uri": "http://127.0.0.1:1", "patience": "0.1s"},  # nobody there: MLflow is not what is tried
            }
        )

    @property
    def _pruner(self) -> dict[str, Any]:
        match self.sampler:
            case "gp" | "cmaes":
                return {"name": "none"}  # the trials that they learn most from end at their last epoch
            case "ladders":
                return {"name": "asha", "reduction_factor": 3}  # which always promotes
            case _:
                return {"name": "asha", "rule": self.rule, "reduction_factor": 3}


def curve(assignment: Assignment, epoch: int) -> Measurement:
    """A learning curve with noise of its seed's; that a trial fails or is short takes no time, and is told as a metric."""
    kind, x, y = (assignment.arguments.get(name) for name in ("kind", "x", "y"))
    assert isinstance(x, float)
    assert isinstance(y, float)
    if (kind, epoch) in (("failing", 3), ("short", 6)):
        return Measurement(epoch, 0.0, {str(kind): 1.0}, 0.0)
    noise = int.from_bytes(hashlib.blake2b(f"{assignment.seed}/{epoch}".encode(), digest_size=4).digest()) / 2**32
    value = 1 - (x - 0.3) ** 2 - y / epoch + 0.2 * noise
    return Measurement(epoch, value, {"value": value, "noise": noise}, 0.5 + x + noise)

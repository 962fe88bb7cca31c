"""What the end of a study would wait for while it is loaded, loaded before: in steps, when the shipper has nothing to send.

It takes three seconds, and memory until the end: 300 MiB, and 100 MiB for a process that can draw. So it begins when a part of the
study is over, and where there is a model to be registered; and no step is taken once the study has lasted `LONGEST_S`, by the last line
of its journal. How long it will last is not known here: a long one, too, whose part is over by then loads all this, and keeps it.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path

from hpo import places
from hpo.durations import seconds
from hpo.importing import uncollected
from hpo.mlflow_runs import STUDY, Run
from hpo.places import is_elsewhere
from hpo.projection import Projection
from hpo.storage import kept_in
from hpo.trial_files import trial_folder
from hpo.trust import Untrusted, of_storage, require

FEWEST = 3  # trials that came to something: by then all workers have started
SHARE = 0.25  # of the budget
LONGEST_S = 600.0  # after which the trials may have the memory, and the end its seconds


def _rehearse() -> None:
    from hpo.mlflow_pytorch import rehearse

    rehearse()


STEPS: Sequence[Callable[[], object]] = (
    *(partial(import_module, name) for name in ("torch", "torch._dynamo", "hpo.champion")),
    _rehearse,
)


class Ahead:
    """The steps that are left for the study in `folder`; `last` is the last of them."""

    def __init__(self, folder: Path, last: Callable[[], object]) -> None:
        self._folder, self._left = folder, [*STEPS, last]
        self._looked_for = ""  # the trial that had saved nothing

    def step(self, projection: Projection, now_ms: int) -> bool:
        """Take the next step, if the study is so far; whether one was taken. Raises nothing."""
        if not self._left or not is_due(projection, now_ms) or not self._has_model(projection):
            return False
        step = self._left.pop(0)
        try:
            with uncollected():
                step()
        except Exception:  # whatever a library raises when it is imported: it does so again where it is needed, and is heard there
            self._left = []
        gc.freeze()  # what is there now stays, and is never again looked through for garbage
        return True

    def _has_model(self, projection: Projection) -> bool:
        """Whether the best trial so far has saved something."""
        measured = [run for run in _standing(projection) if run.best is not None]
        best = min(measured, key=lambda run: projection.direction.loss(run.best.value if run.best else 0.0), default=None)
        if best is None or best.key == self._looked_for:
            return False
        root = kept_in(self._folder, projection.storage, projection.spec)
        try:
            require(of_storage(root), self._folder.name)
            found = any(name.startswith("best") for name in places.names(trial_folder(root, int(best.key))))
        except (OSError, Untrusted):  # said where it matters
            found = False
        if not found and is_elsewhere(root):
            self._looked_for = best.key  # one look at each is enough
        return found


def is_due(projection: Projection, now_ms: int) -> bool:
    """Whether enough trials came to something, and a part of the budget is spent, in a study that has not lasted long so far."""
    budget, standing = projection.spec.get("budget") or {}, _standing(projection)
    lasted_s = (now_ms - projection.runs[STUDY].started_ms) / 1000 if STUDY in projection.runs else 0.0
    spent = {"trials": len(standing), "epochs": sum(run.epochs for run in projection.trials), "time": lasted_s}
    limits = {name: seconds(limit) if name == "time" else limit for name in spent if (limit := budget.get(name))}
    is_part = any(spent[name] >= SHARE * limit for name, limit in limits.items())
    return len(standing) >= FEWEST and lasted_s < LONGEST_S and is_part


def _standing(projection: Projection) -> list[Run]:
    """The search's trials that ended or wait."""
    return [run for run in projection.trials if run.of_search and run.state != "running"]

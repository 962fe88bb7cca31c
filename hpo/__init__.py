"""Hyperparameter optimisation that loses nothing: a pure study decides, a journal remembers, Ray runs, MLflow shows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hpo.engine.simulate import simulate
    from hpo.problem import SpecError
    from hpo.results import StoredStudy
    from hpo.spec import load_spec

__all__ = ["SpecError", "StoredStudy", "launch", "load_spec", "open_study", "resume", "simulate"]

_HOMES = {"SpecError": "hpo.problem", "StoredStudy": "hpo.results", "load_spec": "hpo.spec", "simulate": "hpo.engine.simulate"}


def launch(path: str | Path, **options: Any) -> StoredStudy:
    """Run the search that the file describes and return the study: its `trials_dataframe()` and `best`.

    Options are those of `hpo launch`: name, overrides (a sequence of "a.b=c"), trials, time, epochs, trainer_override
    ("pkg.mod:function"), local. Raises SpecError with every mistake of the file.
    """
    from hpo.launching import launch_spec
    from hpo.spec import load_spec

    local = options.pop("local", False)
    return launch_spec(load_spec(path, **options), exactly=options.get("name") is not None, local=local)


def resume(name: str, *, trials: int | None = None, time: str | None = None, epochs: int | None = None, local: bool = False) -> StoredStudy:
    """Go on with the study of that name in the study home and return it.

    `trials`, `time` ("2h") and `epochs` are a new budget, in all.
    """
    from hpo.home import find, study_home
    from hpo.resuming import resume_study

    return resume_study(find(study_home(), name), trials=trials, time=time, epochs=epochs, local=local)


def open_study(name: str) -> StoredStudy:
    """The study of that name in the study home, running or over; hpo.home.HomeError if there is none."""
    from hpo.home import find, study_home
    from hpo.results import StoredStudy

    return StoredStudy.open(find(study_home(), name))


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'hpo' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)

"""A network as one of MLflow's models: exported without pickle, loaded again, tried. And `mlflow.pytorch` without Lightning."""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import mlflow.pyfunc
import numpy as np
import torch
from mlflow.exceptions import MlflowException
from mlflow.models import infer_signature

from hpo.importing import absent
from hpo.rebuilding import RebuildError

BATCHES = (1, 2, 512)
ROUNDING = 1e-4  # float32 sums in another order
FLAVOR = "mlflow.pytorch"
FOR_LIGHTNING = f"{FLAVOR}._lightning_autolog"  # which it imports wherever Lightning is installed: three seconds of work
CALLBACK = "MlflowModelCheckpointCallback"  # all that it takes from there


def log(network: torch.nn.Module, example: torch.Tensor, *, name: str, run_id: str, step: int, tags: Mapping[str, str]) -> Any:
    """Log the network with a run of the experiment that is set; what `mlflow.pytorch.log_model` returns.

    Raises RebuildError where the network can't be exported.
    """
    told = _told(network, example)
    try:
        # not validated by MLflow, which would load it once more: `try_out` asks more of it
        return flavor().log_model(network, name=name, tags=dict(tags), step=step, run_id=run_id, validate_serving_input=False, **told)
    except (MlflowException, OSError):
        raise
    except Exception as error:  # torch.export has a class of error for every kind of code it cannot trace
        raise RebuildError(f"the network could not be exported: {type(error).__name__}: {error}") from error


def try_out(model_uri: str, network: torch.nn.Module, example: torch.Tensor) -> None:
    """Load the model again: RebuildError unless it gives the network's outputs for batches of several sizes."""
    loaded = mlflow.pyfunc.load_model(model_uri)
    for rows in BATCHES:
        batch = example[torch.arange(rows) % len(example)]
        with torch.no_grad():
            expected = network(batch).numpy()
        try:
            found = loaded.predict(batch.numpy())
        except Exception as error:  # the exported program's own checks
            raise RebuildError(f"the exported network refuses a batch of {rows}: {type(error).__name__}: {error}") from error
        if not np.allclose(found, expected, rtol=ROUNDING, atol=ROUNDING):
            raise RebuildError(f"the exported network gives other outputs for a batch of {rows}")


def rehearse() -> None:
    """Export a small network into a folder that is removed, and try it: what the first model takes longer than others is done then."""
    network, example = torch.nn.Linear(2, 2).eval(), torch.zeros(2, 2)
    with TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        flavor().save_model(network, str(model), **_told(network, example))
        try_out(str(model), network, example)


def _told(network: torch.nn.Module, example: torch.Tensor) -> dict[str, Any]:
    """What MLflow is told of every network, so that it infers nothing."""
    try:
        with torch.no_grad():
            outputs = network(example).numpy()
        signature = infer_signature(example.numpy(), outputs)
    except Exception as error:  # the trainer's own code
        raise RebuildError(f"the network could not be built from its checkpoint: {type(error).__name__}: {error}") from error
    requirements = [f"{package}=={_release(package)}" for package in ("mlflow", "numpy", "torch")]
    return {
        "signature": signature,
        "input_example": example.numpy(),
        "pip_requirements": requirements,
        "serialization_format": "pt2",
    }


def _release(package: str) -> str:
    return importlib.metadata.version(package).partition("+")[0]


def flavor() -> ModuleType:
    """The module `mlflow.pytorch`; what it has for users of Lightning is imported when it is asked for."""
    if FLAVOR not in sys.modules:
        try:
            with absent(FOR_LIGHTNING):
                found = importlib.import_module(FLAVOR)
        except ImportError:  # a version of MLflow that does not do without
            return importlib.import_module(FLAVOR)
        vars(found).setdefault("__getattr__", _for_lightning)
    return sys.modules[FLAVOR]


def _for_lightning(name: str) -> Any:
    if name != CALLBACK:
        raise AttributeError(f"module {FLAVOR!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(FOR_LIGHTNING), name)
    except ImportError as error:  # no Lightning here
        raise AttributeError(f"module {FLAVOR!r} has no attribute {name!r}: {error}") from error

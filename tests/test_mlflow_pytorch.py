"""MLflow's models of torch come without Lightning, which stays importable for whoever needs it."""

from __future__ import annotations

import gc
import importlib
import json
import subprocess
import sys

import pytest

from hpo.importing import absent, uncollected
from tests.conftest import ROOT

NOT_LOADED = """
import sys, warnings
warnings.simplefilter("ignore")
from hpo import mlflow_pytorch
found = mlflow_pytorch.flavor()
mlflow_pytorch.rehearse()
print(*sorted({"lightning", "pytorch_lightning", "lightning_fabric", "torchmetrics"} & sys.modules.keys()), found.__name__)
"""
STILL_THERE = """
import sys, warnings
warnings.simplefilter("ignore")
from hpo import mlflow_pytorch
mlflow_pytorch.flavor()
import lightning
from mlflow.pytorch import MlflowModelCheckpointCallback
print(issubclass(MlflowModelCheckpointCallback, __import__("pytorch_lightning").Callback), hasattr(mlflow_pytorch.flavor(), "nothing"))
"""


def printed(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_model_is_exported_and_tried_without_lightning() -> None:
    assert printed(NOT_LOADED) == "mlflow.pytorch"


def test_lightning_and_what_mlflow_has_for_it_can_be_imported_afterwards() -> None:
    pytest.importorskip("lightning")
    assert printed(STILL_THERE) == "True False"


def test_what_is_absent_cannot_be_imported_inside_and_can_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    with absent("colorsys", "json"):
        assert importlib.import_module("json") is json  # which was there before
        with pytest.raises(ModuleNotFoundError, match="colorsys"):
            importlib.import_module("colorsys")
    assert importlib.import_module("colorsys").__name__ == "colorsys"


def test_garbage_is_collected_again_after_an_import_that_failed() -> None:
    def broken() -> None:
        with uncollected():
            assert not gc.isenabled()
            raise ImportError

    with pytest.raises(ImportError):
        broken()
    assert gc.isenabled()

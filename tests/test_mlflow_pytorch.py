"""MLflow's models of torch come without Lightning, which stays importable for whoever needs it."""

from __future__ import annotations

import gc
import importlib
import json
import subprocess
import sys
from pathlib import Path

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
OTHER = """
import sys, warnings
warnings.simplefilter("ignore")
from hpo import mlflow_pytorch
mlflow_pytorch.FLAVOR, mlflow_pytorch.FOR_LIGHTNING, mlflow_pytorch.CALLBACK = "other", "other.lightning", "Callback"
sys.path.append({path!r})
print(mlflow_pytorch.flavor().Callback, mlflow_pytorch.flavor().__name__)
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


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("try: from other.lightning import Callback\nexcept ImportError: pass", "theirs"),
        ("from other.lightning import Callback", "theirs"),  # and does not do without
        ("def __getattr__(name): return 'own ' + name", "own Callback"),
    ],
)
def test_other_versions_of_mlflow_are_imported_as_they_are(code: str, found: str, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "__init__.py").write_text(code)
    (tmp_path / "other" / "lightning.py").write_text("Callback = 'theirs'")
    assert printed(OTHER.format(path=str(tmp_path))) == f"{found} other"


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

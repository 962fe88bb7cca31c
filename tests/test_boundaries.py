"""Each library stays in its room."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TORCH = [
    "augmentation", "convnet", "datasets", "evaluation", "fused", "gradients", "loop", "losses", "module", "optimizers", "perceptron",
    "products", "regularisation", "replay", "seeds", "splits", "testing",
]  # fmt: skip
NUMPY = ["bags", "datasets", "decoded", "examples", "images", "phrases", "proben1", "table_files", "tables", "text"]  # the decoders
LADDERS = ["cube", "gp", "ladder_choice", "ladder_history", "ladder_model", "ladders", "optuna_ladders", "parzen"]
ROOMS = {
    "ray": {f"hpo/engine/ray_{name}.py" for name in ("cluster", "fitness", "jobs", "loop", "nodes", "sharing", "start", "tune", "worker")},
    "requests": {"hpo/engine/ray_jobs.py"},  # the client of Ray's jobs raises their errors
    "aiohttp": {"hpo/engine/ray_jobs.py"},
    "optuna": {"hpo/sampling/with_optuna.py", "hpo/sampling/optuna_ladders.py", "hpo/importance.py"},
    "matplotlib": {f"hpo/pictures/{name}.py" for name in ("against", "curves", "importance", "parallel", "picture", "progress", "style")}
    | {"hpo/pictures_of_contest.py"},
    "scikit_posthocs": {"hpo/significance.py"},
    "mlflow": {"hpo/store.py", "hpo/opening.py", "hpo/champion.py", "hpo/mlflow_pytorch.py", "hpo/mlflow_app.py", "hpo/mlflow_http.py"},
    "sqlalchemy": {"hpo/store.py"},  # MLflow's: its errors
    "torch": {"hpo/checkpoints.py", "hpo/mlflow_pytorch.py", "hpo/rebuilding.py", *(f"trainers/{name}.py" for name in TORCH)},
    "pydantic": {"hpo/schema.py"},
    "yaml": {"hpo/yaml_source.py"},
    "click": {f"hpo/cli/{name}.py" for name in ("__init__", "words", "search", "studies", "keeping", "machine", "compare", "node")}
    | {"hpo/cli/cluster.py", "hpo/cli/elsewhere.py"},
    "rich": {
        f"hpo/{name}.py"
        for name in (
            "show",
            "show_decisions",
            "show_report",
            "show_contest",
            "show_list",
            "progress",
            "cli/search",
            "cli/compare",
            "launching",
            "resuming",
            "running",
            "tournament_rounds",
            "fetch",
        )
    },
    "pandas": {"hpo/results.py", "trainers/table_files.py"},
    "pyarrow": {"trainers/table_files.py"},
    "snowballstemmer": {"trainers/text.py"},
    "numpy": {
        "hpo/effects.py",
        "hpo/mlflow_pytorch.py",
        "hpo/significance.py",
        *(f"hpo/sampling/{name}.py" for name in LADDERS),
        *(f"trainers/{name}.py" for name in NUMPY),
    },
    "scipy": {
        "hpo/effects.py",
        "hpo/significance.py",
        *(f"hpo/sampling/{name}.py" for name in ("simple", "gp", "ladder_choice", "ladder_history", "ladder_model")),
    },
    "sklearn": {"trainers/images.py"},
    "safetensors": {"hpo/checkpoints.py"},
    "obstore": {"hpo/objects.py"},
    "filelock": {"hpo/fetch.py", "trainers/decoded.py", "trainers/products.py"},
}
PURE = [
    "space", "trial", "events", "asha", "stopping", "standings", "rules", "estimates", "finals", "judging", "history", "study_with_finals",
    "study", "ranking",
]  # fmt: skip
STANDARD = ["bisect", "collections", "collections.abc", "dataclasses", "enum", "hashlib", "itertools", "math", "typing", "__future__"]
PURE_MAY_IMPORT = {f"hpo.{name}" for name in PURE} | set(STANDARD)


def imports(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"hpo.{alias.name}" for alias in node.names} if node.module == "hpo" else {node.module}
    return found


def libraries(file: Path) -> set[str]:
    return {name.partition(".")[0] for name in imports(file)}


def test_each_library_stays_in_its_room() -> None:
    files = [file for top in ("hpo", "trainers") for file in (ROOT / top).rglob("*.py")]
    assert len(files) > 40
    for file in files:
        name = str(file.relative_to(ROOT))
        for library in libraries(file) & ROOMS.keys():
            assert name in ROOMS[library], f"{name} imports {library}"


def test_no_room_is_listed_in_vain() -> None:
    for library, rooms in ROOMS.items():
        for room in rooms:
            assert library in libraries(ROOT / room), f"{room} does not import {library}"


@pytest.mark.parametrize("name", PURE)
def test_the_pure_core_imports_nothing_that_acts(name: str) -> None:
    assert imports(ROOT / "hpo" / f"{name}.py") <= PURE_MAY_IMPORT


def test_the_commands_load_no_specs_before_they_are_asked() -> None:
    """`hpo --help` would wait twice as long for pydantic."""
    code = "import sys, hpo.cli; print(*sorted({'pydantic', 'yaml', 'rich'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("module", ["hpo.cli", "hpo.spec", "hpo.plan", "hpo.results", "hpo.tracking"])
def test_a_light_module_loads_no_heavy_library(module: str) -> None:
    code = (
        f"import sys, {module}; print(*sorted({{'ray', 'torch', 'mlflow', 'optuna', 'pandas', 'numpy', 'matplotlib'}} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""

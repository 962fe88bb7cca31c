"""What runs bytes or text is banned, and each ban bites; what no linter knows is looked for in the code itself."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TOPS = ("hpo", "trainers", "benchmarks", "infra")
BANNED = [
    "import pickle", "from pickle import loads", "import _pickle", "import cPickle", "import cloudpickle", "import dill", "import joblib",
    "from joblib import load", "import jsonpickle", "import shelve", "import marshal", "from ray import cloudpickle",
    "import ray.cloudpickle", "import torch; torch.load('x')", "from torch import load", "import torch; torch.save(1, 'x')",
    "from torch import save", "import torch.package", "import torch; torch.hub.load('x', 'y')", "import torch; torch.jit.load('x')",
    "import torch; torch.jit.save(1, 'x')", "import pandas as pd; pd.read_pickle('x')", "from pandas import read_pickle",
    "import pandas as pd; pd.eval('1')", "import yaml; yaml.load('x', yaml.SafeLoader)", "import yaml; yaml.unsafe_load('x')",
    "import yaml; yaml.full_load('x')", "import yaml; yaml.load_all('x', yaml.SafeLoader)", "import yaml; yaml.Loader('x')",
    "import yaml; yaml.UnsafeLoader('x')", "from yaml import FullLoader", "eval('1')", "exec('1')",
    "import subprocess; subprocess.run('x', shell=True)", "import os; os.system('x')",
]  # fmt: skip


def test_each_ban_bites() -> None:
    snippets = "\n".join(BANNED) + "\n"
    command = [str(Path(sys.executable).with_name("ruff")), "check", "--stdin-filename", "hpo/snippet.py", "--output-format", "json", "-"]
    done = subprocess.run(command, input=snippets, capture_output=True, text=True, cwd=ROOT, check=False)
    bites = {"TID251", "S102", "S301", "S302", "S307", "S506", "S602", "S604", "S605"}
    bitten = {found["location"]["row"] for found in json.loads(done.stdout) if found["code"] in bites}
    assert [line for row, line in enumerate(BANNED, start=1) if row not in bitten] == []


def test_nothing_is_exempt_but_what_the_tests_run() -> None:
    """No `noqa` lets one of these in, in what is shipped."""
    found = [
        f"{file}:{number}"
        for top in TOPS
        for file in (ROOT / top).rglob("*.py")
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1)
        if "noqa" in line and any(code in line for code in ("S102", "S30", "S50", "S60", "TID251"))
    ]
    assert found == []


def trees() -> Iterator[tuple[str, ast.Module]]:
    for top in TOPS:
        for file in sorted((ROOT / top).rglob("*.py")):
            yield str(file.relative_to(ROOT)), ast.parse(file.read_text(encoding="utf-8"))


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def keyword(call: ast.Call, name: str) -> object:
    """The constant that an argument is given; None where it is not given, or is no constant."""
    return next((k.value.value for k in call.keywords if k.arg == name and isinstance(k.value, ast.Constant)), None)


def test_there_is_code_to_look_through() -> None:
    assert len(dict(trees())) > 150


def test_no_array_of_objects_is_read_or_written() -> None:
    for file, tree in trees():
        for name, call in calls(tree):
            given = [k for k in call.keywords if k.arg == "allow_pickle"]
            assert all(isinstance(k.value, ast.Constant) and k.value.value is False for k in given), file
            if name in ("np.load", "np.save", "np.lib.format.read_array") and file.startswith(("hpo", "trainers")):
                assert given, f"{file}:{call.lineno}: say allow_pickle=False"


@pytest.mark.parametrize("name", ["read_pickle", "to_pickle", "__reduce_ex__", "find_class", "Unpickler"])
def test_no_method_of_pickle_is_used(name: str) -> None:
    for file, tree in trees():
        used = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr == name]
        made = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == name]
        assert used + made == [], file


def test_no_tensors_are_read_as_objects() -> None:
    for file, tree in trees():
        for _, call in calls(tree):
            assert keyword(call, "weights_only") is not False, file


# Who imports by a name that is not in the code itself, and whose name that is
IMPORTING = {
    "hpo/__init__.py": "a module of ours, by the name of what is asked of it",
    "hpo/declarations.py": "a trainer's own check",
    "hpo/doctor.py": "libraries, listed there",
    "hpo/drawing.py": "modules of ours, listed there",
    "hpo/engine/worker.py": "the trainer",
    "hpo/mlflow_pytorch.py": "a part of MLflow, named there",
    "hpo/rebuilding.py": "the trainer",
    "trainers/datasets.py": "decoders, listed there",
    "benchmarks/reproductions/joint.py": "a built-in trainer",
}
# Who changes where modules are looked for
LOOKING = {"hpo/own_code.py", "hpo/engine/ray_worker.py", "hpo/engine/tester.py"}


def files_with(is_one: Callable[[str, ast.Call], bool]) -> set[str]:
    return {file for file, tree in trees() for name, call in calls(tree) if is_one(name, call)}


def test_who_imports_by_name_is_known() -> None:
    found = files_with(lambda name, call: name.endswith(("import_module", "__import__")) and not isinstance(call.args[0], ast.Constant))
    assert found == {*IMPORTING}, "who else imports what a text says? say so here"


def test_who_looks_elsewhere_for_modules_is_known() -> None:
    changed = ("sys.path.append", "sys.path.extend", "sys.path.insert", "site.addsitedir", "sys.path.remove")
    assert files_with(lambda name, _: name in changed) == LOOKING


def test_every_python_that_is_started_leaves_the_current_folder_out() -> None:
    """`python -m` and `-c` import from there first, unless -P says not to, or -I, which says more."""
    for file, tree in trees():
        for node in ast.walk(tree):
            if file.startswith("hpo") and isinstance(node, ast.List) and node.elts and ast.unparse(node.elts[0]) == "sys.executable":
                assert ast.unparse(node.elts[1]) in ("'-P'", "'-I'"), f"{file}:{node.lineno}"

"""`hpo validate` and `hpo plan` read a spec as data: an audit hook sees every file of which code runs, and none is a user's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.canaries import Canaries
from tests.conftest import ROOT

SPEC = """
name: a
trainer: {name: TRAINER, settings: {max_epochs: 4}}
objective: {metric: value, direction: maximize}
space: {x: {type: float, low: 0, high: 1}}
start: [{x: 0.5}]
budget: {trials: 3}
resources: {gpus: 0}
"""
DECLARED = """
plugged:
  check: plug.checks:check
  summary: somebody else's
  metrics: {value: maximize}
  hyperparameters: {x: {type: float, low: 0, high: 1, default: 0.5, summary: it}}
  settings: {max_epochs: {type: int, low: 1, default: 4, summary: epochs}}
"""
CHECKS = """
def check(name, settings, space):
    yield ("settings", "max_epochs"), "no such luck"
"""
TRAINER = """
def train(trial, *, x: float = 0.5):
    yield {"value": x}
"""
# `hpo WORDS`, which then prints of which files code ran, and which modules were asked for
HEARD = """
import json, sys
ran, imported = set(), set()
def hear(event, arguments):
    if event == "exec" and hasattr(arguments[0], "co_filename"):
        ran.add(arguments[0].co_filename)
    elif event == "import":
        imported.add(arguments[0])
sys.addaudithook(hear)
code = 0
try:
    from hpo.cli import main
    main()
except SystemExit as end:
    code = end.code or 0
print(json.dumps({"code": code, "ran": sorted(ran), "imported": sorted(imported)}), file=sys.stderr)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Canaries]:
    """A user's folder: modules of his own, a plug-in that is installed, one that is broken."""
    folder = tmp_path_factory.mktemp("user")
    canaries = Canaries(folder / "song")
    (here := folder / "here").mkdir()
    canaries.plant_modules(here)
    (installed := folder / "installed").mkdir()
    (package := installed / "plug").mkdir()
    (package / "__init__.py").write_text(canaries.code("plug") + "\n")
    (package / "hpo_trainers.yaml").write_text(DECLARED)
    (package / "checks.py").write_text(canaries.code("checks") + CHECKS)
    (package / "training.py").write_text(canaries.code("training") + TRAINER)
    (installed / "my_code.py").write_text(canaries.code("my_code") + TRAINER)
    (info := installed / "plug-1.0.dist-info").mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plug\nVersion: 1.0\n")
    points = "[hpo.trainers]\nplugged = plug.training:train\nbroken = plug.nowhere:train\nevil = evil_module:train\n"
    (info / "entry_points.txt").write_text(points)
    for name in ("plugged", "mlp", "my_code:train"):
        (here / f"{name.partition(':')[0]}.yaml").write_text(SPEC.replace("TRAINER", name))
    return folder, canaries


def heard(place: tuple[Path, Canaries], *words: str) -> dict[str, object]:
    folder, _ = place
    env = os.environ | {"PYTHONPATH": str(folder / "installed"), "HPO_HOME": str(folder / "runs"), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-P", "-c", HEARD, *words]
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=folder / "here", check=False)
    found: dict[str, object] = json.loads(done.stderr.splitlines()[-1])
    return found | {"said": done.stdout + done.stderr}


def strangers(found: dict[str, object]) -> list[str]:
    """The files of which code ran that are neither Python's, nor a library's, nor ours."""
    known = [
        sysconfig.get_path("stdlib"),
        sysconfig.get_path("purelib"),
        sysconfig.get_path("platlib"),
        str(ROOT / "hpo"),
        str(ROOT / "trainers"),
    ]
    roots = tuple(f"{path}{os.sep}" for path in known)
    ran = found["ran"]
    assert isinstance(ran, list)
    assert len(ran) > 30
    return [file for file in ran if not file.startswith(("<", *roots))]


@pytest.mark.parametrize(
    "words",
    [
        ["validate", "plugged.yaml"],
        ["validate", "plugged.yaml", "--json"],
        ["validate", "mlp.yaml"],
        ["validate", "my_code.yaml"],
        ["validate", "my_code.yaml", "--trainer", "my_code:train"],
        ["validate", "mlp.yaml", "--trainer", "evil_module:train"],
        ["validate", "mlp.yaml", "--trainer", "nowhere.at.all:train"],
        ["plan", "plugged.yaml"],
        ["plan", "plugged.yaml", "--simulate"],
        ["plan", "mlp.yaml"],
        ["plan", "my_code.yaml"],
        ["plan", "my_code.yaml", "--trainer", "my_code:train", "--simulate"],
        ["trainers"],
    ],
    ids=" ".join,
)
def test_what_is_read_is_data(words: list[str], place: tuple[Path, Canaries]) -> None:
    found = heard(place, *words)
    assert strangers(found) == []
    assert place[1].sung == []
    assert found["code"] in (0, 2), found["said"]
    if words[0] == "validate":
        assert not {"torch", "ray", "mlflow", "optuna", "pandas", "plug", "my_code", "evil_module"} & set(found["imported"])  # type: ignore[call-overload]


def test_the_plug_in_is_found_by_what_it_declares(place: tuple[Path, Canaries]) -> None:
    assert heard(place, "validate", "plugged.yaml")["code"] == 0
    said = heard(place, "trainers")["said"]
    assert isinstance(said, str)
    assert "somebody else's" in said
    assert "declares no trainer 'broken'" in said


def test_its_check_is_code_and_asked_at_the_launch(place: tuple[Path, Canaries]) -> None:
    """So this test can fail: what is planted there runs where it may."""
    found = heard(place, "launch", "plugged.yaml", "--local")
    assert (found["code"], "no such luck" in str(found["said"])) == (2, True)
    assert place[1].sung == ["plug", "checks"]


def test_code_that_the_user_names_is_read_where_the_plan_needs_its_defaults(place: tuple[Path, Canaries]) -> None:
    words = ["plan", "my_code.yaml", "--trainer", "my_code:train", "--set", "start=[defaults]"]
    assert heard(place, *words)["code"] == 0
    assert place[1].sung == ["my_code"]

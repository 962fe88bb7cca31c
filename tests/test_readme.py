"""What README shows works as it stands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, run_hpo

README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def test_the_trainer_of_the_readme_runs_and_its_model_is_registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = next(block for block in blocks("python") if "def train(" in block)
    spec = next(block for block in blocks("yaml") if block.startswith("name: mine"))
    (tmp_path / "my_code.py").write_text(code)
    (tmp_path / "mine.yaml").write_text(spec)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    done = run_hpo(
        tmp_path / "runs", "launch", str(tmp_path / "mine.yaml"), "--trainer", "my_code:train", "--trials", "3", "--local", "--json"
    )
    assert done.code == 0, done.err
    assert done.json["best"]["value"] > 0.5
    assert done.json["best"]["model_uri"] == "models:/mine/1"


def test_the_spec_of_the_readme_is_valid_and_that_of_the_main_job(tmp_path: Path) -> None:
    spec = next(block for block in blocks("yaml") if block.startswith("name: fashion"))
    (tmp_path / "readme.yaml").write_text(spec)
    shown = run_hpo(tmp_path, "validate", str(tmp_path / "readme.yaml"), "--json").json["spec"]
    assert shown == run_hpo(tmp_path, "validate", str(ROOT / "search_spaces" / "fashion.yaml"), "--json").json["spec"]


def test_the_messages_of_the_readme_are_those_that_are_printed(tmp_path: Path) -> None:
    text = (ROOT / "search_spaces" / "fashion.yaml").read_text(encoding="utf-8")
    bad = tmp_path / "my.yaml"
    bad.write_text(text.replace("depth: 2", "depht: 2").replace("low: 1e-4,", "low: 0,   "), encoding="utf-8")
    printed = run_hpo(tmp_path, "validate", str(bad)).err.replace(f"{tmp_path}/", "")
    assert printed == README.partition("$ hpo validate my.yaml\n")[2].partition("```")[0]


def test_the_python_of_the_readme_works(tmp_path: Path) -> None:
    code = next(block for block in blocks("python") if block.startswith("import hpo") and "hpo.launch" in block)
    names = re.findall(r"study\.([a-z_]+)|hpo\.([a-z_]+)", code)
    import hpo
    from hpo.results import StoredStudy

    assert {a or b for a, b in names} == {"launch", "best", "trials_dataframe", "open_study", "resume"}
    for method, function in names:
        assert hasattr(StoredStudy, method) if method else callable(getattr(hpo, function))


def test_the_simulation_of_the_readme_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    code = next(block for block in blocks("python") if "hpo.simulate" in block)
    names: dict[str, Any] = {}
    exec(code, names)
    assert names["study"].epochs == 1350
    assert names["study"].trials[0].measurements[-1].at >= 1

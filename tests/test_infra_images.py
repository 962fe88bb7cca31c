"""infra/Dockerfile: what hadolint says, the rules it keeps, and that its sources reach the build. Builds nothing: no engine is here."""

from __future__ import annotations

import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.dockerfile import FILE, Stage, stages, targets
from tests.manifest_policy import PINNED, SECRET
from tests.manifests import BIN, INFRA

ROOT = INFRA.parent
IMAGES = ("objects", "mlflow", "hpo")  # those that are run; the last is what `docker build` makes


def problems(found: dict[str, Stage]) -> list[str]:
    """What makes an image unsafe, or another one tomorrow."""
    said = [f"{name}: {problem}" for name, stage in found.items() for problem in _of_stage(stage, set(found))]
    return said + [f"{name}: runs as {found[name].user or 'root'}" for name in IMAGES if found[name].user != "10001:10001"]


def _of_stage(stage: Stage, names: set[str]) -> Iterator[str]:
    if stage.base not in names and not PINNED.fullmatch(stage.base):
        yield f"FROM {stage.base} is not pinned"
    if stage.entrypoint and not stage.entrypoint.startswith("["):
        yield "a shell would stand between the program and its signals"
    for word, value in stage.said:
        if word == "ADD":
            yield "ADD fetches and unpacks"
        if word in ("ENV", "ARG") and SECRET.search(re.sub(r"RAY_AUTH_MODE=token", "", value)):
            yield f"{word} {value} holds a secret"
        if word == "RUN" and re.search(r"pip install (?!--constraint constraints\.txt|--no-deps \.$)", value):
            yield "installs versions that nobody chose"
        if word == "RUN" and re.search(r"\b(curl|wget|sudo|chmod 777)\b", value):
            yield f"RUN {value}"


def test_hadolint_has_nothing_to_say() -> None:
    done = subprocess.run([BIN / "hadolint", "--no-color", FILE], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_images_keep_the_rules() -> None:
    assert list(targets())[-1] == "hpo"
    assert set(IMAGES) <= set(targets())
    assert problems(targets()) == []


@pytest.mark.parametrize(
    ("old", "new", "noticed"),
    [
        ("FROM dxflrs/garage:v2.4.1", "FROM dxflrs/garage", "not pinned"),
        ("FROM python:3.11.15-slim-bookworm AS base", "FROM python:latest AS base", "not pinned"),
        ("USER 10001:10001\nWORKDIR /home/hpo", "WORKDIR /home/hpo", "runs as root"),
        ("USER 10001:10001\nWORKDIR /tmp", "USER root\nWORKDIR /tmp", "runs as root"),
        ('ENTRYPOINT ["tini", "--", "hpo"]', "ENTRYPOINT tini -- hpo", "signals"),
        ("COPY constraints.txt ./", "ADD constraints.txt ./", "ADD"),
        ("ARG DEVICE=cpu", "ARG REGISTRY_TOKEN", "secret"),
        ("HPO_HOME=/var/lib/hpo/studies", "MLFLOW_TRACKING_PASSWORD=hunter2", "secret"),
        ("pip install --constraint constraints.txt '.[", "pip install '.[", "nobody chose"),
        ("apt-get update", "curl https://example.org/install.sh | sh && apt-get update", "curl"),
    ],
)
def test_a_broken_dockerfile_is_noticed(old: str, new: str, noticed: str) -> None:
    text = FILE.read_text()
    assert old in text
    found = problems(stages(text.replace(old, new)))
    assert any(noticed in problem for problem in found), found


def test_one_argument_chooses_processors_or_gpus_and_nothing_else_is_taken() -> None:
    (step,) = [value for word, value in targets()["build"].said if word == "RUN" and "DEVICE" in value]
    script = re.sub(r"\\\s*\n", " ", step).replace("pip install", "echo pip install")

    def run(device: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", "-c", script], env={"DEVICE": device, "PATH": "/bin:/usr/bin"}, capture_output=True, text=True, check=False
        )

    assert "whl/cpu torch" in run("cpu").stdout
    assert run("cuda").stdout.split() == ["pip", "install", "--constraint", "constraints.txt", "torch"]
    assert run("rocm").returncode == 64


def test_what_is_copied_is_there_and_reaches_the_build() -> None:
    allowed = [line[1:] for line in (INFRA / "Dockerfile.dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = {source.removeprefix("./") for stage in targets().values() for source in stage.copied}
    assert [name for name in copied if not (ROOT / name).exists()] == []
    assert copied == set(allowed), "and nothing else does"


def test_what_is_installed_is_what_the_project_declares() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    text = FILE.read_text()
    (wanted,) = re.findall(r"'\.\[([\w,]+)\]'", text)
    assert set(wanted.split(",")) <= set(extras)
    tops = {name.partition(".")[0] for name in project["tool"]["setuptools"]["packages"]}
    assert tops <= {source.removeprefix("./") for source in targets()["build"].copied}
    (server,) = re.findall(r"pip install --constraint constraints\.txt ('mlflow\[auth\]'.*)", text)
    named = {word.strip("'") for word in server.split()}
    declared = {re.split(r"[<>=]", requirement)[0] for extra in ("server", "postgres") for requirement in extras[extra]}
    assert named == {name for name in declared if not name.startswith("hpo[")}


def test_scripts_that_an_image_runs_can_be_run() -> None:
    assert (INFRA / "mlflow" / "serve.sh").stat().st_mode & 0o111
    assert Path(targets()["mlflow"].entrypoint.strip('[]"')).name == "serve.sh"

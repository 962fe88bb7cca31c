"""infra/Dockerfile taken apart: its stages, and what each of them says of its user, its health and what it copies."""

from __future__ import annotations

import io
import shlex
from dataclasses import dataclass, field
from functools import cache

from dockerfile_parse import DockerfileParser

from tests.manifests import INFRA

FILE = INFRA / "Dockerfile"


@dataclass(slots=True)
class Stage:
    """What one FROM begins. `copied` are sources in the build context, as they are written."""

    base: str
    user: str = ""
    entrypoint: str = ""
    has_healthcheck: bool = False
    copied: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    said: list[tuple[str, str]] = field(default_factory=list)


def stages(text: str) -> dict[str, Stage]:
    """Stages by name, in order; a stage that is built on another takes its user, environment and health check from it."""
    found: dict[str, Stage] = {}
    stage = Stage("")
    for step in DockerfileParser(fileobj=io.BytesIO(text.encode())).structure:
        word, value = step["instruction"], step["value"]
        if word == "FROM":
            base, _, name = value.split()
            before = found.get(base, Stage(""))
            stage = found[name] = Stage(base, before.user, before.entrypoint, before.has_healthcheck, environment=dict(before.environment))
        elif word == "USER":
            stage.user = value
        elif word == "ENTRYPOINT":
            stage.entrypoint = value
        elif word == "HEALTHCHECK":
            stage.has_healthcheck = value != "NONE"
        elif word == "ENV":
            stage.environment |= dict(part.split("=", 1) for part in shlex.split(value))
        elif word in ("COPY", "ADD") and "--from=" not in value:
            stage.copied += [part for part in shlex.split(value)[:-1] if not part.startswith("--")]
        if word != "COMMENT":
            stage.said.append((word, value))
    return found


@cache
def targets() -> dict[str, Stage]:
    """The stages of infra/Dockerfile."""
    return stages(FILE.read_text())

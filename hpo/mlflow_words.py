"""Names and texts as MLflow keeps them, and a spec as its parameters. Pure: no mlflow."""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterator, Mapping
from typing import Any

LONGEST_TEXT = 5000
LONGEST_NAME = 250


def text(value: object) -> str:
    """A parameter or tag as MLflow keeps it: as text, not longer than any server takes, without what PostgreSQL has no place for."""
    return str(value)[:LONGEST_TEXT].replace("\0", "\ufffd").encode(errors="replace").decode()


def safe_name(name: str) -> str:
    """`name` with what MLflow refuses in names replaced by `_`."""
    name = re.sub(r"[^\w\-. /]", "_", name, flags=re.ASCII)[:LONGEST_NAME]
    return name if posixpath.normpath(name) == name and name[0] not in "/." else re.sub(r"^\.+|/", "_", name) or "_"


def model_name(run: str) -> str:
    """What a run's model is called, of whose name MLflow refuses more than of a run's."""
    return re.sub(r"[/:.%\"']", "_", run)


def sections(spec: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """A spec's two upper levels as parameters; what is deeper is JSON, so that a space has one parameter for each of its own."""
    for section, content in spec.items():
        for name, value in content.items() if isinstance(content, Mapping) else [("", content)]:
            key = f"{section}.{name}" if name else section
            yield safe_name(key), text(json.dumps(value) if isinstance(value, list | Mapping) else value)

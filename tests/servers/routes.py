"""Prints every route of the server that serve.sh starts, found in its applications and in no list: JSON, run in its environment."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from typing import Any

FILLED = "7"  # in the place of what is variable in a path


def routes() -> Iterator[tuple[str, str]]:
    """Method and path of each: FastAPI's own, and those of the Flask application behind it."""
    os.environ["_MLFLOW_SGI_NAME"] = "uvicorn"  # as `mlflow server` does, so that the whole of the application is made
    from fastapi.openapi.utils import get_openapi
    from mlflow.server import app as flask
    from mlflow.server.auth import create_app

    for path, methods in get_openapi(title="", version="", routes=create_app().routes)["paths"].items():
        for method in methods:
            yield method.upper(), re.sub(r"{[^}]*}", FILLED, path)
    rule: Any
    for rule in flask.url_map.iter_rules():
        for method in rule.methods:
            yield method, re.sub(r"<[^>]*>", FILLED, rule.rule)


if __name__ == "__main__":
    print(json.dumps(sorted(set(routes()))))

"""Makes the secrets of compose.yaml and kubernetes/ from random bytes; it only writes them out, and never replaces any.

    python3 infra/new_secrets.py compose                              writes infra/.env, for you alone; refuses if it is there
    python3 infra/new_secrets.py kubernetes | kubectl create -f -     create refuses what is there

Needs nothing but Python.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
from collections.abc import Callable
from pathlib import Path

NAMESPACE = "hpo"


def _random() -> str:
    return secrets.token_hex(32)


def _access_key() -> str:
    return f"GK{secrets.token_hex(12)}"  # the form that Garage demands


COMPOSE: dict[str, Callable[[], str]] = {
    "POSTGRES_PASSWORD": _random,
    "MLFLOW_ADMIN_PASSWORD": _random,
    "MLFLOW_SERVER_SECRET_KEY": _random,
    "OBJECTS_ACCESS_KEY": _access_key,
    "OBJECTS_SECRET_KEY": _random,
    "OBJECTS_RPC_SECRET": _random,
}
KUBERNETES: dict[str, dict[str, Callable[[], str]]] = {
    "hpo-ray": {"auth_token": _random},  # the key's name is KubeRay's
    "hpo-postgres": {"password": _random},
    "hpo-objects": {"access-key": _access_key, "secret-key": _random, "rpc-secret": _random},
    "hpo-mlflow": {"admin-password": _random, "server-secret-key": _random},
    "hpo-mlflow-user": {"username": lambda: "hpo", "password": _random},
}


def environment_file() -> str:
    """The text of a .env file with all that compose.yaml asks for."""
    return "".join(f"{name}={make()}\n" for name, make in COMPOSE.items())


def manifests() -> str:
    """All Secrets that the manifests of kubernetes/ name, as one JSON document."""
    items = [
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"app.kubernetes.io/part-of": "hpo"}},
            "type": "Opaque",
            "stringData": {key: make() for key, make in keys.items()},
        }
        for name, keys in KUBERNETES.items()
    ]
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": items}, indent=2)


def main(words: list[str]) -> int:
    """Exit code 0; 64 for a wrong use, 73 where there is an .env already."""
    match words:
        case ["kubernetes"]:
            print(manifests())
        case ["compose"]:
            path = Path(__file__).with_name(".env")
            try:
                with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                    file.write(environment_file())
            except FileExistsError:
                print(f"{path} is there already, and what runs may depend on it; remove it first if you mean it", file=sys.stderr)
                return 73
            print(f"{path} written")
        case _:
            print(__doc__, file=sys.stderr)
            return 64
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

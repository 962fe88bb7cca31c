"""Makes a user of the MLflow server that serve.sh starts, or gives one a new password. Run it where MLflow is installed.

As the administrator whose name and password are in MLFLOW_AUTH_ADMIN_USERNAME (admin) and MLFLOW_AUTH_ADMIN_PASSWORD, as in the
server's own container:

    python user.py alice                              makes up a password and prints it, once
    python user.py hpo --password-file FILE --server http://mlflow:5000

Whoever is made here sees nothing of others' until they say so, and owns the experiments and models that they make.
"""

from __future__ import annotations

import argparse
import os
import secrets
import sys
from pathlib import Path

import requests  # and not MLflow's own client, which brings the whole server along: ten seconds


def give(server: str, administrator: tuple[str, str], name: str, password: str) -> str:
    """Have `name` be a user with this password; says which it was: made or changed. requests' errors where the server refuses."""
    users, user = f"{server.rstrip('/')}/api/2.0/mlflow/users", {"username": name, "password": password}
    made = requests.post(f"{users}/create", json=user, auth=administrator, timeout=30)
    if "RESOURCE_ALREADY_EXISTS" not in made.text:
        made.raise_for_status()
        return "made"
    requests.patch(f"{users}/update-password", json=user, auth=administrator, timeout=30).raise_for_status()
    return "changed"


def main(words: list[str]) -> int:
    """Exit code 0; 69 if the server does not answer or refuses, 78 without the administrator's password."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("--password-file", type=Path)
    parser.add_argument("--server", default="http://127.0.0.1:5000")
    chosen = parser.parse_args(words)
    if not os.environ.get("MLFLOW_AUTH_ADMIN_PASSWORD"):
        print("user.py: MLFLOW_AUTH_ADMIN_PASSWORD is not set: the administrator's password", file=sys.stderr)
        return 78
    administrator = os.environ.get("MLFLOW_AUTH_ADMIN_USERNAME") or "admin", os.environ["MLFLOW_AUTH_ADMIN_PASSWORD"]
    password = chosen.password_file.read_text().strip() if chosen.password_file else secrets.token_urlsafe(18)
    try:
        done = give(chosen.server, administrator, chosen.name, password)
    except requests.RequestException as refused:
        print(f"user.py: {refused}", file=sys.stderr)
        return 69
    print(f"{chosen.name}: {done}" + ("" if chosen.password_file else f", password {password}"))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""MLflow for several people over PostgreSQL on one host, as infra/mlflow starts it: run there, until the host ends.

    python -m tests.cluster.guarded FOLDER ADDRESS

Writes `FOLDER/client.json` when it answers: the environment of a client, and where PostgreSQL lies.
"""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

from tests.chaos.mlflow_scene import until
from tests.servers.mlflow_server import GuardedServer
from tests.servers.postgres import Postgres


def main() -> None:
    """Serve."""
    folder, address = Path(sys.argv[1]), sys.argv[2]
    postgres = Postgres()
    postgres.create("mlflow")
    server = GuardedServer(folder, postgres, "mlflow")
    names = f"127.0.0.1:{server.port},{address}:{server.port}"
    process = server.begin(**server.environment() | {"MLFLOW_HOST": "0.0.0.0", "MLFLOW_SERVER_ALLOWED_HOSTS": names})
    until(server.is_healthy, f"MLflow to answer; see {server.log}")
    client = server.client() | {"MLFLOW_TRACKING_URI": f"http://{address}:{server.port}"}
    written = folder / "client.new"
    written.write_text(json.dumps({"client": client, "postgres": str(postgres.folder)}))
    written.rename(folder / "client.json")
    process.wait()
    signal.pause()


if __name__ == "__main__":
    main()

"""An object store that speaks S3 over HTTP, in a process of its own: moto, and a record of what was asked of it.

Not S3 itself: it has no latency but what it is told, and takes any key.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hpo import objects
from hpo.objects import ObjectPath
from tests.conftest import ROOT

BUCKET = "studies"
KEYS = {"AWS_ACCESS_KEY_ID": "AKIATESTTESTTEST", "AWS_SECRET_ACCESS_KEY": "s3cr3t/of+nobody", "AWS_REGION": "us-east-1"}


class Store:
    """A running store with an empty bucket: its `environment`, and what was `asked` of it, a method and a key a line."""

    def __init__(self, port: int, log: Path) -> None:
        self.port, self._log = port, log
        self.environment = {**KEYS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}
        self.uri = f"s3://{BUCKET}"

    def asked(self) -> list[str]:
        return self._log.read_text().splitlines()

    @contextmanager
    def counted(self) -> Iterator[Counter[str]]:
        """How many requests of each kind were made inside."""
        before, found = len(self.asked()), Counter[str]()
        yield found
        found.update(_kind(line) for line in self.asked()[before:])

    def keys(self, below: str = "") -> list[str]:
        """The keys of all objects, in order."""
        return [path.key for path in objects.below(ObjectPath(self.uri + below))]


def _kind(line: str) -> str:
    method, key, query = line.split("\t")
    if method == "GET":
        return "list" if "list-type" in query else "get"
    if method == "POST":
        return "delete" if "delete" in query else "part"
    return {"PUT": "copy" if key.startswith("copy:") else "put", "HEAD": "head"}.get(method, method.lower())


@contextmanager
def running(folder: Path, delay_s: float = 0.0) -> Iterator[Store]:
    """A store that answers each request after `delay_s`; it ends with the context, and this process reaches it meanwhile."""
    log = folder / "asked.log"
    log.touch()
    command = [sys.executable, "-m", "tests.object_store", str(log), str(delay_s)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        store = Store(int(process.stdout.readline()), log)
        request = urllib.request.Request(f"{store.environment['AWS_ENDPOINT_URL']}/{BUCKET}", method="PUT")
        urllib.request.urlopen(request).close()
        with reached(store.environment):
            yield store
    finally:
        process.kill()
        process.communicate()


@contextmanager
def reached(environment: dict[str, str]) -> Iterator[None]:
    """This process reaches the store of that environment."""
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    objects._opened.cache_clear()
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        objects._opened.cache_clear()


def main() -> None:
    """Serve until killed; the port goes to stdout, each request to the log."""
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    log, delay_s = Path(sys.argv[1]), float(sys.argv[2])
    served = DomainDispatcherApplication(create_backend_app)

    class Silent(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"

        def log(self, type: str, message: str, *words: Any) -> None:
            """Nothing: what counts is in the log."""

    def answer(environment: dict[str, Any], start: Callable[..., Any]) -> Any:
        copied = "copy:" if environment.get("HTTP_X_AMZ_COPY_SOURCE") else ""
        with log.open("a") as file:
            file.write(f"{environment['REQUEST_METHOD']}\t{copied}{environment['PATH_INFO']}\t{environment.get('QUERY_STRING', '')}\n")
        time.sleep(delay_s)
        return served(environment, start)

    server = make_server("127.0.0.1", 0, answer, threaded=True, request_handler=Silent)
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()

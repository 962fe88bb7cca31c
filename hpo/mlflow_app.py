"""MLflow's server without what runs programs for its visitors: applications for `mlflow server --app-name`. Imports no mlflow until asked.

MLflow's assistant runs a shell for whoever reaches the server from its own machine, with a password or without, and has no switch.
Nobody who looks at trials needs it; nor the jobs and the gateway, whose switches are off, too.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

CLOSED = ("/mlflow/assistant", "/ajax-api/3.0/jobs", "/gateway/", "/mlflow/gateway")  # parts of paths, so that a prefix changes nothing
SAID = b"closed: hpo serves MLflow without its assistant, jobs and gateway\n"

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


def alone() -> Application:
    """For one person on a machine of his own: nobody is asked for a password."""
    from mlflow.server.fastapi_app import app

    return closed(app)


def guarded() -> Application:
    """With MLflow's basic auth: users, passwords and permissions, by MLFLOW_AUTH_CONFIG_PATH."""
    from mlflow.server.auth import create_app

    return closed(create_app())


def closed(app: Application) -> Application:
    """The application, without the paths that are CLOSED: these are not found, whoever asks."""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan" and any(part in scope["path"] for part in CLOSED):
            await _refuse(scope, send)
        else:
            await app(scope, receive, send)

    return application


async def _refuse(scope: Scope, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    await send({"type": "http.response.start", "status": 404, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": SAID})

"""A trainer that is given a secret for each way in which it shows one, and a model that is given one, too."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from inspect import Parameter, Signature
from typing import TYPE_CHECKING, Any, Literal

from hpo.engine.worker import SLICE_S
from hpo.trainer import RunningTrial
from tests.secret_trainers import RAISED, SHOWN

if TYPE_CHECKING:
    import torch

FROM_ENVIRONMENT = ("RAY_AUTH_TOKEN", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "WANDB_API_KEY")


def _crash(secret: str) -> None:
    """Past Python's streams, as a library in C would; then it reads address 0."""
    os.write(2, f"\nlast words: {secret}\n".encode())
    ctypes.string_at(0)


def _hang(secret: str) -> None:
    print("waiting with", secret)
    time.sleep(600)


def _environment(_: str) -> None:
    print({name: os.environ[name] for name in FROM_ENVIRONMENT})


def _nothing(_: str) -> None:
    """What is refused, or done elsewhere."""


QUIET: dict[str, Callable[[str], None]] = {
    "metric's name": _nothing,
    "metric": _nothing,
    "state": _nothing,
    "environment": _environment,
    "model": _nothing,
}
KINDS = {"hang": _hang, **SHOWN, **RAISED, **QUIET, "crash": _crash}  # the one that takes longest first


def argument(kind: str) -> str:
    """The argument that holds the secret of a kind."""
    return "of_" + kind.replace(" ", "_").replace("'", "")


def train(trial: RunningTrial, *, kind: str, **secrets: str) -> Iterator[dict[str, Any]]:
    """Shows the secret of its kind at the second epoch. `right` says whether all were what they should be."""
    digests = json.loads(os.environ["HPO_TEST_DIGESTS"])
    right = {name: hashlib.sha256(value.encode()).hexdigest() for name, value in secrets.items()} == digests
    secret = secrets[argument(kind)]
    if kind in ("hang", "crash"):
        time.sleep(SLICE_S)  # so that the first epoch is reported by itself
    for epoch in range(1, trial.max_epochs + 1):
        time.sleep(0.01)  # so that a checkpoint is due
        value = epoch + 10.0 * (kind == "model")
        state: dict[str, Any] = _saved() if kind == "model" else {"epoch": epoch}
        state |= {"settings": {"token": secret}} if kind == "state" and epoch > 1 else {}
        metrics: dict[str, Any] = {"value": value, "right": float(right)}
        if epoch == 2:
            KINDS[kind](secret)
            metrics |= {"metric's name": {f"loss of {secret}": 1.0}, "metric": {"loss": secret}}.get(kind, {})
        trial.save(**state)
        yield metrics


def _network(token: str) -> torch.nn.Module:
    import torch

    network = torch.nn.Sequential(torch.nn.Linear(2, 2))
    network.token = token
    return network


def _saved() -> dict[str, Any]:
    import torch

    return {"model": _network("").state_dict(), "example": torch.zeros(2, 2)}


def build(*, of_model: str) -> torch.nn.Module:
    """A network that keeps its secret."""
    assert not of_model.startswith("${")
    print("building with", of_model)
    return _network(of_model)


def test_scores(network: torch.nn.Module, *, of_model: str) -> dict[str, Any]:
    """Shows the model's secret in all ways."""
    print("testing with", of_model, network)
    raise RuntimeError(f"403 for {of_model}")


train.__signature__ = Signature(  # type: ignore[attr-defined]
    [
        Parameter("trial", Parameter.POSITIONAL_OR_KEYWORD),
        Parameter("kind", Parameter.KEYWORD_ONLY, annotation=Literal[tuple(KINDS)]),
        *(Parameter(argument(kind), Parameter.KEYWORD_ONLY, annotation=str) for kind in KINDS),
    ]
)
test_scores.__test__ = False  # type: ignore[attr-defined]  # it is no test of ours

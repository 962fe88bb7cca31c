"""The Kubernetes manifests of infra/: rendered, taken apart into pods, checked against schemas. No cluster, no network.

Kubernetes' own kinds are checked against its published schemas, unknown fields refused, as kubeconform does (kubernetes-validate
carries them). KubeRay's definitions are in no package: `RAY` states, strictly, the fields that we use, after the field reference of
KubeRay 1.7; the pod templates in them are checked as Kubernetes' own.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml

INFRA = Path(__file__).parent.parent / "infra"
FOLDER = INFRA / "kubernetes"
NAMESPACE = "hpo"
VERSIONS = ("1.30", "1.37")  # the oldest that knows all we use, and the newest with a schema
BIN = Path(sys.executable).parent

_WORDS = {"type": "object", "additionalProperties": {"type": "string"}}
_COUNT = {"type": "integer", "minimum": 0}


def _object(required: str, **properties: object) -> dict[str, object]:
    return {"type": "object", "additionalProperties": False, "required": required.split(), "properties": properties}


_GROUP = {"rayStartParams": _WORDS, "template": {"type": "object"}}
_CLUSTER = _object(
    "headGroupSpec rayVersion authOptions",  # the version is what KubeRay demands beside a token
    rayVersion={"type": "string", "pattern": r"^2\.\d+\.\d+$"},
    authOptions=_object("mode secretName", mode={"enum": ["token"]}, secretName={"type": "string"}),
    headGroupSpec=_object("rayStartParams template", serviceType={"enum": ["ClusterIP"]}, **_GROUP),
    workerGroupSpecs={
        "type": "array",
        "items": _object(
            "groupName replicas minReplicas maxReplicas rayStartParams template",
            groupName={"type": "string"},
            replicas=_COUNT,
            minReplicas=_COUNT,
            maxReplicas=_COUNT,
            **_GROUP,
        ),
    },
)
_JOB = _object(
    "entrypoint backoffLimit rayClusterSpec submitterPodTemplate",
    entrypoint={"type": "string"},
    backoffLimit=_COUNT,
    submissionMode={"enum": ["K8sJobMode"]},
    submitterConfig=_object("", backoffLimit=_COUNT),
    shutdownAfterJobFinishes={"type": "boolean"},
    ttlSecondsAfterFinished=_COUNT,
    submitterPodTemplate={"type": "object"},
    rayClusterSpec=_CLUSTER,
)
_NAME = {"type": "string", "pattern": "^[a-z]([-a-z0-9]{0,45}[a-z0-9])?$"}  # of a job; KubeRay appends to it
RAY = {
    kind: _object(
        "apiVersion kind metadata spec",
        apiVersion={"const": "ray.io/v1"},
        kind={"const": kind},
        metadata=_object("name namespace", name=_NAME, namespace={"const": NAMESPACE}, labels=_WORDS),
        spec=spec,
    )
    for kind, spec in (("RayCluster", _CLUSTER), ("RayJob", _JOB))
}


@dataclass(frozen=True, slots=True)
class Pod:
    """One pod or template: `where` it stands, its labels and its specification."""

    where: str
    labels: dict[str, str]
    spec: dict[str, Any]

    @property
    def containers(self) -> list[dict[str, Any]]:
        """Those that start before the others too."""
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]


@cache
def _rendered(folder: Path) -> str:
    done = subprocess.run([BIN / "kubectl", "kustomize", folder], check=True, capture_output=True, text=True)
    return done.stdout


def render(folder: Path = FOLDER) -> list[dict[str, Any]]:
    """What `kubectl apply -k` would send."""
    return list(yaml.safe_load_all(_rendered(folder)))


def everything() -> list[dict[str, Any]]:
    """The standing parts and the study."""
    return [*render(), *render(FOLDER / "study")]


def name_of(document: dict[str, Any]) -> str:
    """Kind and name, as kubectl writes them."""
    return f"{document['kind']}/{document['metadata']['name']}"


def find(documents: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """The one of that kind and name."""
    (found,) = [document for document in documents if name_of(document) == name]
    return found


def templates(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every pod template of a document, however deep, with its place."""

    def walk(value: Any, place: str) -> Iterator[tuple[str, dict[str, Any]]]:
        if isinstance(value, dict):
            if isinstance(value.get("spec"), dict) and "containers" in value["spec"]:
                yield place, value
            for key, inner in value.items():
                yield from walk(inner, f"{place}.{key}" if place else key)
        elif isinstance(value, list):
            for position, inner in enumerate(value):
                yield from walk(inner, f"{place}[{position}]")

    yield from walk(document, "")


def pods(documents: list[dict[str, Any]]) -> list[Pod]:
    """All pods that the documents bring about."""
    return [
        Pod(f"{name_of(document)} {place}".strip(), template.get("metadata", {}).get("labels", {}), template["spec"])
        for document in documents
        for place, template in templates(document)
    ]


def schema_problem(document: dict[str, Any], version: str) -> str:
    """What Kubernetes of this version, or KubeRay, would refuse; empty if nothing."""
    try:
        if document["apiVersion"].startswith("ray.io/"):
            jsonschema.validate(document, RAY[document["kind"]])
            for _, template in templates(document):
                whole = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "within"}, "template": template}
                kubernetes_validate.validate(whole, version, strict=True)
        else:
            kubernetes_validate.validate(document, version, strict=True)
    except (jsonschema.ValidationError, kubernetes_validate.ValidationError, kubernetes_validate.SchemaNotFoundError) as refused:
        return f"{name_of(document)}: {getattr(refused, 'message', refused)}"
    return ""

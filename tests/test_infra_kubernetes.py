"""infra/kubernetes: schemas, rules, who reaches whom, and that the rules would notice. Nothing here starts a cluster."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from tests.manifest_policy import problems
from tests.manifests import FOLDER, INFRA, VERSIONS, everything, find, name_of, pods, render, schema_problem
from tests.network_policies import may_reach

Document = dict[str, Any]
RAY, SUBMITTER = {"app.kubernetes.io/component": "ray"}, {"app.kubernetes.io/component": "ray-submitter"}
MLFLOW, POSTGRES, OBJECTS = ({"app.kubernetes.io/component": name} for name in ("mlflow", "postgres", "objects"))
CLIENT, STRANGER, OPERATOR = {"hpo/mlflow-client": "true"}, {"app": "any"}, {"app.kubernetes.io/name": "kuberay-operator"}


def test_all_that_is_meant_to_be_deployed_is_rendered() -> None:
    assert sorted(name_of(document) for document in everything() if document["kind"] not in ("ConfigMap", "NetworkPolicy")) == [
        "Deployment/mlflow",
        "Job/mlflow-user",
        "PersistentVolumeClaim/digits-home",
        "PersistentVolumeClaim/shared-home",
        "RayCluster/shared",
        "RayJob/digits",
        "Service/mlflow",
        "Service/objects",
        "Service/postgres",
        "StatefulSet/objects",
        "StatefulSet/postgres",
    ]
    assert len(pods(everything())) == 10, "mlflow and its user, postgres, objects; a head and two groups; a head, a group, the submitter"


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_and_kuberay_know_every_field(version: str) -> None:
    documents = [*everything(), *yaml.safe_load_all((FOLDER / "namespace.yaml").read_text()), *_secret_examples()]
    assert [problem for document in documents if (problem := schema_problem(document, version))] == []


def test_the_manifests_keep_the_rules() -> None:
    assert problems(everything()) == []


def test_kubernetes_itself_is_told_to_refuse_other_pods() -> None:
    (namespace,) = yaml.safe_load_all((FOLDER / "namespace.yaml").read_text())
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


# ------------------------------------------------------------------ would the rules notice?


def _set(name: str, path: str, value: Any) -> Callable[[list[Document]], None]:
    """Break the document at the dotted path; a number is a place in a list, None removes."""

    def broken(documents: list[Document]) -> None:
        *way, last = (int(step) if step.isdigit() else step for step in path.split("."))
        inner: Any = find(documents, name)
        for step in way:
            inner = inner[step] if isinstance(step, int) else inner.setdefault(step, {})
        if value is None:
            del inner[last]
        else:
            inner[last] = value

    return broken


def _add(name: str, path: str, value: Any) -> Callable[[list[Document]], None]:
    def broken(documents: list[Document]) -> None:
        inner: Any = find(documents, name)
        for step in path.split("."):
            inner = inner[int(step)] if step.isdigit() else inner[step]
        inner.append(value)

    return broken


def _without(name: str) -> Callable[[list[Document]], None]:
    return lambda documents: documents.remove(find(documents, name))


POD, HEAD, JOB = "spec.template.spec", "spec.headGroupSpec.template.spec", "spec.rayClusterSpec.headGroupSpec.template.spec"
WORKER, SUBMITS = "spec.workerGroupSpecs.0.template.spec", "spec.submitterPodTemplate.spec"
PRIVILEGED = {"name": "sneak", "image": "busybox:1.37", "securityContext": {"privileged": True}}
BREAKS = [
    # pods, wherever they are
    (_set("Deployment/mlflow", f"{POD}.hostNetwork", True), "hostNetwork"),
    (_set("RayCluster/shared", f"{WORKER}.hostPID", True), "hostPID"),
    (_set("RayJob/digits", f"{JOB}.hostIPC", True), "hostIPC"),
    (_set("RayCluster/shared", f"{HEAD}.automountServiceAccountToken", True), "token of Kubernetes' API"),
    (_set("RayJob/digits", f"{SUBMITS}.automountServiceAccountToken", None), "token of Kubernetes' API"),
    (_set("Deployment/mlflow", f"{POD}.enableServiceLinks", None), "MLFLOW_PORT"),
    (_set("StatefulSet/postgres", f"{POD}.securityContext.runAsNonRoot", None), "as root"),
    (_set("StatefulSet/objects", f"{POD}.securityContext.runAsUser", 0), "as root"),
    (_set("RayJob/digits", f"{SUBMITS}.securityContext.seccompProfile", {"type": "Unconfined"}), "seccomp"),
    (_add("RayCluster/shared", f"{HEAD}.volumes", {"name": "host", "hostPath": {"path": "/"}}), "hostPath"),
    (_add("RayCluster/shared", f"{WORKER}.volumes", {"name": "much", "emptyDir": {}}), "fill the node's disk"),
    (_set("RayCluster/shared", f"{HEAD}.initContainers", [PRIVILEGED]), "sneak: may gain privileges"),
    # containers
    (_set("RayJob/digits", f"{JOB}.containers.0.securityContext.readOnlyRootFilesystem", False), "root file system"),
    (_set("RayCluster/shared", f"{WORKER}.containers.0.securityContext", None), "may gain privileges"),
    (_set("Deployment/mlflow", f"{POD}.containers.0.securityContext.allowPrivilegeEscalation", None), "may gain privileges"),
    (_set("Deployment/mlflow", f"{POD}.containers.0.securityContext.capabilities", {"drop": ["ALL"], "add": ["NET_RAW"]}), "capabilities"),
    (_set("StatefulSet/postgres", f"{POD}.containers.0.securityContext.runAsUser", 0), "as root"),
    (_set("StatefulSet/postgres", f"{POD}.containers.0.image", "postgres:latest"), "not pinned"),
    (_set("RayCluster/shared", f"{HEAD}.containers.0.image", "hpo"), "not pinned"),
    (_set("RayJob/digits", f"{SUBMITS}.containers.0.resources.limits", {"cpu": "1"}), "no limits"),
    (_set("StatefulSet/objects", f"{POD}.containers.0.livenessProbe", None), "whether it lives"),
    (_set("Deployment/mlflow", f"{POD}.containers.0.ports", [{"containerPort": 5000, "hostPort": 5000}]), "port of the node"),
    # secrets
    (_add("Deployment/mlflow", f"{POD}.containers.0.env", {"name": "MLFLOW_TRACKING_PASSWORD", "value": "hunter2"}), "written out"),
    (_add("RayCluster/shared", f"{HEAD}.containers.0.env", {"name": "RAY_AUTH_TOKEN", "value": "abc"}), "written out"),
    (
        _set("Deployment/mlflow", f"{POD}.containers.0.args", ["--backend-store-uri=postgresql://mlflow:hunter2@postgres/mlflow"]),
        "password",
    ),
    (_set("ConfigMap/hpo-environment", "data.AWS_SECRET_ACCESS_KEY", "abc"), "holds a secret"),
    (_set("ConfigMap/hpo-settings", "data.config", "password: hunter2"), "holds a secret"),
    (lambda documents: documents.append({"kind": "Secret", "metadata": {"name": "s", "namespace": "hpo"}}), "none of the kinds"),
    (lambda documents: documents.append({"kind": "ClusterRole", "metadata": {"name": "all"}}), "outside the namespace"),
    # the outside
    (_set("Service/mlflow", "spec.type", "LoadBalancer"), "outside the cluster"),
    (_set("Service/postgres", "spec.type", "NodePort"), "outside the cluster"),
    (_set("Service/objects", "spec.externalIPs", ["203.0.113.7"]), "outside the cluster"),
    (_set("RayCluster/shared", "spec.headGroupSpec.serviceType", "NodePort"), "outside the cluster"),
    (_set("RayJob/digits", "spec.rayClusterSpec.headGroupSpec.enableIngress", True), "outside the cluster"),
    # Ray
    (_set("RayCluster/shared", "spec.authOptions", None), "no token authentication"),
    (_set("RayCluster/shared", "spec.authOptions.mode", "disabled"), "no token authentication"),
    (_set("RayJob/digits", "spec.rayClusterSpec.authOptions.secretName", None), "a token of ours"),
    (_set("RayCluster/shared", f"{WORKER}.containers.0.env", []), "a Ray without a token"),
    (_set("RayCluster/shared", f"{HEAD}.containers.0.env.0.value", "disabled"), "a Ray without a token"),
    (_set("RayCluster/shared", f"{HEAD}.containers.0.env.3.value", "60000"), "noticed too late"),
    (_set("RayJob/digits", "spec.rayClusterSpec.headGroupSpec.rayStartParams.num-cpus", "8"), "beside the drivers"),
    (_set("RayJob/digits", "spec.backoffLimit", 0), "the study's end"),
    (_set("RayJob/digits", "spec.entrypoint", "hpo launch /etc/hpo-study/spec.yaml --address auto"), "the study's end"),
    # the network
    (_without("NetworkPolicy/nobody"), "no NetworkPolicy"),
    (_set("NetworkPolicy/nobody", "spec.podSelector", {"matchLabels": {"app": "any"}}), "no NetworkPolicy"),
    (_set("NetworkPolicy/nobody", "spec.ingress", [{}]), "lets everybody in"),
    (_set("NetworkPolicy/mlflow", "spec.ingress.0.from", [{"namespaceSelector": {}}]), "not named"),
    (_set("NetworkPolicy/postgres", "spec.ingress.0.from", [{"ipBlock": {"cidr": "0.0.0.0/0"}}]), "not named"),
    # what is named and is not there
    (_without("ConfigMap/hpo-settings"), "ConfigMap/hpo-settings is not there"),
    (_without("ConfigMap/hpo-environment"), "ConfigMap/hpo-environment is not there"),
    (_without("PersistentVolumeClaim/digits-home"), "PersistentVolumeClaim/digits-home is not there"),
    (_add("StatefulSet/postgres", f"{POD}.volumes", {"name": "idle", "emptyDir": {"sizeLimit": "1Mi"}}), "mounted nowhere"),
]


@pytest.mark.parametrize(("broken", "noticed"), BREAKS, ids=[f"{place}-{noticed}" for place, (_, noticed) in enumerate(BREAKS)])
def test_a_broken_manifest_is_noticed(broken: Callable[[list[Document]], None], noticed: str) -> None:
    documents = copy.deepcopy(everything())
    broken(documents)
    assert any(noticed in problem for problem in problems(documents)), problems(documents)


@pytest.mark.parametrize(
    ("name", "path", "value"),
    [
        ("RayCluster/shared", f"{HEAD}.securityContex", {}),
        ("RayCluster/shared", f"{WORKER}.containers.0.resources.limit", {}),
        ("RayCluster/shared", "spec.authOption", {}),
        ("RayCluster/shared", "spec.authOptions.mode", "tokn"),
        ("RayCluster/shared", "spec.rayVersion", None),
        ("RayCluster/shared", "spec.headGroupSpec.rayStartParams.num-cpus", 0),
        ("RayJob/digits", "spec.backofflimit", 3),
        ("RayJob/digits", "metadata.name", "Digits"),
        ("RayJob/digits", f"{SUBMITS}.containers.0.env.0.valu", "token"),
        ("Deployment/mlflow", f"{POD}.containers.0.volumeMount", []),
        ("NetworkPolicy/mlflow", "spec.ingres", []),
        ("Service/mlflow", "spec.ports.0.port", "http"),
    ],
)
def test_a_slip_of_the_pen_is_noticed(name: str, path: str, value: Any) -> None:
    documents = copy.deepcopy(everything())
    document = find(documents, name)
    _set(name, path, value)(documents)
    assert schema_problem(document, VERSIONS[-1])


# ------------------------------------------------------------------ who reaches whom


@pytest.mark.parametrize(
    ("source", "target", "port", "namespace", "may"),
    [
        (RAY, RAY, 6379, "hpo", True),
        (RAY, RAY, 31234, "hpo", True),  # workers' ports are chosen as they go
        (RAY, MLFLOW, 5000, "hpo", True),
        (RAY, OBJECTS, 3900, "hpo", True),
        (RAY, POSTGRES, 5432, "hpo", False),
        (SUBMITTER, RAY, 8265, "hpo", True),
        (SUBMITTER, RAY, 6379, "hpo", False),
        (SUBMITTER, MLFLOW, 5000, "hpo", False),
        (SUBMITTER, OBJECTS, 3900, "hpo", False),
        (OPERATOR, RAY, 8265, "kuberay-system", True),
        (OPERATOR, RAY, 6379, "kuberay-system", False),
        (OPERATOR, RAY, 8265, "elsewhere", False),  # anybody can wear its label
        (MLFLOW, POSTGRES, 5432, "hpo", True),
        (MLFLOW, OBJECTS, 3900, "hpo", True),
        (MLFLOW, OBJECTS, 3901, "hpo", False),
        (MLFLOW, RAY, 6379, "hpo", False),
        (CLIENT, MLFLOW, 5000, "hpo", True),
        (CLIENT, MLFLOW, 5000, "elsewhere", False),
        (CLIENT, POSTGRES, 5432, "hpo", False),
        (CLIENT, RAY, 6379, "hpo", False),
        (POSTGRES, MLFLOW, 5000, "hpo", False),
        (POSTGRES, OBJECTS, 3900, "hpo", False),
        (OBJECTS, POSTGRES, 5432, "hpo", False),
        *[(STRANGER, target, port, where, False) for where in ("hpo", "elsewhere") for target, port in
          ((RAY, 6379), (RAY, 8265), (RAY, 10001), (MLFLOW, 5000), (POSTGRES, 5432), (OBJECTS, 3900))],
        (RAY, RAY, 6379, "elsewhere", False),  # another team's Ray
    ],
)  # fmt: skip
def test_who_reaches_whom(source: dict[str, str], target: dict[str, str], port: int, namespace: str, may: bool) -> None:
    assert may_reach(render(), source, target, port, namespace) is may


# ------------------------------------------------------------------ secrets


def _made() -> dict[str, Document]:
    done = subprocess.run([sys.executable, "-I", INFRA / "new_secrets.py", "kubernetes"], check=True, capture_output=True, text=True)
    return {item["metadata"]["name"]: item for item in json.loads(done.stdout)["items"]}


def _secret_examples() -> list[Document]:
    return list(yaml.safe_load_all((FOLDER / "secrets.example.yaml").read_text()))


def _named(value: Any) -> set[tuple[str, str]]:
    """Every (Secret, key) that a document asks for; a whole Secret, as a volume or KubeRay's, with the key that is read from it."""
    if isinstance(value, list):
        return {found for inner in value for found in _named(inner)}
    if not isinstance(value, dict):
        return set()
    found = {found for inner in value.values() for found in _named(inner)}
    if isinstance(reference := value.get("secretKeyRef"), dict):
        found.add((reference["name"], reference["key"]))
    if isinstance(name := value.get("secretName"), str):
        found.add((name, {"hpo-ray": "auth_token"}.get(name, "password")))
    return found


def test_the_secrets_that_are_made_are_those_that_are_named() -> None:
    made = {(name, key) for name, item in _made().items() for key in item["stringData"]}
    assert made == _named(everything())
    assert made == {(item["metadata"]["name"], key) for item in _secret_examples() for key in item["stringData"]}


def test_secrets_are_random_and_in_the_form_that_garage_demands() -> None:
    one, two = _made(), _made()
    values = [value for made in (one, two) for item in made.values() for key, value in item["stringData"].items() if key != "username"]
    assert len(set(values)) == len(values) == 16
    assert all(re.fullmatch(r"(GK[0-9a-f]{24}|[0-9a-f]{64})", value) for value in values)
    assert re.fullmatch(r"GK[0-9a-f]{24}", one["hpo-objects"]["stringData"]["access-key"])
    assert [problem for item in one.values() for version in VERSIONS if (problem := schema_problem(item, version))] == []


def test_no_secret_is_in_the_repository() -> None:
    assert {value for item in _secret_examples() for value in item["stringData"].values()} == {""}
    rendered = json.dumps(everything())
    assert not re.search(r"[0-9a-f]{40}", rendered), "nothing in the manifests is long and random"

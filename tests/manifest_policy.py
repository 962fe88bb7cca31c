"""The rules that infra/'s Kubernetes manifests keep, as a function of what is rendered: problems in words, none if all is well.

The pod's rules are those of Kubernetes' own "restricted" standard, and stricter: a read-only root, limits, probes, no API token.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from tests.manifests import Pod, name_of, pods
from tests.network_policies import policies, selects

KINDS = {"ConfigMap", "Service", "StatefulSet", "Deployment", "Job", "NetworkPolicy", "PersistentVolumeClaim", "RayCluster", "RayJob"}
VOLUMES = {"emptyDir", "configMap", "secret", "persistentVolumeClaim"}
PINNED = re.compile(r"[\w.\-/]+(:(?!latest\b)[\w.\-]*\d[\w.\-]*|@sha256:[0-9a-f]{64})")
SECRET = re.compile(r"password|secret|token|access.?key|credential", re.IGNORECASE)
HARMLESS = re.compile(r"_FILE$|_PATH$|^RAY_AUTH_MODE$")
IN_ADDRESS = re.compile(r"://[^/\s@:]*:[^/\s@]+@")
LOOKS = {  # a node that is gone is noticed by the head after five missed looks, a second each
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "5",
}


def problems(documents: list[dict[str, Any]]) -> list[str]:
    """Everything in them that lets strangers, or a break-in, further than it must."""
    found = [problem for document in documents for problem in _of_document(document)]
    found += [f"{pod.where}: {problem}" for pod in pods(documents) for problem in _of_pod(pod)]
    return found + list(_of_network(documents)) + list(_of_references(documents))


def _of_document(document: dict[str, Any]) -> Iterator[str]:
    name = name_of(document)
    kind, spec = document["kind"], document.get("spec", {})
    if kind not in KINDS:
        yield f"{name}: {kind} is none of the kinds that are deployed here"
    if document["metadata"].get("namespace") != "hpo":
        yield f"{name}: outside the namespace hpo"
    if kind == "Service" and (spec.get("type", "ClusterIP") != "ClusterIP" or spec.get("externalIPs")):
        yield f"{name}: reachable from outside the cluster"
    for key, value in document.get("data", {}).items() if kind == "ConfigMap" else ():
        if SECRET.search(key) or re.search(r"(password|secret|token)\w*\s*[:=]\s*\S", value, re.IGNORECASE):
            yield f"{name}: {key} holds a secret"
    for place, cluster in (("spec", spec), ("spec.rayClusterSpec", spec.get("rayClusterSpec", {}))):
        if "headGroupSpec" in cluster:
            yield from (f"{name} {place}: {problem}" for problem in _of_ray(cluster))
    if kind == "RayJob" and not (spec.get("backoffLimit") and "--or-resume" in spec["entrypoint"]):
        yield f"{name}: the driver's death is the study's end"


def _of_ray(cluster: dict[str, Any]) -> Iterator[str]:
    head = cluster["headGroupSpec"]
    if cluster.get("authOptions", {}).get("mode") != "token" or not cluster["authOptions"].get("secretName"):
        yield "no token authentication with a token of ours"
    if head.get("serviceType", "ClusterIP") != "ClusterIP" or head.get("enableIngress"):
        yield "reachable from outside the cluster"
    groups = [head, *cluster.get("workerGroupSpecs", [])]
    for container in (container for group in groups for container in group["template"]["spec"]["containers"]):
        environment = {entry["name"]: entry for entry in container.get("env", [])}
        if environment.get("RAY_AUTH_MODE", {}).get("value") != "token" or "RAY_AUTH_TOKEN" not in environment:
            yield f"{container['name']} starts a Ray without a token"
    looks = {entry["name"]: entry.get("value") for entry in head["template"]["spec"]["containers"][0].get("env", [])}
    if not LOOKS.items() <= looks.items():
        yield "a lost node is noticed too late"
    if head["rayStartParams"].get("num-cpus") != "0":
        yield "trials run beside the drivers"


def _of_pod(pod: Pod) -> Iterator[str]:
    yield from (f"{key}" for key in ("hostNetwork", "hostPID", "hostIPC") if pod.spec.get(key))
    if pod.spec.get("automountServiceAccountToken") is not False:
        yield "holds a token of Kubernetes' API"
    if pod.spec.get("enableServiceLinks") is not False:
        yield "a Service called mlflow or ray would set variables that programs read, such as MLFLOW_PORT"
    rules = pod.spec.get("securityContext", {})
    if rules.get("runAsNonRoot") is not True or not rules.get("runAsUser"):
        yield "may run as root"
    if rules.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        yield "no seccomp profile"
    for volume in pod.spec.get("volumes", []):
        kinds = set(volume) - {"name"}
        if not kinds <= VOLUMES:
            yield f"volume {volume['name']} is {'/'.join(sorted(kinds))}"
        if "emptyDir" in volume and "sizeLimit" not in volume["emptyDir"]:
            yield f"volume {volume['name']} may fill the node's disk"
    for container in pod.containers:
        yield from (f"{container['name']}: {problem}" for problem in _of_container(container))
        if not {"livenessProbe", "readinessProbe"} <= set(container) and pod.spec.get("restartPolicy", "Always") == "Always":
            yield f"{container['name']}: nobody looks whether it lives"


def _of_container(container: dict[str, Any]) -> Iterator[str]:
    rules = container.get("securityContext", {})
    if rules.get("allowPrivilegeEscalation") is not False or rules.get("privileged"):
        yield "may gain privileges"
    if rules.get("readOnlyRootFilesystem") is not True:
        yield "can write its root file system"
    if rules.get("capabilities", {}) != {"drop": ["ALL"]}:
        yield "keeps capabilities"
    if rules.get("runAsNonRoot") is False or rules.get("runAsUser") == 0:
        yield "may run as root"
    if not PINNED.fullmatch(container["image"]):
        yield f"image {container['image']} is not pinned"
    for side in ("requests", "limits"):
        if not {"cpu", "memory"} <= set(container.get("resources", {}).get(side, {})):
            yield f"no {side} of cpu and memory"
    if any("hostPort" in port for port in container.get("ports", [])):
        yield "takes a port of the node"
    for entry in container.get("env", []):
        if entry.get("value") and SECRET.search(entry["name"]) and not HARMLESS.search(entry["name"]):
            yield f"{entry['name']} is written out"
    words = " ".join(
        [*container.get("command", []), *container.get("args", []), *(entry.get("value", "") for entry in container.get("env", []))]
    )
    if IN_ADDRESS.search(words) or re.search(r"--[\w-]*password[= ]", words):
        yield "a password on the command line or in an address"


def _of_network(documents: list[dict[str, Any]]) -> Iterator[str]:
    ingress = [policy for policy in policies(documents) if "Ingress" in policy["spec"]["policyTypes"]]
    for pod in pods(documents):
        if not any(selects(policy["spec"]["podSelector"], pod.labels) for policy in ingress):
            yield f"{pod.where}: no NetworkPolicy says who may reach it"
    for policy in ingress:
        for rule in policy["spec"].get("ingress", []):
            if not rule.get("from"):
                yield f"{name_of(policy)}: lets everybody in"
            for source in rule.get("from", []):
                if "ipBlock" in source or not source.get("podSelector", {}).get("matchLabels"):
                    yield f"{name_of(policy)}: lets in who is not named by a pod's labels"


def _of_references(documents: list[dict[str, Any]]) -> Iterator[str]:
    there = {name_of(document) for document in documents}
    for pod in pods(documents):
        volumes = pod.spec.get("volumes", [])
        named = [f"ConfigMap/{volume['configMap']['name']}" for volume in volumes if "configMap" in volume]
        named += [
            f"PersistentVolumeClaim/{volume['persistentVolumeClaim']['claimName']}"
            for volume in volumes
            if "persistentVolumeClaim" in volume
        ]
        named += [f"ConfigMap/{source['configMapRef']['name']}" for container in pod.containers for source in container.get("envFrom", [])]
        yield from (f"{pod.where}: {name} is not there" for name in named if name not in there)
        mounted = {mount["name"] for container in pod.containers for mount in container.get("volumeMounts", [])}
        yield from (f"{pod.where}: volume {volume['name']} is mounted nowhere" for volume in volumes if volume["name"] not in mounted)

"""What Kubernetes' NetworkPolicies let through, for those that infra/ uses: selectors by labels, ports by number, one namespace."""

from __future__ import annotations

from typing import Any

from tests.manifests import NAMESPACE

OF_NAMESPACE = "kubernetes.io/metadata.name"


def policies(documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those among the documents."""
    return [document for document in documents if document["kind"] == "NetworkPolicy"]


def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    """An empty selector selects all."""
    return selector.get("matchLabels", {}).items() <= labels.items()


def may_reach(
    documents: list[dict[str, Any]], source: dict[str, str], target: dict[str, str], port: int, namespace: str = NAMESPACE
) -> bool:
    """Whether a pod with the labels `source`, in `namespace`, may connect to `port` of one in ours with the labels `target`."""
    specs = [policy["spec"] for policy in policies(documents)]
    enters = any(_lets(rule, "from", source, namespace, port) for rule in _rules(specs, "Ingress", target))
    leaves = namespace != NAMESPACE or any(_lets(rule, "to", target, NAMESPACE, port) for rule in _rules(specs, "Egress", source))
    return enters and leaves


def _rules(specs: list[dict[str, Any]], direction: str, labels: dict[str, str]) -> list[dict[str, Any]]:
    """Any of them lets through; a pod that no policy concerns is open, which an empty rule says."""
    concerned = [spec for spec in specs if direction in spec["policyTypes"] and selects(spec["podSelector"], labels)]
    return [rule for spec in concerned for rule in spec.get(direction.lower(), [])] if concerned else [{}]


def _lets(rule: dict[str, Any], side: str, other: dict[str, str], where: str, port: int) -> bool:
    ports = [entry["port"] for entry in rule.get("ports", [])]
    peers = rule.get(side, [])
    return (not ports or port in ports) and (not peers or any(_is(peer, other, where) for peer in peers))


def _is(peer: dict[str, Any], labels: dict[str, str], where: str) -> bool:
    namespace = peer.get("namespaceSelector", {}).get("matchLabels", {}).get(OF_NAMESPACE, NAMESPACE)
    return where == namespace and selects(peer.get("podSelector", {}), labels)

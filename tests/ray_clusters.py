"""What a file for `ray up` must say, as a list of what is wrong with it: closed to strangers, of a fixed size, without secrets."""

from __future__ import annotations

import ipaddress
import re
import shlex
from collections.abc import Iterator
from typing import Any

import yaml

from hpo.engine import ray_node
from hpo.engine.ray_node import Node

SECRETS = (
    r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b",
    r"\b[0-9a-f]{40,}\b",
    r"-----BEGIN",
    r"\bya29\.",
    r"\bAIza[\w-]{30,}",
    r"(?i)(?:password|secret|token)[\"']?\s*[=:]\s*[\"']?(?!token\b)[\w/+]{6,}",
)
OPENINGS = (r"0\.0\.0\.0", r"::/0", r"--dashboard-host=(?!127\.0\.0\.1\b)", r"--include-dashboard=true(?! --dashboard-host=127\.0\.0\.1)")
OWN = {"--autoscaling-config", "--node-ip-address", "--address", "--port"}  # what `ray up` needs, or what is the place's


def mistakes(config: dict[str, Any]) -> Iterator[str]:
    """All that is wrong with a cluster's configuration, as it is in the file."""
    text = yaml.safe_dump(config, width=10_000)
    yield from (f"a secret: {found[0]}" for pattern in SECRETS if (found := re.search(pattern, text)))
    yield from (f"open to all: {found[0]}" for pattern in OPENINGS if (found := re.search(pattern, text)))
    for kind in ("head", "worker"):
        yield from _start(kind, config.get(f"{kind}_start_ray_commands", []))
    if config.get("file_mounts", {}).get("~/.ray/auth_token") != "~/.hpo/cluster-token":
        yield "the token is not brought to the nodes"
    if config["auth"].get("ssh_private_key") != "~/.ssh/hpo-cluster":
        yield "the key that goes to the head is not one of its own"
    yield from {"aws": _aws, "gcp": _gcp}.get(config["provider"]["type"], _nothing)(config)


def _start(kind: str, commands: list[str]) -> Iterator[str]:
    starts = [command for command in commands if "ray start" in command]
    if len(starts) != 1 or commands[-1] != starts[0]:
        yield f"{kind}: not one ray start, at the end"
        return
    if not any("test -s ~/.ray/auth_token &&" in command and "chmod 600 ~/.ray/auth_token" in command for command in commands[:-1]):
        yield f"{kind}: it starts without a token, or with one that others read"
    setup, _, start = starts[0].rpartition(";")
    exports = [words[1:] for line in setup.split(";") if (words := shlex.split(line, comments=True)) and words[0] == "export"]
    environment = dict(word.split("=", 1) for words in exports for word in words)
    wanted = {"RAY_AUTH_MODE": "token", **ray_node.HEALTH, **ray_node.QUIET, **ray_node.CLOSED}
    yield from (f"{kind}: {name} is not {value}" for name, value in wanted.items() if environment.get(name) != value)
    flags = {word.partition("=")[0]: word for word in shlex.split(start) if word.startswith("--")}
    node = Node() if kind == "head" else Node(joins="$RAY_HEAD_IP:6379")
    asked = {word.partition("=")[0]: word for word in ray_node.command(node) if word.startswith("--")}
    asked.pop("--block")
    yield from (f"{kind}: {flag} differs from `hpo node`: {flags.get(name)}" for name, flag in asked.items() if flags.get(name) != flag)
    yield from (f"{kind}: {flag} is none of `hpo node`'s" for name, flag in flags.items() if name not in asked.keys() | OWN)


def sizes(config: dict[str, Any]) -> Iterator[str]:
    """What would let the cluster grow or shrink, in a configuration that Ray has filled in."""
    workers = {name: kind for name, kind in config["available_node_types"].items() if kind["max_workers"]}
    for name, kind in workers.items():
        if kind["min_workers"] != kind["max_workers"]:
            yield f"{name}: from {kind['min_workers']} to {kind['max_workers']} workers"
    if not workers or config["max_workers"] != sum(kind["max_workers"] for kind in workers.values()):
        yield f"max_workers: {config['max_workers']}"


def _nothing(config: dict[str, Any]) -> Iterator[str]:
    yield from ()


def _nodes(config: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield from ((name, kind["node_config"]) for name, kind in config["available_node_types"].items())


def _aws(config: dict[str, Any]) -> Iterator[str]:
    if "security_group" in config["provider"]:
        yield "Ray makes the security group, and lets the world in by ssh"
    for name, node in _nodes(config):
        for key in ("SecurityGroupIds", "SubnetIds", "IamInstanceProfile", "KeyName"):
            if not node.get(key):
                yield f"{name}: no {key}, so that Ray makes or takes one"
        if node.get("MetadataOptions") != {"HttpTokens": "required", "HttpPutResponseHopLimit": 1}:
            yield f"{name}: its role can be had by a forged request"
        for disk in node.get("BlockDeviceMappings", [{}]):
            if not disk.get("Ebs", {}).get("Encrypted") or not disk["Ebs"].get("DeleteOnTermination"):
                yield f"{name}: a disk that is not encrypted, or is left and paid for"


def _gcp(config: dict[str, Any]) -> Iterator[str]:
    for name, node in _nodes(config):
        for interface in node.get("networkInterfaces", [{}]):
            if not str(interface.get("subnetwork", "")).endswith("/hpo"):
                yield f"{name}: Ray takes the first network there is, whose firewall lets the world in by ssh"
        if node.get("tags") != {"items": ["hpo"]}:
            yield f"{name}: the firewall's rules are not about it"
        if {"key": "block-project-ssh-keys", "value": "true"} not in node.get("metadata", {}).get("items", []):
            yield f"{name}: whoever has a key in the project can log in"
        if not all(node.get("shieldedInstanceConfig", {}).get(key) for key in ("enableSecureBoot", "enableVtpm")):
            yield f"{name}: it boots anything"
    worker = config["available_node_types"]["worker"]["node_config"]
    scopes = [scope for account in worker.get("serviceAccounts", [{}]) for scope in account.get("scopes", ["all"])]
    if scopes != ["https://www.googleapis.com/auth/devstorage.read_write"]:
        yield "worker: it may do more than keep checkpoints"


def open_networks(text: str) -> list[str]:
    """The networks in a text that are larger than 65,536 addresses, and not private."""
    found = []
    for match in re.finditer(r"(?<![\w.:])((?:\d{1,3}\.){3}\d{1,3}|[0-9a-f]*(?:::?[0-9a-f]*)+)/(\d{1,3})(?!\d)", text):
        try:
            network = ipaddress.ip_network(match[0], strict=False)
        except ValueError:
            continue
        if network.num_addresses > 65_536 and not network.is_private:
            found.append(match[0])
    return found
